//! The sections of one disposition: what is asked, where the heads differ, and what else could explain it.

use crate::{
    attribution::{Attribution, Disposition},
    report::{
        collinearity, confounds, heatmap,
        html::warning_list,
        measure::Measure,
        overview, question, stability, table,
        text::{count, decimals, escape, fixed, put},
        verdict,
    },
    significance::{LEVEL, least_p},
};

/// All sections of the disposition at `index`.
pub(super) fn draw(attribution: &Attribution, index: usize) -> String {
    let Some(disposition) = attribution.dispositions.get(index) else { return String::new() };
    let several = attribution.dispositions.len() > 1;
    let mut out = format!(r#"<section id="disposition-{index}"><h2>"#);
    if several {
        put!(out, r##"{} <a class="up" href="#top">overview ↑</a>"##, escape(&disposition.name));
    } else {
        out.push_str("What was compared");
    }
    put!(out, "</h2>{}", question::draw(disposition, !several));
    // A single disposition has its sentence at the top of the page.
    if several {
        put!(out, r#"<p class="said">{}</p>"#, escape(&overview::unbroken(&disposition.sentence)));
        out += &verdict::counts(&disposition.summary.verdicts);
    }
    out += &warning_list(&disposition.warnings);
    out += &heat_maps(attribution, disposition);
    out += &ranking(attribution, disposition);
    put!(out, "<h3>Fitted to the items, and on held-out items</h3>{}", collinearity::draw(disposition, index > 0));
    put!(out, "<h3>Length and prompts</h3>{}", confounds::draw(attribution, disposition));
    put!(out, "<h3>Does the ranking come out again?</h3>{}", stability::draw(disposition));
    out + "</section>"
}

fn heat_maps(attribution: &Attribution, disposition: &Disposition) -> String {
    let (a, b) = (escape(&disposition.a), escape(&disposition.b));
    let missing = match heatmap::outside(attribution, disposition) {
        0 => String::new(),
        n => format!(
            r#"<p class="caution">{} outside the model's stated geometry: in the table, not drawn.</p>"#,
            count(n, "head")
        ),
    };
    let draw = |measure| heatmap::draw(attribution, disposition, measure);
    format!(
        r#"<h3>Where the cohorts differ</h3>{missing}<div class="maps">
        <figure><figcaption><b>Magnitude: d of the norm of z.</b> <span class="key pos"></span>&nbsp;louder in {a},
        <span class="key neg"></span>&nbsp;louder in {b}.</figcaption>{}</figure>
        <figure><figcaption><b>Direction: d on held-out items.</b> <span class="key size"></span>&nbsp;on their own
        cohort's side, <span class="key naive"></span>&nbsp;on the other, which is nothing.</figcaption>{}</figure>
        <figure><figcaption><b>How sure of the magnitude:</b> −log₁₀ of q, the false discovery rate.</figcaption>{}</figure>
        <figure><figcaption><b>How sure of the direction:</b> the same for d on held-out items.</figcaption>{}</figure>
        </div><p class="note">{}</p>"#,
        draw(Measure::Magnitude),
        draw(Measure::HeldOut),
        draw(Measure::MagnitudeQ),
        draw(Measure::HeldOutQ),
        marks(attribution, disposition)
    )
}

/// What the marks of the maps mean, if they occur.
fn marks(attribution: &Attribution, disposition: &Disposition) -> String {
    let shuffled = &disposition.shuffled;
    let mut out = String::from("Above each colour scale: how many heads lie where.");
    if shuffled.shuffles == 0 {
        out.push_str(" Labels were not shuffled.");
    } else {
        let shuffles = count(shuffled.shuffles, "shuffle");
        put!(
            out,
            " Dashed, and the grey band: what {shuffles} of the labels (seed {}) give; “largest” is the largest of all \
            heads. Outlined: heads that stand out by it, p max or q at most 0.05.",
            shuffled.seed
        );
        out += &coarse(disposition);
    }
    if disposition.heads.iter().any(|head| !head.magnitude.cohen_d.is_finite() || !head.d_crossfit.is_finite()) {
        out.push_str(" Struck through: no defined value.");
    }
    if attribution.heads_per_layer.contains(&0) {
        out.push_str(" Hairlines: layers without heads.");
    }
    if !heatmap::delta_nets(disposition).is_empty() {
        out.push_str(" Underlined: gated delta nets, whose value heads are written V.");
    }
    out
}

/// What so few shuffles cannot show: the smallest possible p limits how small a q can be.
fn coarse(disposition: &Disposition) -> String {
    let (heads, shuffles) = (disposition.heads.len() as f64, disposition.shuffled.shuffles);
    let least = least_p(shuffles);
    let needed = (heads * least / LEVEL).ceil();
    if needed <= 1.0 {
        return String::new();
    }
    format!(
        " With {} no p is below {}, so that no q falls to {LEVEL} unless at least {needed} of {heads} heads get there.",
        count(shuffles, "shuffle"),
        fixed(least, decimals(least, 2))
    )
}

fn ranking(attribution: &Attribution, disposition: &Disposition) -> String {
    let all = disposition.heads.len();
    let by = if attribution.method.compat.signed() { "d" } else { "|d|" };
    let listed = if all > table::LISTED {
        format!(
            "The {} heads with the largest {by} of {all}, and the {} with the largest d on held-out items.",
            table::LISTED,
            table::CLEAREST
        )
    } else {
        format!("All {}.", count(all, "head"))
    };
    let dashed = if disposition.shuffled.shuffles == 0 {
        ""
    } else if !disposition.has_level_of_d() {
        " No level of shuffled labels is drawn: p, which is of d over another spread, says otherwise of a head beyond it. Bold: p max or q at most 0.05."
    } else {
        " Dashed: the level that the largest |d| of all heads exceeds in one shuffle of twenty. Bold: p max or q at most \
         0.05."
    };
    format!(
        r#"<h3>Heads by {by}</h3><p class="note">{listed} z is taken over the last {} of each response.{dashed}
        <span class="screen">A click on a column's name sorts by it. Folded below: all heads with every column, as means, p, d of the last
        token, cosines and r.</span> All columns are explained at the end.</p>{}"#,
        count(attribution.last_n, "token"),
        table::draw(attribution, disposition)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn every_part_is_there() {
        let out = draw(&fixture::attribution(&[3, 0]), 0);
        assert_eq!(out.matches("aria-label=\"Heat map of").count(), 4);
        for part in ["Scatter plot", "before and after length", "Split-half rank", "Hairlines", "class=\"question\""] {
            assert!(out.contains(part), "{part}");
        }
        assert!(!out.contains("class=\"said\""), "its sentence is at the top of the page");
        assert!(draw(&fixture::attribution(&[3]), 1).is_empty());
    }

    #[test]
    fn what_few_shuffles_cannot_show_is_said() {
        let mut disposition = fixture::disposition(&[9; 30]);
        disposition.shuffled.shuffles = 100;
        assert!(
            coarse(&disposition).contains("no p is below 0.0099, so that no q falls to 0.05 unless at least 54 of 270")
        );
        disposition.shuffled.shuffles = 9999;
        assert!(coarse(&disposition).is_empty());
    }

    #[test]
    fn one_of_several_has_its_sentence_and_a_way_back() {
        let out = draw(&fixture::several(&[3], 2), 1);
        assert!(out.contains("class=\"said\"") && out.contains("href=\"#top\""));
    }

    #[test]
    fn empty_cohorts_and_undefined_lengths_are_no_numbers() {
        let mut attribution = fixture::attribution(&[2]);
        let disposition = &mut attribution.dispositions[0];
        (disposition.n_a, disposition.length.truncated_a, disposition.length.cohen_d) = (0, 0, f64::NAN);
        let out = draw(&attribution, 0);
        assert!(!out.contains("NaN") && out.contains("could not be checked"));
    }
}
