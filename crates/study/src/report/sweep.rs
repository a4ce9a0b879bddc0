//! The sweep: what the answers become as the heads are tempered, beside what changes when nothing is.

use crate::{
    outcome::{ArmOutcome, SweepTable},
    report::{
        sweep_chart,
        text::{UNDEFINED, escape, fixed, percent, put, signed},
    },
};

/// Table, chart and the sentence on the control arm.
pub(super) fn draw(sweep: &SweepTable) -> String {
    let mut out = format!(
        r#"<section class="sweep"><h2>What tempering the heads does</h2>
        <p class="lead">Tempered together: <span class="heads">{}</span>. At most {} new tokens.</p>"#,
        escape(&sweep.set),
        sweep.max_new_tokens
    );
    out += &table(sweep);
    put!(
        out,
        r#"<div class="beside">{}<div class="prose"><p>{}</p>"#,
        sweep_chart::draw(sweep),
        control_sentence(sweep)
    );
    out += &truncation(sweep);
    put!(out, r#"<p class="note">{}</p></div></div></section>"#, sweep_chart::KEY);
    out
}

fn table(sweep: &SweepTable) -> String {
    let mut out = String::from(r#"<div class="wide"><table class="arms"><thead><tr><th scope="col">arm</th>"#);
    let columns = ["λ", "n", "accuracy %", "assertion %", "asymmetry", "tokens", "truncated %", "changed %"];
    for column in columns {
        put!(out, r#"<th scope="col">{column}</th>"#);
    }
    out.push_str("</tr></thead><tbody>");
    for arm in &sweep.arms {
        let (class, mark) = if arm.control { (r#" class="control""#, " <i>control</i>") } else { ("", "") };
        put!(out, r#"<tr{class}><th scope="row">{}{mark}</th>"#, escape(&arm.variant));
        let asymmetry = arm.assertion_asymmetry.map_or_else(|| UNDEFINED.to_owned(), |value| signed(value * 100.0, 1));
        let cells = [
            lambda(arm.lambda),
            arm.n.to_string(),
            percent(arm.accuracy),
            percent(arm.assertion_rate),
            asymmetry,
            fixed(arm.mean_tokens, 1),
            percent(arm.truncated),
            percent(arm.changed),
        ];
        for cell in cells {
            put!(out, "<td>{cell}</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

/// λ with as many decimals as it needs.
pub(super) fn lambda(value: f64) -> String {
    if !value.is_finite() {
        return fixed(value, 0);
    }
    let digits = format!("{:.3}", value.abs());
    let digits = digits.trim_end_matches('0').trim_end_matches('.');
    if value < 0.0 && digits != "0" { format!("−{digits}") } else { digits.to_owned() }
}

fn control_sentence(sweep: &SweepTable) -> String {
    let is_control = |arm: &&ArmOutcome| arm.control && arm.lambda == 1.0;
    let Some(control) = sweep.arms.iter().find(is_control) else {
        return "<b>This sweep has no control arm</b> (λ = 1 again), so what rounding and batching alone move is \
            unknown."
            .to_owned();
    };
    let mut out = "The control arm (λ = 1 again) shows what rounding and batching alone move".to_owned();
    put!(out, ": here {} % of the responses", percent(control.changed));
    if let Some(first) = sweep.arms.iter().find(|arm| !arm.control && arm.lambda == 1.0) {
        put!(
            out,
            ", accuracy by {} and assertion rate by {} percentage points",
            signed((control.accuracy - first.accuracy) * 100.0, 1),
            signed((control.assertion_rate - first.assertion_rate) * 100.0, 1)
        );
    }
    out.push_str(". A change of that size at another λ is not an effect.");
    out
}

/// A cut-off answer can look wrong, or lose its hedge: say so wherever it happens.
fn truncation(sweep: &SweepTable) -> String {
    let worst = sweep.arms.iter().filter(|arm| arm.truncated > 0.0).max_by(|x, y| x.truncated.total_cmp(&y.truncated));
    worst.map_or_else(String::new, |arm| {
        format!(
            r#"<p class="caution">Up to {} % of an arm's responses ({}) were cut off at {} tokens. A truncated answer
            can look wrong, or lose its hedge.</p>"#,
            percent(arm.truncated),
            escape(&arm.variant),
            sweep.max_new_tokens
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn the_control_arm_is_marked_and_explained() {
        let mut sweep = fixture::sweep();
        sweep.arms[1].changed = 0.03;
        let out = draw(&sweep);
        assert!(out.contains("lambda=1 again <i>control</i>") && out.contains("here 3.0 % of the responses"));
        sweep.arms.remove(1);
        assert!(draw(&sweep).contains("no control arm"));
    }

    #[test]
    fn undefined_numbers_and_names_are_safe() {
        let mut sweep = fixture::sweep();
        sweep.set = "<script>".to_owned();
        sweep.arms[2].assertion_asymmetry = None;
        sweep.arms[2].accuracy = f64::NAN;
        sweep.arms[2].lambda = f64::NAN;
        let out = draw(&sweep);
        assert!(!out.contains("<script>") && !out.contains("NaN"));
        sweep.arms.clear();
        assert!(!draw(&sweep).contains("NaN"));
    }

    #[test]
    fn truncation_is_said() {
        let mut sweep = fixture::sweep();
        assert!(!draw(&sweep).contains("cut off"));
        sweep.arms[0].truncated = 0.125;
        assert!(draw(&sweep).contains("Up to 12.5 % of an arm's responses (lambda=1) were cut off at 128 tokens"));
    }

    #[test]
    fn lambda_is_short() {
        assert_eq!((lambda(1.0), lambda(0.0), lambda(0.25)), ("1".to_owned(), "0".to_owned(), "0.25".to_owned()));
        assert_eq!((lambda(-0.5), lambda(f64::NAN)), ("−0.5".to_owned(), "–".to_owned()));
    }
}
