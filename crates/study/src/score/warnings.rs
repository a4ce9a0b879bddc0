//! What a reader must know before the numbers of a map.

use super::{Contrast, ScoreMap, map::Nulls};
use crate::{
    confounds::{LikeResponses, Truncation, group_responses, told_field, told_prompts},
    hooks::moved_nothing,
    items::{facts::RESPONSE, units},
    significance::{LEVEL, told_fixed},
    text::count,
};

/// Cohorts below this are called tiny.
const TINY: usize = 15;

fn changed_nothing(map: &ScoreMap) -> Option<String> {
    let still = map.cells.iter().filter(|cell| cell.lambda != 1.0 && cell.delta == 0.0 && cell.kl == 0.0);
    moved_nothing(&still.map(|cell| format!("{}@{}", cell.at(), cell.lambda)).collect::<Vec<_>>())
}

pub(super) fn warnings(map: &ScoreMap, nulls: Nulls) -> Vec<String> {
    let mut warnings = Vec::new();
    let (items, prompts) = (map.items, map.prompts);
    let counted = |count: usize| units::counted(count, map.groups.as_deref());
    if map.cells.iter().all(|cell| cell.lambda == 1.0) {
        warnings.push("no head is tempered: every λ is 1".into());
    }
    // The smallest p if all flips were enumerated.
    let possible = 0.5f64.powi(prompts as i32 - 1);
    if nulls.shuffles == 0 {
        warnings.push("no sign was flipped and no label shuffled: there are no p-values, and nothing is called".into());
    } else if possible > LEVEL {
        warnings.push(format!(
            "with {} there are so few sign flips that no p can be below {possible}: nothing can be called, whatever the effects; 6 are the \
             least",
            counted(prompts)
        ));
    } else if map.flips.smallest_p > LEVEL {
        warnings.push(format!("{} sign flips cannot give a p below {:.2}", map.flips.count, map.flips.smallest_p));
    }
    if prompts < items {
        warnings.push(format!("the {items} items have {}; those that share one count as one", counted(prompts)));
    }
    warnings.extend(changed_nothing(map));
    let Some(contrast) = &map.contrast else { return warnings };
    for (name, n) in [(&contrast.a, contrast.n_a), (&contrast.b, contrast.n_b)] {
        if n < TINY {
            warnings.push(format!("cohort {name} has only {n} items; below {TINY} every effect size is a guess"));
        }
    }
    if contrast.prompts < contrast.n_a + contrast.n_b {
        warnings.push(format!(
            "the items of {} and {} have {}, by which their labels are shuffled",
            contrast.a,
            contrast.b,
            counted(contrast.prompts)
        ));
    }
    if contrast.too_few() {
        warnings.push(format!(
            "the {} of {} and {} can be labelled in {} ways, too few to tell any head from chance: nothing is tested",
            map.units(),
            contrast.a,
            contrast.b,
            contrast.labelings
        ));
    } else if contrast.shuffles > 0 {
        if contrast.smallest_p() > LEVEL {
            let (shuffles, least) = (count(contrast.shuffles, "shuffle"), contrast.smallest_p());
            warnings.push(format!("{shuffles} of the labels cannot give a p below {least:.3}: no head can be called"));
        }
        let like = format!("as many items of the same {}", map.groups.as_deref().unwrap_or("prompt"));
        warnings.extend(told_fixed(contrast.fixed, contrast.n_a + contrast.n_b, &like));
    }
    let lengths = contrast.lengths();
    if lengths.confound() {
        let spread =
            if lengths.tell_apart() { " in every item".into() } else { format!(", d = {:.2}", contrast.tokens_d) };
        warnings.push(format!(
            "responses in {} and {} differ in length ({:.1} and {:.1} scored tokens{spread}): Δ a token depends on \
             how far into a response it is taken",
            contrast.a, contrast.b, contrast.tokens_a, contrast.tokens_b
        ));
    }
    warnings.extend(told_confounds(contrast, map.groups.as_deref()));
    warnings
}

/// What else the cohorts differ in, as warnings.
fn told_confounds(contrast: &Contrast, groups: Option<&str>) -> Vec<String> {
    let Some(found) = &contrast.confounds else { return Vec::new() };
    let responses = found.responses_clustering.filter(|_| groups != Some(RESPONSE)).and_then(|clustering| {
        let like = LikeResponses { items: found.responses_repeated, clustering };
        like.told(contrast.clustering, groups, &group_responses(groups, "score"))
    });
    let ends =
        Truncation { cut: [found.truncated_a, found.truncated_b], known: [found.ends_known_a, found.ends_known_b] };
    let so = ": Δ a token holds more ends of responses in one than in the other";
    ends.told([&contrast.a, &contrast.b], [contrast.n_a, contrast.n_b], so)
        .into_iter()
        .chain(told_prompts(&contrast.a, &contrast.b, found.prompt_lengths()))
        .chain(responses)
        .chain(found.fields.iter().map(|field| told_field(field, "tells the cohorts apart")))
        .collect()
}
