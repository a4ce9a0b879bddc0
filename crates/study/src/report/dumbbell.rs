//! The loudest heads before and after response length was taken out of their norms.

use crate::{
    RankBy,
    attribution::text::ranked,
    attribution::{Attribution, Disposition, HeadEffect},
    report::{
        axis::{Axis, extent},
        text::{fixed, put, signed},
    },
};

/// How many heads are drawn.
const DRAWN: usize = 12;
const WIDTH: f64 = 460.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = WIDTH - 70.0;
const TOP: f64 = 38.0;
const ROW: f64 = 19.0;

/// One line per head, from d to d adjusted for length; nothing if no head has both.
pub(super) fn draw(attribution: &Attribution, disposition: &Disposition) -> Option<String> {
    let ranked = ranked(disposition, attribution.method.compat, RankBy::Magnitude);
    let both = |head: &&HeadEffect| head.magnitude.cohen_d.is_finite() && head.d_length_adjusted.is_finite();
    let heads: Vec<&HeadEffect> = ranked.into_iter().filter(both).take(DRAWN).collect();
    let shuffled = &disposition.shuffled;
    let level = disposition.has_level_of_d().then_some(shuffled.max_abs_d_q95);
    let drawn = heads.iter().flat_map(|head| [head.magnitude.cohen_d, head.d_length_adjusted]);
    let levels = level.into_iter().flat_map(|level| [level, -level]);
    let (low, high) = extent(drawn.chain(levels).chain([0.0]).take(if heads.is_empty() { 0 } else { usize::MAX }))?;
    let pad = 0.03 * (high - low);
    let x = Axis::new(low - pad, high + pad, LEFT, RIGHT);
    let bottom = TOP + heads.len() as f64 * ROW;
    let height = bottom + 40.0;
    let mut out = format!(
        r#"<svg role="img" aria-label="d of the {} loudest heads before and after length is taken out"
        viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">"#,
        heads.len()
    );
    frame(&mut out, &x, level, bottom);
    for (index, head) in heads.iter().enumerate() {
        row(&mut out, head, &x, TOP + (index as f64 + 0.5) * ROW);
    }
    out.push_str("</svg>");
    Some(out)
}

fn row(out: &mut String, head: &HeadEffect, x: &Axis, y: f64) {
    let (from, to) = (x.at(head.magnitude.cohen_d), x.at(head.d_length_adjusted));
    let class = if head.magnitude.cohen_d < 0.0 { "neg" } else { "pos" };
    put!(out, r#"<text class="axis end" x="{:.1}" y="{:.1}">{}</text>"#, LEFT - 10.0, y + 4.0, head.at());
    put!(out, r#"<path class="whisker s-{class}" d="M{from:.1} {y:.1}H{to:.1}"/>"#);
    put!(out, r#"<circle class="hollow s-{class}" cx="{to:.1}" cy="{y:.1}" r="3.4"/>"#);
    put!(
        out,
        r#"<circle class="{class}" cx="{from:.1}" cy="{y:.1}" r="3.4"><title>{}: d {}, adjusted {}, r with length {}</title></circle>"#,
        head.at(),
        signed(head.magnitude.cohen_d, 2),
        signed(head.d_length_adjusted, 2),
        signed(head.r_length, 2)
    );
    put!(out, r#"<text class="end" x="{WIDTH}" y="{:.1}">{}</text>"#, y + 4.0, signed(head.r_length, 2));
}

fn frame(out: &mut String, x: &Axis, level: Option<f64>, bottom: f64) {
    put!(out, r#"<text class="end" x="{WIDTH}" y="{:.1}">r, length</text>"#, TOP - 8.0);
    put!(out, r#"<path class="grid" d="M{:.1} {TOP}V{bottom}"/>"#, x.at(0.0));
    if let Some(level) = level {
        let (low, high) = (x.at(-level), x.at(level));
        put!(
            out,
            r#"<path class="level" d="M{low:.1} {:.1}V{bottom}M{high:.1} {:.1}V{bottom}"/>"#,
            TOP - 6.0,
            TOP - 6.0
        );
        put!(out, r#"<text class="mid halo" x="{:.1}" y="{:.1}">shuffled labels, largest"#, x.at(0.0), TOP - 23.0);
        put!(out, " of all, 95 %: ±{}</text>", fixed(level, 2));
    }
    *out += &x.below((LEFT, RIGHT), bottom, signed);
    put!(out, r#"<text class="axis end" x="{RIGHT}" y="{}">d: ● as it is, ○ length taken out →</text>"#, bottom + 34.0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn the_loudest_heads_have_two_dots() {
        let attribution = fixture::attribution(&[5; 4]);
        let out = draw(&attribution, &attribution.dispositions[0]).expect("heads");
        assert_eq!(out.matches("<circle").count(), 2 * DRAWN);
        assert!(out.contains("95 %: ±0.74"));
    }

    #[test]
    fn without_numbers_there_is_no_drawing() {
        let mut attribution = fixture::attribution(&[2]);
        attribution.dispositions[0].shuffled.max_abs_d_q95 = f64::NAN;
        assert!(!draw(&attribution, &attribution.dispositions[0]).unwrap().contains("level"));
        attribution.dispositions[0].heads.iter_mut().for_each(|head| head.d_length_adjusted = f64::NAN);
        assert!(draw(&attribution, &attribution.dispositions[0]).is_none());
    }
}
