//! The sections of one disposition: heat maps, ranked heads, collinearity, response length.

use crate::{
    attribution::{Attribution, Disposition},
    report::{
        collinearity, heatmap,
        html::warning_list,
        measure::Measure,
        table,
        text::{count, escape, fixed, percent, put, signed},
        verdict::LENGTH_D,
    },
};

/// Truncation rates further apart than this confound a comparison.
const TRUNCATION_GAP: f64 = 0.1;

/// All sections of the disposition at `index`.
pub(super) fn draw(attribution: &Attribution, index: usize) -> String {
    let Some(disposition) = attribution.dispositions.get(index) else { return String::new() };
    let (a, b) = (escape(&disposition.a), escape(&disposition.b));
    let mut out = format!(
        r#"<section id="disposition-{index}"><h2>{}</h2>
        <p class="lead">a = {a} ({} items), b = {b} ({} items). d &gt; 0: louder in {a}.</p>"#,
        escape(&disposition.name),
        disposition.n_a,
        disposition.n_b
    );
    out += &warning_list(&disposition.warnings);
    out += &heat_maps(attribution, disposition);
    out += &ranking(attribution, disposition);
    put!(out, "<h3>Collinearity</h3>{}", collinearity::draw(disposition));
    out += &length_check(disposition);
    out.push_str("</section>");
    out
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
    let undefined = disposition.heads.iter().any(|effect| !effect.magnitude.cohen_d.is_finite());
    let struck = if undefined { " Struck through: no defined value." } else { "" };
    let lines = if attribution.heads_per_layer.contains(&0) { " Hairlines: layers without heads." } else { "" };
    let nets = if heatmap::delta_nets(disposition).is_empty() {
        ""
    } else {
        " Underlined: gated delta nets, whose value heads are written V."
    };
    let shuffled = &disposition.shuffled;
    let (outlined, dashed, source) = if shuffled.shuffles == 0 {
        ("", "", "Labels were not shuffled.".to_owned())
    } else {
        let shuffles = count(shuffled.shuffles, "shuffle");
        let source = format!("Dashed: what {shuffles} of the labels (seed {}) give.", shuffled.seed);
        (" Outlined: |d| above the 95\u{a0}% level.", "; read it against the dashed levels", source)
    };
    format!(
        r#"<h3>Where the cohorts differ</h3>{missing}<div class="maps">
        <figure><figcaption><b>Magnitude: Cohen's d</b> of the norm of z. <span class="key pos"></span> louder in {a},
        <span class="key neg"></span> louder in {b}.{outlined}{struck}{lines}{nets}</figcaption>{}</figure>
        <figure class="aside"><figcaption><b>Direction: d_naive, in-sample: not evidence by itself.</b>
        It is large on pure noise too, so it is grey here{dashed}.</figcaption>{}</figure></div>
        <p class="note">Above each colour scale: how many heads lie where. {source}</p>"#,
        heatmap::draw(attribution, disposition, Measure::Magnitude),
        heatmap::draw(attribution, disposition, Measure::Naive)
    )
}

fn ranking(attribution: &Attribution, disposition: &Disposition) -> String {
    let listed = disposition.heads.len().min(table::LISTED);
    let ticks = if disposition.shuffled.shuffles == 0 {
        ""
    } else {
        "; their ticks stand at the 95\u{a0}% level of the largest |d| under shuffled labels, and heads beyond it are \
        bold"
    };
    format!(
        r#"<h3>Heads by |d|</h3><p class="note">The {} with the largest |d|, of {}. z is taken over the last {} of each
        response. Bars run from zero{ticks}. The columns are explained at the end.</p>{}"#,
        count(listed, "head"),
        disposition.heads.len(),
        count(attribution.last_n, "token"),
        table::draw(disposition)
    )
}

fn length_check(disposition: &Disposition) -> String {
    let length = &disposition.length;
    let rate = |truncated: usize, n: usize| truncated as f64 / n as f64;
    let (rate_a, rate_b) = (rate(length.truncated_a, disposition.n_a), rate(length.truncated_b, disposition.n_b));
    let row = |name: &str, n: usize, mean: f64, truncated: usize, rate: f64| {
        format!(
            r#"<tr><th scope="row">{}</th><td>{n}</td><td>{}</td><td>{truncated}</td><td>{}</td></tr>"#,
            escape(name),
            fixed(mean, 1),
            percent(rate)
        )
    };
    let mut out = format!(
        r#"<h3>Response length</h3><div class="wide"><table class="small"><thead><tr>
        <th scope="col">cohort</th><th scope="col">items</th><th scope="col">mean tokens</th>
        <th scope="col">truncated</th><th scope="col">truncated %</th></tr></thead>
        <tbody>{}{}</tbody></table></div>"#,
        row(&disposition.a, disposition.n_a, length.mean_a, length.truncated_a, rate_a),
        row(&disposition.b, disposition.n_b, length.mean_b, length.truncated_b, rate_b)
    );
    let d = signed(length.cohen_d, 2);
    if length.cohen_d.abs() > LENGTH_D {
        put!(
            out,
            r#"<p class="caution"><b>Confounded with length.</b> The cohorts' responses differ in length by d = {d},
            more than {LENGTH_D}: a head that follows length would look like one that follows the disposition.</p>"#
        );
    } else if length.cohen_d.is_finite() {
        put!(out, "<p>The lengths differ by d = {d}, within the ±{LENGTH_D} that this report lets pass.</p>");
    } else {
        out.push_str("<p>The d of the lengths is undefined: length could not be checked.</p>");
    }
    if (rate_a - rate_b).abs() > TRUNCATION_GAP {
        out.push_str(
            r#"<p class="caution"><b>Confounded with truncation.</b> One cohort's responses were cut off far
            more often than the other's, so their last tokens are not comparable.</p>"#,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn a_difference_in_length_is_said() {
        let mut attribution = fixture::attribution(&[2]);
        assert!(!draw(&attribution, 0).contains("Confounded"));
        attribution.dispositions[0].length.cohen_d = -0.51;
        attribution.dispositions[0].length.truncated_a = 40;
        let out = draw(&attribution, 0);
        assert!(out.contains("Confounded with length") && out.contains("d = −0.51"));
        assert!(out.contains("Confounded with truncation"));
    }

    #[test]
    fn empty_cohorts_and_undefined_lengths_are_no_numbers() {
        let mut attribution = fixture::attribution(&[2]);
        let disposition = &mut attribution.dispositions[0];
        (disposition.n_a, disposition.length.truncated_a, disposition.length.cohen_d) = (0, 0, f64::NAN);
        let out = draw(&attribution, 0);
        assert!(!out.contains("NaN") && out.contains("could not be checked"));
        assert!(draw(&attribution, 1).is_empty());
    }
}
