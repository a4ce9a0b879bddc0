//! In-sample d against d on held-out items, one mark per head, with what shuffled labels give for both.

use crate::{
    attribution::{Disposition, HeadEffect, Verdict},
    report::{
        axis::{Axis, extent},
        text::{fixed, p_value, put, signed},
        verdict::{self, Question, stands_out},
    },
};

const WIDTH: f64 = 540.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 40.0;
/// The space right of here is for the names of levels; no mark can lie there.
const RIGHT: f64 = WIDTH - 106.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = HEIGHT - 44.0;
/// Most heads that are named beside their mark.
const NAMED: usize = 8;

/// The scatter plot; nothing if no head has both numbers.
pub(super) fn draw(disposition: &Disposition) -> Option<String> {
    let mut points: Vec<&HeadEffect> =
        disposition.heads.iter().filter(|head| head.d_naive.is_finite() && head.d_crossfit.is_finite()).collect();
    if points.is_empty() {
        return None;
    }
    // The weakest verdicts first, so that nothing covers the strongest.
    points.sort_by_key(|head| std::cmp::Reverse(head.verdict));
    let null = Null::of(disposition);
    let (x_low, x_high) = extent(points.iter().map(|head| head.d_naive).chain(null.naive())).unwrap_or((0.0, 1.0));
    let (y_low, y_high) = extent(points.iter().map(|head| head.d_crossfit).chain(null.held_out()).chain([0.0]))?;
    let (x_pad, y_pad) = (0.04 * (x_high - x_low), 0.05 * (y_high - y_low));
    let x = Axis::new(x_low - x_pad, x_high + x_pad, LEFT, RIGHT);
    let y = Axis::new(y_low - y_pad, y_high + y_pad, BOTTOM, TOP);
    let mut out = format!(
        r#"<svg role="img" aria-label="Scatter plot of d on held-out items against d naive, {} heads: {}"
        viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">"#,
        points.len(),
        verdict::words(&disposition.summary.verdicts)
    );
    null.band(&mut out, &y);
    frame(&mut out, &x, &y);
    for head in &points {
        put!(
            out,
            r#"<path class="{}" d="{}"><title>{}: d naive {}, held out {}, p max {}: {}</title></path>"#,
            verdict::class(head.verdict),
            verdict::outline(head.verdict, x.at(head.d_naive), y.at(head.d_crossfit)),
            head.at(),
            fixed(head.d_naive, 2),
            signed(head.d_crossfit, 2),
            p_value(head.p_max_directional),
            head.verdict
        );
    }
    null.lines(&mut out, &x, &y);
    names(&mut out, &points, &x, &y);
    out.push_str("</svg>");
    Some(out)
}

/// What shuffled labels give, where it is known.
struct Null {
    naive_mean: Option<f64>,
    naive_largest: Option<f64>,
    band: Option<(f64, f64)>,
    largest: Option<f64>,
}

impl Null {
    fn of(disposition: &Disposition) -> Self {
        let shuffled = &disposition.shuffled;
        let known = |value: f64| (shuffled.shuffles > 0 && value.is_finite()).then_some(value);
        Self {
            naive_mean: known(shuffled.mean_d_naive),
            naive_largest: known(shuffled.max_d_naive_q95),
            band: known(shuffled.d_crossfit_q05).zip(known(shuffled.d_crossfit_q95)),
            largest: disposition.has_level_of_direction().then_some(shuffled.max_d_crossfit_q95),
        }
    }

    fn naive(&self) -> impl Iterator<Item = f64> {
        self.naive_mean.into_iter().chain(self.naive_largest)
    }

    fn held_out(&self) -> impl Iterator<Item = f64> {
        let band = self.band.into_iter().flat_map(|(low, high)| [low, high]);
        band.chain(self.largest)
    }

    fn band(&self, out: &mut String, y: &Axis) {
        if let Some((low, high)) = self.band {
            let (top, bottom) = (y.at(high), y.at(low));
            let (width, height) = (RIGHT - LEFT, (bottom - top).max(1.0));
            put!(out, r#"<rect class="band" x="{LEFT}" y="{top:.1}" width="{width}" height="{height:.1}"/>"#);
        }
    }

    /// Lines and their names: those of d naive above the plot, those of held-out d in the margin.
    fn lines(&self, out: &mut String, x: &Axis, y: &Axis) {
        let mut across = |value: Option<f64>, class: &str, label: &str, row: f64| {
            let Some(value) = value else { return };
            let at = x.at(value);
            let (text, anchor) = if at > 0.6 * WIDTH { (at - 4.0, "end") } else { (at + 4.0, "start") };
            put!(out, r#"<path class="{class}" d="M{at:.1} {:.1}V{BOTTOM}"/>"#, row - 9.0);
            put!(out, r#"<text class="halo" text-anchor="{anchor}" x="{text:.1}" y="{row}">"#);
            put!(out, "{label} {}</text>", fixed(value, 2));
        };
        across(self.naive_mean, "level minor", "shuffled labels, mean", 12.0);
        across(self.naive_largest, "level", "largest of all, 95\u{a0}%", 27.0);
        let (mut below, text) = (TOP, RIGHT + 8.0);
        if let Some(value) = self.largest {
            let at = y.at(value);
            put!(out, r#"<path class="level" d="M{LEFT} {at:.1}H{RIGHT}"/>"#);
            below = at.max(TOP + 9.0);
            margin(out, text, below, ["largest of all,", &format!("95 %: {}", fixed(value, 2))]);
            below += 34.0;
        }
        if let Some((low, high)) = self.band {
            let at = f64::midpoint(y.at(low), y.at(high)).max(below);
            margin(out, text, at, ["single heads,", "nine in ten:"]);
            put!(
                out,
                r#"<text class="axis" x="{text:.1}" y="{:.1}">{} to {}</text>"#,
                at + 27.0,
                signed(low, 2),
                signed(high, 2)
            );
        }
    }
}

/// Two lines of text beside a level.
fn margin(out: &mut String, x: f64, y: f64, lines: [&str; 2]) {
    let [first, second] = lines;
    put!(out, r#"<text class="axis" x="{x:.1}" y="{:.1}">{first}</text>"#, y - 1.0);
    put!(out, r#"<text class="axis" x="{x:.1}" y="{:.1}">{second}</text>"#, y + 13.0);
}

/// The names of the heads that lie highest among those that stand out, where there is room for them.
fn names(out: &mut String, points: &[&HeadEffect], x: &Axis, y: &Axis) {
    let mut heads: Vec<&&HeadEffect> = points
        .iter()
        .filter(|head| head.verdict == Verdict::Separable || stands_out(head, Question::Direction))
        .collect();
    heads.sort_by(|one, other| other.d_crossfit.total_cmp(&one.d_crossfit));
    let at = |head: &HeadEffect| (x.at(head.d_naive), y.at(head.d_crossfit));
    let marks: Vec<(f64, f64)> = points.iter().map(|head| at(head)).collect();
    let mut taken: Vec<Label> = Vec::new();
    for head in heads {
        if taken.len() == NAMED {
            break;
        }
        let name = head.at().to_string();
        let Some(label) = Label::beside(at(head), &name, &marks, &taken) else { continue };
        let (text, base) = (label.left, label.bottom - 2.5);
        put!(out, r#"<text class="halo" x="{text:.1}" y="{base:.1}">{name}</text>"#);
        taken.push(label);
    }
}

/// The room that a name takes.
#[derive(Clone, Copy)]
struct Label {
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

impl Label {
    /// The greatest width of a character of a head's name, and the height of a line.
    const CHARACTER: f64 = 6.2;
    const LINE: f64 = 12.0;
    /// From the middle of a mark to its name.
    const GAP: f64 = 7.0;
    /// The radius of a mark.
    const MARK: f64 = 4.0;

    /// To the right of a mark, to its left, above or below it: the first place that is inside the frame, and hides no mark and no other
    /// name.
    fn beside((x, y): (f64, f64), name: &str, marks: &[(f64, f64)], taken: &[Self]) -> Option<Self> {
        let wide = name.chars().count() as f64 * Self::CHARACTER;
        let at = |left: f64, top: f64| Self { left, right: left + wide, top, bottom: top + Self::LINE };
        let (beside, centred) = (y - Self::LINE / 2.0, x - wide / 2.0);
        let places = [
            at(x + Self::GAP, beside),
            at(x - Self::GAP - wide, beside),
            at(centred, y - Self::GAP - Self::LINE),
            at(centred, y + Self::GAP),
        ];
        let free = |place: &Self| {
            place.is_inside()
                && !marks.iter().any(|mark| place.hides(*mark))
                && !taken.iter().any(|other| place.overlaps(other))
        };
        places.into_iter().find(free)
    }

    fn is_inside(&self) -> bool {
        self.left >= LEFT && self.right <= RIGHT && self.top >= TOP && self.bottom <= BOTTOM
    }

    fn hides(&self, (x, y): (f64, f64)) -> bool {
        let (across, down) = ((self.left - x).max(x - self.right), (self.top - y).max(y - self.bottom));
        across < Self::MARK && down < Self::MARK
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }
}

fn frame(out: &mut String, x: &Axis, y: &Axis) {
    put!(out, r#"<path class="tick" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>"#);
    let (ticks, decimals) = x.ticks(7);
    for tick in ticks {
        let (at, below) = (x.at(tick), BOTTOM + 16.0);
        put!(out, r#"<path class="tick" d="M{at:.1} {BOTTOM}v4"/>"#);
        put!(out, r#"<text class="mid" x="{at:.1}" y="{below}">{}</text>"#, fixed(tick, decimals));
    }
    let (ticks, decimals) = y.ticks(6);
    for tick in ticks {
        let at = y.at(tick);
        put!(out, r#"<path class="tick" d="M{LEFT} {at:.1}h-4"/>"#);
        put!(out, r#"<text class="end" x="{:.1}" y="{:.1}">{}</text>"#, LEFT - 7.0, at + 3.5, signed(tick, decimals));
    }
    let zero = y.at(0.0);
    put!(out, r#"<path class="grid" d="M{LEFT} {zero:.1}H{RIGHT}"/>"#);
    put!(out, r#"<text class="axis end" x="{RIGHT}" y="{:.1}">d naive, in-sample →</text>"#, HEIGHT - 6.0);
    put!(out, r#"<text class="axis" x="0" y="{:.1}">↑ d held out</text>"#, HEIGHT - 6.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn a_mark_for_every_head_that_has_both_numbers() {
        let mut disposition = fixture::disposition(&[3]);
        disposition.heads[0].d_crossfit = f64::NAN;
        let out = draw(&disposition).expect("two points");
        assert_eq!(out.matches("<title>").count(), 2);
        assert_eq!((out.matches(r#"class="band""#).count(), out.matches(r#"class="level""#).count()), (1, 2));
        disposition.heads.iter_mut().for_each(|head| head.d_naive = f64::INFINITY);
        assert!(draw(&disposition).is_none());
    }

    #[test]
    fn heads_that_stand_out_are_named_on_all_sides_of_one_place() {
        let mut disposition = fixture::disposition(&[6]);
        let named = |out: &str| out.matches(">L0H").count();
        let none = named(&draw(&disposition).unwrap());
        disposition.heads.iter_mut().for_each(|head| (head.p_max_directional, head.d_naive) = (0.01, 1.2));
        let some = named(&draw(&disposition).unwrap());
        assert_eq!((none, some), (6, 6 + 4), "titles, and four names for six marks in one place");
    }

    #[test]
    fn no_name_overlaps_another_or_hides_a_mark() {
        // One mark at each edge, and a crowd in the middle.
        let edges = [(LEFT, 300.0), (RIGHT, 300.0), (120.0, TOP), (120.0, BOTTOM)];
        let crowd = (0..40).map(|i| (180.0 + f64::from(i * 37 % 100), 150.0 + f64::from(i * 53 % 60)));
        let marks: Vec<(f64, f64)> = edges.into_iter().chain(crowd).collect();
        let mut taken: Vec<Label> = Vec::new();
        for &mark in &marks {
            taken.extend(Label::beside(mark, "L11H7", &marks, &taken));
        }
        assert!((edges.len() + 1..marks.len()).contains(&taken.len()), "{} names", taken.len());
        for (index, label) in taken.iter().enumerate() {
            assert!(label.is_inside() && !marks.iter().any(|&mark| label.hides(mark)));
            assert!(!taken[..index].iter().any(|other| label.overlaps(other)));
        }
        assert!(taken[1].right < RIGHT && taken[2].top > TOP && taken[3].bottom < BOTTOM, "they turn inwards");
    }

    #[test]
    fn without_shuffles_there_are_no_lines() {
        let mut disposition = fixture::disposition(&[3]);
        disposition.shuffled.shuffles = 0;
        let out = draw(&disposition).unwrap();
        assert!(!out.contains("class=\"level") && !out.contains("class=\"band"));
    }
}
