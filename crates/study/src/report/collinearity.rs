//! The collinearity panel: what is fitted to the items, beside what other items show of it, and what no cosine can tell.

use headtemper_stats::quantile;

use crate::{
    attribute::LARGE,
    attribution::{Disposition, Verdict},
    report::{
        scatter,
        text::{escape, fixed, put, signed},
        verdict::{self, Question, stands_out},
    },
};

/// Scatter plot and text.
pub(super) fn draw(disposition: &Disposition, explained: bool) -> String {
    let mut out = String::from(r#"<div class="beside"><figure>"#);
    match scatter::draw(disposition) {
        Some(drawn) => put!(out, "{}{drawn}", verdict::counts(&disposition.summary.verdicts)),
        None => out.push_str(r#"<p class="muted">No head has both a d naive and a d on held-out items.</p>"#),
    }
    put!(out, r#"</figure><div class="prose">{}</div></div>"#, prose(disposition, explained));
    out
}

/// What the panel shows; what it means is explained once per page.
fn prose(disposition: &Disposition, explained: bool) -> String {
    let (a, b) = (escape(&disposition.a), escape(&disposition.b));
    let mut out = format!(r#"<p class="story">{}</p>"#, story(disposition));
    if !explained {
        put!(
            out,
            "<p>To the right, d naive: how far apart the items lie along the line between the means of {a} and {b}. That \
        line was fitted to the very items it is measured on, so noise alone puts every head far to the right. Upwards, \
        d held out: the same along a line fitted to other items. Nine in ten heads of noise lie in the grey band, \
        wherever they lie to the right.</p>"
        );
    }
    let cosines = sorted(disposition, |head| head.cos_means);
    let centred = sorted(disposition, |head| head.cos_centered);
    out.push_str(r#"<table class="small" aria-label="Cosines"><thead><tr><th scope="col">over heads</th><th scope="col">lowest</th>"#);
    out.push_str(r#"<th scope="col">median</th><th scope="col">highest</th></tr></thead><tbody>"#);
    out += &spread("cosine of the means", &cosines, |x| fixed(x, 4));
    out += &spread("centred cosine", &centred, |x| signed(x, 2));
    out.push_str("</tbody></table>");
    if !explained {
        out.push_str(
            "<p>A cosine near 1 between the two means diagnoses nothing: pure noise has it, and perfectly separable cohorts \
        have it too, as soon as both share a large common mean, which real heads do. The \
        centred cosine takes that common mean off, and each cohort's mean from a different half of the items: −1 where \
        the cohorts lie apart, about 0 where there is only noise.</p>",
        );
    }
    out
}

/// One row of a table: the ends and the middle of some numbers.
fn spread(name: &str, sorted: &[f64], told: impl Fn(f64) -> String) -> String {
    let ends = [sorted.first(), sorted.last()].map(|end| told(end.copied().unwrap_or(f64::NAN)));
    let [low, high] = ends;
    format!(
        r#"<tr><th scope="row">{name}</th><td>{low}</td><td>{}</td><td>{high}</td></tr>"#,
        told(quantile(sorted, 0.5))
    )
}

/// Which story the numbers support.
fn story(disposition: &Disposition) -> String {
    let shuffled = &disposition.shuffled;
    let heads: Vec<_> = disposition.heads.iter().filter(|head| head.d_naive.is_finite()).collect();
    let Some(largest) = heads.iter().max_by(|x, y| x.d_naive.total_cmp(&y.d_naive)) else {
        return "Here no head has a defined d naive.".to_owned();
    };
    let (name, size) = (largest.at(), fixed(largest.d_naive, 2));
    if shuffled.shuffles == 0 || !shuffled.mean_d_naive.is_finite() {
        return format!("Here the largest d naive is {size} ({name}), with no shuffled labels to compare it with.");
    }
    let mean = fixed(heads.iter().map(|head| head.d_naive).sum::<f64>() / heads.len() as f64, 2);
    let noise = fixed(shuffled.mean_d_naive, 2);
    let large = heads.iter().filter(|head| head.d_naive >= LARGE).count();
    let left = heads.iter().filter(|head| stands_out(head, Question::Direction)).count();
    let artefacts = heads.iter().filter(|head| head.verdict == Verdict::VarianceArtefact).count();
    let averages = format!("d naive averages {mean} over all heads, and {noise} when the labels are shuffled.");
    let called = match large {
        1 => format!("1 head would be called a large effect (d naive from {LARGE})"),
        n => format!("{n} heads would be called large effects (d naive from {LARGE})"),
    };
    match (left, large) {
        (0, 0) => format!("Not even in-sample is there a large effect (d naive from {LARGE}): {averages}"),
        (0, _) => {
            format!("A variance artefact: in-sample, {called}; held-out items give no evidence of it: {averages}")
        }
        _ => format!(
            "{} on held-out items. In-sample, {called}; {artefacts} of them {} no evidence there: {averages}",
            if left == 1 { "1 head lies apart".to_owned() } else { format!("{left} heads lie apart") },
            if artefacts == 1 { "has" } else { "have" }
        ),
    }
}

fn sorted(disposition: &Disposition, of: impl Fn(&crate::attribution::HeadEffect) -> f64) -> Vec<f64> {
    let mut values: Vec<f64> = disposition.heads.iter().map(of).filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    values
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn the_story_follows_the_held_out_items() {
        let mut disposition = fixture::disposition(&[3]);
        let text = story(&disposition);
        assert!(text.starts_with("A variance artefact: in-sample, 3 heads would be called"), "{text}");
        disposition.heads[1].p_max_directional = 0.01;
        disposition.heads[1].verdict = Verdict::Separable;
        let text = story(&disposition);
        assert!(
            text.starts_with("1 head lies apart on held-out items")
                && text.contains("2 of them have no evidence there"),
            "{text}"
        );
        disposition.heads.iter_mut().for_each(|head| (head.d_naive, head.p_max_directional) = (0.3, 1.0));
        assert!(story(&disposition).starts_with("Not even in-sample"));
        disposition.shuffled.shuffles = 0;
        assert!(story(&disposition).contains("no shuffled labels"));
    }

    #[test]
    fn undefined_numbers_are_dashes() {
        let mut disposition = fixture::disposition(&[3]);
        for head in &mut disposition.heads {
            (head.d_naive, head.cos_means, head.cos_centered) = (f64::NAN, f64::NAN, f64::INFINITY);
        }
        let out = draw(&disposition, false);
        assert!(draw(&disposition, true).len() < out.len(), "explained before");
        assert!(out.contains("No head has both") && out.contains("<td>–</td>") && !out.contains("NaN"));
    }
}
