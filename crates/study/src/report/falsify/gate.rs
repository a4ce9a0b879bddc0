//! What the gate lets through: of correct and of wrong answers, at the threshold that was frozen and at others.

use crate::{
    falsify::Falsification,
    probe::{Ends, OperatingPoint},
    report::{
        axis::Axis,
        falsify::calibration,
        text::{NARROW, escape, fixed, percent, put, signed, wide},
    },
};

const BAR: f64 = 200.0;

/// A row of the table: its name, the gate there, and what to know about the threshold.
struct Row<'a> {
    name: &'static str,
    gate: Option<OperatingPoint>,
    note: &'a str,
    decides: bool,
}

/// The section.
pub(super) fn draw(found: &Falsification) -> String {
    let mut out = format!(
        r#"<section id="gate"><h2>The gate</h2><p class="lead">Assert where the probability is at least the threshold, else
        hedge. A gate that works asserts on most correct answers and on few wrong ones.</p><p class="story">{}</p>"#,
        escape(&story(found))
    );
    table(&mut out, found);
    out += &calibration::draw(found);
    out + "</section>"
}

/// What the frozen gate did to fresh items.
fn story(found: &Falsification) -> String {
    let Some(result) = found.chosen_fresh() else { return "No fit was evaluated.".to_owned() };
    let gates = &found.declared.gates;
    let floor = 100.0 * gates.assert_correct;
    let floor = fixed(floor, usize::from((floor - floor.round()).abs() > 1e-9));
    let Some(gate) = result.train_chosen else {
        return format!("No threshold of training asserts on {floor}\u{a0}% of the correct answers: there is no gate.");
    };
    let shares = [gate.p_assert_correct, gate.p_assert_wrong].map(percent);
    let reversed = if gate.asym > 0.0 { ", the wrong ones more often" } else { "" };
    let range = |of: Ends| format!(" (95\u{a0}%: {} to {})", signed(of.low, 3), signed(of.high, 3));
    let range = result.asym_range.known().map_or(String::new(), range);
    format!(
        "At the frozen threshold of {} it asserts on {}\u{a0}% of the correct and {}\u{a0}% of the wrong fresh \
        answers{reversed}: asymmetry {}{range}. Needed were {floor}\u{a0}% of the correct ones, and an asymmetry of {} at most.",
        fixed(gate.thr, 2),
        shares[0],
        shares[1],
        signed(gate.asym, 3),
        signed(gates.fresh_asymmetry, 2)
    )
}

fn table(out: &mut String, found: &Falsification) {
    let axis = Axis::new(0.0, 1.0, 6.0, BAR - 6.0);
    put!(
        out,
        r#"{}<thead><tr><th scope="col">measured on</th><th scope="col">threshold</th>
        <th scope="col">p(assert | correct)</th><th scope="col">p(assert | wrong)</th><th scope="col">asymmetry</th>
        <td class="bar">{}</td><th scope="col" class="word">threshold chosen</th></tr></thead>"#,
        wide("The gate at each threshold", "grouped"),
        scale(&axis)
    );
    let mut group = |name: &str, rows: &[Row]| {
        put!(out, r#"<tbody><tr><th scope="rowgroup" class="heads" colspan="7">{}</th></tr>"#, escape(name));
        for row in rows {
            out.push_str(&self::row(row, &axis, found.declared.gates.assert_correct));
        }
        out.push_str("</tbody>");
    };
    let (cv, fresh) = (found.chosen_cv(), found.chosen_fresh());
    let measured = fresh.map(|result| &result.measured);
    let on_training = "on these items: flatters";
    let oracle = "on these items: an oracle's";
    group(
        "this probe",
        &[
            Row {
                name: "training, cross-validated",
                gate: cv.and_then(|of| of.cv.best),
                note: on_training,
                decides: false,
            },
            Row {
                name: "fresh",
                gate: fresh.and_then(|of| of.train_chosen),
                note: "in training, frozen",
                decides: true,
            },
            Row { name: "fresh", gate: measured.and_then(|of| of.best), note: oracle, decides: false },
            Row {
                name: "fresh, least asymmetry",
                gate: measured.map(|of| of.lowest),
                note: "on these items, whatever it costs",
                decides: false,
            },
            Row { name: "fresh, one half", gate: measured.map(|of| of.half), note: "not at all", decides: false },
        ],
    );
    let others = [("pooled layers", &found.pooled), ("replication", &found.replication)];
    for (kind, other) in others.into_iter().filter_map(|(kind, other)| Some((kind, other.as_ref()?))) {
        let name = format!("{kind}: {}", other.name);
        let frozen = Row { name: "fresh", gate: other.gate, note: "in training", decides: true };
        group(&name, &[frozen, Row { name: "fresh", gate: other.oracle, note: oracle, decides: false }]);
    }
    out.push_str(NARROW);
    put!(
        out,
        r#"<p class="note">● correct, ○ wrong; dashed: the floor of p(assert | correct), {}. Shares are of {} correct
        and {} wrong fresh answers. In bold: the frozen gate, which is
        checked. An oracle's threshold was chosen on the very items that it is measured on: it decides nothing.</p>"#,
        fixed(found.declared.gates.assert_correct, 2),
        found.fresh.positives,
        found.fresh.items.saturating_sub(found.fresh.positives)
    );
}

fn row(row: &Row, axis: &Axis, floor: f64) -> String {
    let nan = OperatingPoint { thr: f64::NAN, asym: f64::NAN, p_assert_correct: f64::NAN, p_assert_wrong: f64::NAN };
    let gate = row.gate.unwrap_or(nan);
    let note = if row.gate.is_some() { row.note } else { "none keeps p(assert | correct)" };
    let bold = if row.decides { r#" class="out""# } else { r#" class="control""# };
    format!(
        r#"<tr{bold}><th scope="row">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td class="bar">{}</td>
        <td class="word">{note}</td></tr>"#,
        row.name,
        fixed(gate.thr, 2),
        fixed(gate.p_assert_correct, 3),
        fixed(gate.p_assert_wrong, 3),
        signed(gate.asym, 3),
        bar(&gate, axis, floor)
    )
}

/// The ends and the middle of the bars' axis.
fn scale(axis: &Axis) -> String {
    let mut out = format!(r#"<svg aria-hidden="true" viewBox="0 0 {BAR} 14" width="{BAR}" height="14">"#);
    for (value, anchor) in [(0.0, "start"), (0.5, "middle"), (1.0, "end")] {
        let at = axis.at(value) + (value - 0.5) * 10.0;
        put!(out, r#"<text text-anchor="{anchor}" x="{at:.1}" y="11">{}</text>"#, fixed(value, 1));
    }
    out + "</svg>"
}

/// Both shares on a line, and the floor.
fn bar(gate: &OperatingPoint, axis: &Axis, floor: f64) -> String {
    let mut out = format!(r#"<svg aria-hidden="true" viewBox="0 0 {BAR} 16" width="{BAR}" height="16">"#);
    put!(out, r#"<path class="grid" d="M{:.1} 0v16M{:.1} 0v16"/>"#, axis.at(0.0), axis.at(1.0));
    if floor.is_finite() {
        put!(out, r#"<path class="level minor" d="M{:.1} 0v16"/>"#, axis.at(floor));
    }
    let (correct, wrong) = (gate.p_assert_correct, gate.p_assert_wrong);
    if correct.is_finite() && wrong.is_finite() {
        put!(out, r#"<path class="whisker own" d="M{:.1} 8H{:.1}"/>"#, axis.at(wrong), axis.at(correct));
    }
    for (value, class) in [(wrong, "dot own hollow"), (correct, "dot own")] {
        if value.is_finite() {
            put!(out, r#"<circle class="{class}" cx="{:.1}" cy="8" r="3.6"/>"#, axis.at(value));
        }
    }
    out + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::falsify::fixture;

    #[test]
    fn what_was_chosen_on_the_fresh_items_is_said_to_be() {
        let mut found = fixture::whole(0);
        let out = draw(&found);
        assert_eq!(out.matches("an oracle&#39;s").count() + out.matches("an oracle's").count(), 3);
        assert_eq!(out.matches(r#"<tr class="out">"#).count(), 3, "the frozen gate of each probe");
        assert!(out.contains("At the frozen threshold of 0.49 it asserts on"), "{out}");
        found.transfer[0].train_chosen = None;
        let out = draw(&found);
        assert!(out.contains("there is no gate") && out.contains("none keeps p(assert"));
    }
}
