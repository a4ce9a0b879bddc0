//! The collinearity panel: the cosine of the cohorts' means against the in-sample d, and what neither can tell.

use crate::{
    attribution::{Disposition, HeadEffect},
    report::{
        axis::{Axis, extent},
        text::{escape, fixed, p_value, put},
    },
};

const WIDTH: f64 = 540.0;
const HEIGHT: f64 = 330.0;
const LEFT: f64 = 44.0;
const RIGHT: f64 = WIDTH - 100.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = HEIGHT - 40.0;

/// Scatter plot and text.
pub(super) fn draw(disposition: &Disposition) -> String {
    let mut out = String::from(r#"<div class="beside"><figure>"#);
    let points: Vec<_> =
        disposition.heads.iter().filter(|effect| effect.cos_means.is_finite() && effect.d_naive.is_finite()).collect();
    if points.is_empty() {
        out.push_str(r#"<p class="muted">No head has both a cosine and a d_naive.</p>"#);
    } else {
        out += &scatter(disposition, &points);
    }
    put!(out, r#"</figure><div class="prose">{}</div></div>"#, prose(disposition));
    out
}

fn scatter(disposition: &Disposition, points: &[&HeadEffect]) -> String {
    let mut out = format!(
        r#"<svg role="img" aria-label="Scatter plot of d_naive against the cosine of the cohorts' means"
        viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}">"#
    );
    let levels = levels(disposition);
    let (x_low, x_high) = extent(points.iter().map(|effect| effect.cos_means)).unwrap_or((0.0, 1.0));
    let d_naive = points.iter().map(|effect| effect.d_naive).chain(levels.iter().map(|level| level.0));
    let (y_low, y_high) = extent(d_naive).unwrap_or((0.0, 1.0));
    let margin = (x_high - x_low) * 0.03;
    let x = Axis::new(x_low - margin, x_high + margin, LEFT + 6.0, RIGHT);
    let y = Axis::new(y_low.min(0.0), y_high * 1.06, BOTTOM, TOP);
    frame(&mut out, &x, &y);
    let level = levels.last().map_or(f64::INFINITY, |level| level.0);
    for effect in points {
        let class = if effect.d_naive > level { "point over" } else { "point" };
        put!(
            out,
            r#"<circle class="{class}" cx="{:.1}" cy="{:.1}" r="2.6"><title>{}: cos {}, d_naive {}, p directional {}</title></circle>"#,
            x.at(effect.cos_means),
            y.at(effect.d_naive),
            effect.at(),
            fixed(effect.cos_means, 4),
            fixed(effect.d_naive, 2),
            p_value(effect.p_directional)
        );
    }
    marks(&mut out, &levels, &y);
    out.push_str("</svg>");
    out
}

/// Lines at the levels, named in the margin, where no point can lie; the names are kept from touching.
fn marks(out: &mut String, levels: &[(f64, &str)], y: &Axis) {
    let mut free = f64::INFINITY;
    for (rank, (value, label)) in levels.iter().enumerate() {
        let class = if rank + 1 == levels.len() { "level" } else { "level minor" };
        let (x, at) = (RIGHT + 6.0, y.at(*value));
        let text = (at - 1.0).min(free).max(TOP + 4.0);
        free = text - 32.0;
        put!(out, r#"<path class="{class}" d="M{LEFT} {at:.1}H{RIGHT}"/>"#);
        put!(out, r#"<text class="axis" x="{x:.1}" y="{text:.1}">{label} {}</text>"#, fixed(*value, 2));
        put!(out, r#"<text x="{x:.1}" y="{:.1}">shuffled labels</text>"#, text + 12.0);
    }
}

/// The shuffled-label levels of d_naive: its mean, and the 95 % quantile of its largest value.
fn levels(disposition: &Disposition) -> Vec<(f64, &'static str)> {
    let shuffled = &disposition.shuffled;
    [(shuffled.mean_d_naive, "mean"), (shuffled.max_d_naive_q95, "largest, 95\u{a0}%")]
        .into_iter()
        .filter(|(value, _)| shuffled.shuffles > 0 && value.is_finite())
        .collect()
}

fn frame(out: &mut String, x: &Axis, y: &Axis) {
    put!(out, r#"<path class="tick" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>"#);
    let (ticks, decimals) = x.ticks(7);
    for tick in ticks {
        put!(out, r#"<path class="tick" d="M{:.1} {BOTTOM}v4"/>"#, x.at(tick));
        put!(
            out,
            r#"<text class="mid" x="{:.1}" y="{:.1}">{}</text>"#,
            x.at(tick),
            BOTTOM + 16.0,
            fixed(tick, decimals)
        );
    }
    let (ticks, decimals) = y.ticks(6);
    for tick in ticks {
        put!(out, r#"<path class="tick" d="M{LEFT} {:.1}h-4"/>"#, y.at(tick));
        let (at, text) = (y.at(tick) + 3.5, fixed(tick, decimals));
        put!(out, r#"<text class="end" x="{:.1}" y="{at:.1}">{text}</text>"#, LEFT - 7.0);
    }
    put!(out, r#"<text class="axis end" x="{RIGHT}" y="{:.1}">cosine of the cohorts' means →</text>"#, HEIGHT - 6.0);
    put!(out, r#"<text class="axis" x="0" y="{:.1}">↑ d_naive</text>"#, HEIGHT - 6.0);
}

fn prose(disposition: &Disposition) -> String {
    let mut out = String::new();
    let mut cosines: Vec<_> =
        disposition.heads.iter().map(|effect| effect.cos_means).filter(|cosine| cosine.is_finite()).collect();
    cosines.sort_by(f64::total_cmp);
    if let (Some(low), Some(high)) = (cosines.first(), cosines.last()) {
        put!(
            out,
            r#"<dl class="line"><div><dt>smallest cosine</dt><dd>{}</dd></div><div><dt>median</dt><dd>{}</dd></div>
            <div><dt>largest</dt><dd>{}</dd></div></dl>"#,
            fixed(*low, 4),
            fixed(median(&cosines), 4),
            fixed(*high, 4)
        );
    }
    put!(
        out,
        "<p>Each point is a head: how parallel the mean z of {} and of {} are, against how far apart the items lie \
        along the difference of those same means. A cosine near 1 diagnoses nothing by itself. It is about 0.996 for \
        pure noise, and about 0.996 for perfectly separable cohorts too, as soon as both share a large common mean, \
        which real heads do. Nor is a large d_naive evidence: the direction was fitted to the very items it is then \
        measured on, so noise alone lifts every point far above zero. Only the distance to the shuffled-label level, \
        and the permutation p beside it, say anything.</p>",
        escape(&disposition.a),
        escape(&disposition.b)
    );
    put!(out, r#"<p class="story">{}</p>"#, story(disposition));
    out
}

/// Which story the numbers support, in one sentence.
fn story(disposition: &Disposition) -> String {
    let shuffled = &disposition.shuffled;
    let defined: Vec<_> = disposition.heads.iter().filter(|effect| effect.d_naive.is_finite()).collect();
    let Some(largest) = defined.iter().max_by(|x, y| x.d_naive.total_cmp(&y.d_naive)) else {
        return "Here no head has a defined d_naive.".to_owned();
    };
    let (name, size) = (largest.at(), fixed(largest.d_naive, 2));
    if shuffled.shuffles == 0 || !shuffled.max_d_naive_q95.is_finite() {
        return format!("Here the largest d_naive is {size} ({name}), with no shuffled labels to compare it with.");
    }
    let mean = fixed(defined.iter().map(|effect| effect.d_naive).sum::<f64>() / defined.len() as f64, 2);
    let (level, noise) = (fixed(shuffled.max_d_naive_q95, 2), fixed(shuffled.mean_d_naive, 2));
    let over = defined.iter().filter(|effect| effect.d_naive > shuffled.max_d_naive_q95).count();
    if over == 0 {
        format!(
            "Here the numbers support noise: d_naive averages {mean} where shuffled labels give {noise}, and its \
            largest value, {size} ({name}), stays within the {level} that shuffled labels reach (95\u{a0}%)."
        )
    } else {
        let heads = if over == 1 { "1 head lies".to_owned() } else { format!("{over} heads lie") };
        format!(
            "Here {heads} above what shuffled labels reach ({level} at 95\u{a0}%), up to {size} ({name}), and d_naive \
            averages {mean} against {noise}: the cohorts differ in direction there, whatever the cosine says. The \
            size of d_naive remains inflated."
        )
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { f64::midpoint(sorted[middle - 1], sorted[middle]) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn the_story_follows_the_shuffled_level() {
        let mut disposition = fixture::disposition(&[3]);
        assert!(story(&disposition).contains("support noise"));
        disposition.heads[1].d_naive = 2.0;
        assert!(story(&disposition).starts_with("Here 1 head lies above"));
        disposition.shuffled.shuffles = 0;
        assert!(story(&disposition).contains("no shuffled labels"));
        assert!(levels(&disposition).is_empty());
    }

    #[test]
    fn undefined_points_are_left_out() {
        let mut disposition = fixture::disposition(&[3]);
        disposition.heads[0].cos_means = f64::NAN;
        let out = draw(&disposition);
        assert_eq!(out.matches("<circle").count(), 2);
        for effect in &mut disposition.heads {
            effect.d_naive = f64::NAN;
        }
        let out = draw(&disposition);
        assert!(out.contains("No head has both") && !out.contains("NaN"));
    }

    #[test]
    fn the_median_is_between_the_middle_two() {
        assert_eq!(median(&[1.0, 2.0, 4.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }
}
