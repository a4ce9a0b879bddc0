//! Whether the probabilities mean what they say: in cross-validation and on fresh items, side by side.

use crate::{
    falsify::Falsification,
    probe::{CalibrationBin, Measured},
    report::{
        axis::Axis,
        text::{count, fixed, folded, put},
    },
};

const SIDE: f64 = 300.0;
const LEFT: f64 = 36.0;
const RIGHT: f64 = SIDE - LARGEST - 2.0;
const TOP: f64 = LARGEST + 2.0;
const BOTTOM: f64 = SIDE - 48.0;
/// The radius of a mark that stands for all items.
const LARGEST: f64 = 13.0;
const SMALLEST: f64 = 2.4;

/// Both plots, and the bins as numbers behind a click.
pub(super) fn draw(found: &Falsification) -> String {
    let (cv, fresh) = (found.chosen_cv().map(|of| &of.cv), found.chosen_fresh().map(|of| &of.measured));
    let sets: Vec<(&str, &Measured)> = [("Training, cross-validated", cv), ("Fresh", fresh)]
        .into_iter()
        .filter_map(|(n, of)| Some((n, of?)))
        .collect();
    if sets.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        r#"<h3>Calibration</h3><p class="note">Of the items with about a probability, how many are correct. On the diagonal
        the probabilities mean what they say; below it they promise too much. The larger a mark, the more items.</p>
        <div class="maps charts">"#,
    );
    for (name, of) in &sets {
        out += &plot(name, of);
    }
    let bins: String = sets.iter().map(|(name, of)| bins(name, of)).collect();
    out + "</div>" + &folded("The bins in numbers", "falsify.json", &format!(r#"<div class="beside">{bins}</div>"#))
}

fn plot(name: &str, of: &Measured) -> String {
    let (x, y) = (Axis::new(0.0, 1.0, LEFT, RIGHT), Axis::new(0.0, 1.0, BOTTOM, TOP));
    let mut out = format!(
        r#"<figure><figcaption><b>{name}</b>: ECE {}, Brier {}, {}</figcaption><svg role="img"
        aria-label="Share of correct items against probability: {name}" viewBox="0 0 {SIDE} {SIDE}" width="{SIDE}"
        height="{SIDE}">"#,
        fixed(of.ece, 3),
        fixed(of.brier, 3),
        count(of.items, "item")
    );
    put!(out, r#"<path class="tick" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>"#);
    put!(out, r#"<path class="level minor" d="M{LEFT} {BOTTOM}L{RIGHT} {TOP}"/>"#);
    for tick in [0.0, 0.5, 1.0] {
        let (at, up) = (x.at(tick), y.at(tick));
        put!(out, r#"<path class="tick" d="M{at:.1} {BOTTOM}v4M{LEFT} {up:.1}h-4"/>"#);
        put!(out, r#"<text class="mid" x="{at:.1}" y="{:.1}">{}</text>"#, BOTTOM + 22.0, fixed(tick, 1));
        put!(out, r#"<text class="end" x="{:.1}" y="{:.1}">{}</text>"#, LEFT - 9.0, up + 3.5, fixed(tick, 1));
    }
    for bin in of.calibration.iter().filter(|bin| bin.probability.is_finite() && bin.share.is_finite()) {
        let share = (bin.items as f64 / of.items.max(1) as f64).clamp(0.0, 1.0);
        put!(
            out,
            r#"<circle class="dot own faint" cx="{:.1}" cy="{:.1}" r="{:.1}"><title>{}</title></circle>"#,
            x.at(bin.probability),
            y.at(bin.share),
            (LARGEST * share.sqrt()).max(SMALLEST),
            told(bin)
        );
    }
    put!(out, r#"<text class="axis end" x="{RIGHT}" y="{:.1}">probability →</text>"#, SIDE - 8.0);
    put!(out, r#"<text class="axis" x="0" y="{:.1}">↑ share correct</text></svg></figure>"#, SIDE - 8.0);
    out
}

fn told(bin: &CalibrationBin) -> String {
    format!("{} at {}: {} correct", count(bin.items, "item"), fixed(bin.probability, 2), fixed(bin.share, 2))
}

fn bins(name: &str, of: &Measured) -> String {
    let mut out = format!(
        r#"<table class="small" aria-label="Calibration: {name}"><thead><tr><th scope="col">{name}</th><th scope="col">items</th>
        <th scope="col">probability</th><th scope="col">correct</th></tr></thead><tbody>"#
    );
    for bin in &of.calibration {
        put!(
            out,
            r#"<tr><th scope="row">{} to {}</th><td>{}</td><td>{}</td><td>{}</td></tr>"#,
            fixed(bin.low, 1),
            fixed(bin.high, 1),
            bin.items,
            fixed(bin.probability, 2),
            fixed(bin.share, 2)
        );
    }
    out + "</tbody></table>"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::falsify::fixture;

    #[test]
    fn empty_bins_have_no_mark() {
        let mut found = fixture::whole(0);
        let marks = |found: &Falsification| draw(found).matches("<circle").count();
        let before = marks(&found);
        let bin = &mut found.transfer[0].measured.calibration[0];
        (bin.items, bin.probability, bin.share) = (0, f64::NAN, f64::NAN);
        assert_eq!(marks(&found), before - 1);
        assert_eq!(draw(&found).matches("<table").count(), 2);
        (found.cv, found.transfer) = (Vec::new(), Vec::new());
        assert!(draw(&found).is_empty());
    }
}
