//! Which story the numbers support: for each head, and for a disposition in one sentence.

use super::{Adjust, AttributeOptions, LARGE, LEVEL, Table, confounds::ends};
use crate::{
    attribution::{Disposition, HeadEffect, Summary, Verdict},
    items::units::called,
    significance::least_p,
    text::{fixed, signed},
};

/// The most heads of one kind that a sentence names.
const NAMED: usize = 5;

/// The rule by which a head gets its verdict, as reports print it.
pub(crate) fn rule() -> String {
    let level = 100.0 * LEVEL;
    format!(
        "Two questions are asked of every head: is its z (what the head hands to the output projection) louder in one cohort \
         (|d| of the norms), and does its z lie elsewhere on held-out items (cross-fitted d)? Yes is an answer that shuffled labels give in \
         {level} % of cases at most, to any head (p max) or as a share of the heads that are named (q). Separable: it lies elsewhere, and \
         either nothing says that it is louder (p above {level} % by itself) or the part of z across its mean lies elsewhere as well. Magnitude \
         only: it is louder, or lies elsewhere as a louder head would, and is not separable. Variance artefact: neither, though in-sample it would be called a large effect (d naive from {LARGE}). No \
         evidence: neither, and not even that. Without any signal one disposition in ten has a head that a \
         question names, and up to one in five where p max and q find other heads, since either is enough."
    )
}

/// Why no head can have a verdict, if none can: too few labelings or shuffles for any p as small as the level, or cohorts that follow from
/// what is taken out.
pub(super) fn untestable(table: &Table<'_>, options: &AttributeOptions) -> Option<String> {
    let labelings = table.shuffles(options.seed).labelings();
    if 1.0 / labelings > LEVEL {
        let whole = table.unit_count() < table.rows.len();
        let units = called(options.groups.as_deref());
        return Some(format!(
            "{} and {} items{}{} can be labelled in {}, too few to tell any head from chance.",
            table.n_a,
            table.n_b(),
            if whole { format!(" of {} {units}, which stay whole,", table.unit_count()) } else { String::new() },
            if table.strata.is_some() { ", within their strata," } else { "" },
            if labelings > 1.0 { format!("{labelings} ways") } else { "no other way".into() }
        ));
    }
    if table.taken_out.tell(&table.labels()) {
        let within = if table.strata.is_some() { " within strata" } else { "" };
        return Some(format!(
            "the length of the responses tells the cohorts apart{within} in every item, so that nothing is left of them once it is taken \
             out."
        ));
    }
    let shuffles = options.shuffles;
    (least_p(shuffles) > LEVEL)
        .then(|| format!("labels were shuffled {shuffles} times, too few to tell any head from chance."))
}

/// The verdict of one head, if there can be one. `floor`, the least p that the shuffles can give, is given where it is not small
/// enough for one head among all: a head that no shuffle reached then has no verdict.
pub(super) fn of(head: &HeadEffect, testable: bool, floor: Option<f64>) -> Verdict {
    if !testable || head.magnitude.p_max.is_nan() || head.p_max_directional.is_nan() {
        return Verdict::Untested;
    }
    // That a head is not louder takes more than that it is not named for it: a weak effect in loudness moves z, too.
    let not_louder = head.magnitude.p > LEVEL && !head.magnitude.is_louder();
    if head.lies_elsewhere() && (not_louder || head.lies_across()) {
        Verdict::Separable
    } else if head.magnitude.is_louder() || head.lies_elsewhere() {
        Verdict::MagnitudeOnly
    } else if floor.is_some_and(|floor| head.magnitude.p.min(head.p_directional) <= floor) {
        Verdict::Untested
    } else if head.d_naive >= LARGE {
        Verdict::VarianceArtefact
    } else {
        Verdict::NoEvidence
    }
}

/// The heads in a few numbers.
pub(crate) fn summary(heads: &[HeadEffect]) -> Summary {
    let most = |of: &dyn Fn(&HeadEffect) -> f64| {
        heads.iter().filter(|head| of(head).is_finite()).max_by(|x, y| of(x).total_cmp(&of(y)))
    };
    let least = |of: &dyn Fn(&HeadEffect) -> f64| heads.iter().map(of).fold(f64::NAN, f64::min);
    let loudest = most(&|head| head.magnitude.cohen_d.abs());
    let clearest = most(&|head| head.d_crossfit);
    let count = |verdict: Verdict| (verdict, heads.iter().filter(|head| head.verdict == verdict).count());
    Summary {
        heads: heads.len(),
        loudest: loudest.map(|head| head.at().to_string()),
        largest_d: loudest.map_or(f64::NAN, |head| head.magnitude.cohen_d),
        least_p_max: least(&|head| head.magnitude.p_max),
        largest_d_naive: most(&|head| head.d_naive).map_or(f64::NAN, |head| head.d_naive),
        clearest: clearest.map(|head| head.at().to_string()),
        largest_d_crossfit: clearest.map_or(f64::NAN, |head| head.d_crossfit),
        least_p_max_directional: least(&|head| head.p_max_directional),
        verdicts: Verdict::ALL.into_iter().map(count).filter(|&(_, n)| n > 0).collect(),
    }
}

/// The heads that the sentence of a disposition names.
pub(crate) fn named_heads(disposition: &Disposition) -> Vec<&HeadEffect> {
    let heads = &disposition.heads;
    let with = |verdict: Verdict| heads.iter().filter(|head| head.verdict == verdict).collect::<Vec<&HeadEffect>>();
    let (separable, louder) = (with(Verdict::Separable), with(Verdict::MagnitudeOnly));
    if !(separable.is_empty() && louder.is_empty()) {
        let (separable, louder) =
            (largest(separable, |head| head.d_crossfit), largest(louder, |head| head.magnitude.cohen_d));
        return separable.into_iter().take(NAMED).chain(louder.into_iter().take(NAMED)).collect();
    }
    // Where nothing could be tested, the sentence says that alone.
    if heads.iter().all(|head| head.verdict == Verdict::Untested) {
        return Vec::new();
    }
    let names = [&disposition.summary.loudest, &disposition.summary.clearest];
    let least = [magnitude_p(heads), directional_p(heads)].map(|of| of.map(HeadEffect::at));
    let is_named = |head: &&HeadEffect| {
        let name = head.at().to_string();
        names.into_iter().any(|other| other.as_deref() == Some(&name)) || least.contains(&Some(head.at()))
    };
    heads.iter().filter(is_named).collect()
}

/// The head with the least p max of magnitude. It need not be the one with the largest d: p is of d with Welch's spread.
fn magnitude_p(heads: &[HeadEffect]) -> Option<&HeadEffect> {
    least(heads, |head| head.magnitude.p_max)
}

/// The head with the least p max of held-out direction.
fn directional_p(heads: &[HeadEffect]) -> Option<&HeadEffect> {
    least(heads, |head| head.p_max_directional)
}

fn least(heads: &[HeadEffect], p: impl Fn(&HeadEffect) -> f64) -> Option<&HeadEffect> {
    heads.iter().filter(|head| p(head).is_finite()).min_by(|x, y| p(x).total_cmp(&p(y)))
}

/// What the sentence says of the head named `of`: its own d and p max, and the least p max if that is another head's.
fn beside_shuffled(
    heads: &[HeadEffect],
    of: Option<&str>,
    least: Option<&HeadEffect>,
    numbers: impl Fn(&HeadEffect) -> (f64, f64),
) -> String {
    let Some(head) = heads.iter().find(|head| of == Some(head.at().to_string().as_str())) else {
        return "none".into();
    };
    let (d, p) = numbers(head);
    let other = least.filter(|least| numbers(least).1 < p);
    let other = other.map(|least| format!("; the least is {}, of {}", fixed(numbers(least).1, 2), least.at()));
    format!("{}, d {}, p max {}{}", head.at(), told(d), fixed(p, 2), other.unwrap_or_default())
}

/// What the numbers say of a disposition, for somebody who reads nothing else; `untestable` is why they can say nothing.
pub(super) fn sentence(disposition: &Disposition, untestable: Option<&str>, adjust: Adjust) -> String {
    if let Some(why) = untestable {
        return format!("No verdict: {why}");
    }
    let heads = &disposition.heads;
    if !heads.is_empty() && heads.iter().all(|head| head.p_max_directional.is_nan()) {
        return without_direction(heads);
    }
    let summary = &disposition.summary;
    let with = |verdict: Verdict| heads.iter().filter(move |head| head.verdict == verdict);
    let (separable, louder) = (with(Verdict::Separable).count(), with(Verdict::MagnitudeOnly).count());
    let artefacts = with(Verdict::VarianceArtefact).count();
    let of = |n: usize| if n == 1 { "1 head".to_string() } else { format!("{n} heads") };
    let mut text = if separable + louder == 0 {
        let loudest = beside_shuffled(heads, summary.loudest.as_deref(), magnitude_p(heads), |head| {
            (head.magnitude.cohen_d, head.magnitude.p_max)
        });
        let clearest = beside_shuffled(heads, summary.clearest.as_deref(), directional_p(heads), |head| {
            (head.d_crossfit, head.p_max_directional)
        });
        format!(
            "No evidence for any of {}: shuffled labels give the largest of them as much as the loudest ({loudest}) and as the one \
             that lies furthest apart on held-out items ({clearest}).",
            of(heads.len())
        )
    } else {
        let mut parts = Vec::new();
        if separable > 0 {
            let d = |head: &HeadEffect| head.d_crossfit;
            let named = named(with(Verdict::Separable).collect(), "held-out d", d);
            let verb = if separable == 1 { "separates" } else { "separate" };
            parts.push(format!("{} {verb} the cohorts on held-out items: {named}", of(separable)));
        }
        if louder > 0 {
            let named = named(with(Verdict::MagnitudeOnly).collect(), "d", |head| head.magnitude.cohen_d);
            let verb = if louder == 1 { "differs" } else { "differ" };
            parts.push(format!("{} {verb} in magnitude only: {named}", of(louder)));
        }
        format!("Of {}, {}.", of(heads.len()), parts.join("; "))
    };
    if artefacts > 0 {
        let verb = if artefacts == 1 { "looks" } else { "look" };
        text += &format!(
            " {} {verb} separated in-sample (d naive from {LARGE}) without evidence on held-out items: shuffled labels give \
             {} on average.",
            of(artefacts),
            fixed(disposition.shuffled.mean_d_naive, 2)
        );
    }
    if separable + louder > 0 {
        text += &but(disposition, adjust);
    }
    text
}

/// The sentence where direction could not be tested: a verdict needs both questions.
fn without_direction(heads: &[HeadEffect]) -> String {
    let louder: Vec<&HeadEffect> = heads.iter().filter(|head| head.magnitude.is_louder()).collect();
    let of_magnitude = match louder.len() {
        0 => "None is louder beyond chance.".into(),
        n => format!(
            "Louder beyond chance: {n} of {}, {}.",
            heads.len(),
            named(louder, "d", |head| head.magnitude.cohen_d)
        ),
    };
    format!(
        "No verdict: whether a head's z lies elsewhere on held-out items could not be tested, since a cohort has too few prompts for folds. \
         {of_magnitude}"
    )
}

/// What else would explain a finding; empty if nothing is known that would.
fn but(disposition: &Disposition, adjust: Adjust) -> String {
    let mut other = Vec::new();
    let lengths = [("response", disposition.length.lengths()), ("prompt", disposition.prompts.lengths())];
    let taken_out = |of: &str| of == "response" && adjust == Adjust::Length;
    let differ = lengths.into_iter().filter(|(of, lengths)| lengths.confound() && !taken_out(of));
    other.extend(differ.map(|(of, lengths)| format!("{of} length ({})", lengths.told())));
    if ends(&disposition.length).unequal() {
        let length = &disposition.length;
        let cut = format!("{} and {} of them", length.truncated_a, length.truncated_b);
        other.push(format!("how many answers were cut off ({cut})"));
    }
    let fields = disposition.fields.iter();
    other.extend(fields.map(|field| format!("{} (Cramér's V {})", field.field, fixed(field.cramers_v, 2))));
    match &other[..] {
        [] => String::new(),
        several => format!(" But the cohorts differ in {} too, which alone can do this.", several.join(", ")),
    }
}

/// Heads by the size of a number, the largest first.
fn largest(mut heads: Vec<&HeadEffect>, d: impl Fn(&HeadEffect) -> f64) -> Vec<&HeadEffect> {
    heads.sort_by(|x, y| d(y).abs().total_cmp(&d(x).abs()));
    heads
}

/// The first few heads by the size of a number.
fn named(heads: Vec<&HeadEffect>, what: &str, d: impl Fn(&HeadEffect) -> f64) -> String {
    let heads = largest(heads, &d);
    let mut names: Vec<String> =
        heads.iter().take(NAMED).map(|head| format!("{} ({what} {})", head.at(), told(d(head)))).collect();
    if heads.len() > NAMED {
        names.push(format!("and {} more", heads.len() - NAMED));
    }
    names.join(", ")
}

/// A number with its sign, as sentences have it: a true minus.
fn told(x: f64) -> String {
    signed(x, 2).replace('-', "−")
}
