//! An attribution for people and programs: on a terminal, as Markdown, as CSV.

use headtemper_hook::HeadRef;

use super::{Across, Attribution, Disposition, HeadEffect, Reliability, Stability, Summary, kind_word};
use crate::{
    Compat, RankBy,
    attribute::named_heads,
    text::{
        count, fixed, interval, quoted, short,
        table::{
            Column::{Left, Right},
            Table,
        },
    },
};

/// One number of a head.
type Column = fn(&HeadEffect) -> f64;

/// The numbers of a head, by their names in CSV and npz.
pub(crate) const COLUMNS: [(&str, Column); 38] = [
    ("mean_a", |h| h.magnitude.mean_a),
    ("mean_b", |h| h.magnitude.mean_b),
    ("delta", |h| h.magnitude.delta),
    ("cohen_d", |h| h.magnitude.cohen_d),
    ("d_low", |h| h.d_low),
    ("d_high", |h| h.d_high),
    ("hedges_g", |h| h.hedges_g),
    ("g_low", |h| h.g_low),
    ("g_high", |h| h.g_high),
    ("p", |h| h.magnitude.p),
    ("q", |h| h.magnitude.q),
    ("p_max", |h| h.magnitude.p_max),
    ("welch_t", |h| h.welch_t),
    ("welch_df", |h| h.welch_df),
    ("welch_p", |h| h.welch_p),
    ("r_length", |h| h.r_length),
    ("d_length_adjusted", |h| h.d_length_adjusted),
    ("final_mean_a", |h| h.final_token.mean_a),
    ("final_mean_b", |h| h.final_token.mean_b),
    ("final_delta", |h| h.final_token.delta),
    ("final_cohen_d", |h| h.final_token.cohen_d),
    ("final_p", |h| h.final_token.p),
    ("final_q", |h| h.final_token.q),
    ("final_p_max", |h| h.final_token.p_max),
    ("d_naive", |h| h.d_naive),
    ("p_naive", |h| h.p_naive),
    ("d_crossfit", |h| h.d_crossfit),
    ("p_directional", |h| h.p_directional),
    ("q_directional", |h| h.q_directional),
    ("p_max_directional", |h| h.p_max_directional),
    ("d_across", |h| h.d_across),
    ("p_across", |h| h.p_across),
    ("q_across", |h| h.q_across),
    ("p_max_across", |h| h.p_max_across),
    ("cos_means", |h| h.cos_means),
    ("cos_centered", |h| h.cos_centered),
    ("direction_norm", |h| h.direction_norm),
    ("relative_norm", |h| h.relative_norm),
];

/// Every head as CSV, in slot order; full precision, empty where there is no number.
pub(crate) fn heads_csv(disposition: &Disposition) -> String {
    let names: Vec<&str> = COLUMNS.iter().map(|(name, _)| *name).collect();
    let mut out = format!("disposition,layer,kind,head,verdict,{}\n", names.join(","));
    let cell = |x: f64| if x.is_finite() { x.to_string() } else { String::new() };
    for h in &disposition.heads {
        let cells: Vec<String> = COLUMNS.iter().map(|(_, of)| cell(of(h))).collect();
        let name = quoted(&disposition.name);
        out += &format!("{name},{},{},{},{},{}\n", h.layer, kind_word(h.kind), h.head, h.verdict, cells.join(","));
    }
    out
}

/// The heads by what ranks them, the largest first; those without the number come last.
pub(crate) fn ranked(disposition: &Disposition, compat: Compat, by: RankBy) -> Vec<&HeadEffect> {
    let mut heads: Vec<&HeadEffect> = disposition.heads.iter().collect();
    let size = |head: &HeadEffect| {
        let size = by.of(head.magnitude.cohen_d, head.d_crossfit, compat);
        if size.is_finite() { size } else { f64::NEG_INFINITY }
    };
    heads.sort_by(|a, b| size(b).total_cmp(&size(a)));
    heads
}

/// An attribution in Markdown that also reads well on a terminal: the `top` loudest heads of each disposition and those that its
/// sentence names, what shuffled labels and controls give, and what the dispositions have in common.
pub fn attribution_markdown(attribution: &Attribution, top: usize) -> String {
    let mut out = String::new();
    for disposition in &attribution.dispositions {
        out += &heads_markdown(disposition, attribution.method.compat, top);
        out.push('\n');
    }
    for skipped in &attribution.skipped {
        out += &format!("not attributed: {} ({})\n", skipped.name, skipped.why);
    }
    out += &controls_markdown(attribution);
    out + &across_markdown(&attribution.across)
}

/// The top of a ranking and whichever heads the sentence names, with what shuffled labels give.
fn heads_markdown(disposition: &Disposition, compat: Compat, top: usize) -> String {
    let s = &disposition.shuffled;
    let mut out = format!(
        "{}: a = {} ({}), b = {} ({}); d > 0: louder in a\n",
        disposition.name,
        disposition.a,
        count(disposition.n_a, "item"),
        disposition.b,
        count(disposition.n_b, "item")
    );
    if !disposition.means.is_empty() {
        out += &format!("{}\n", disposition.means);
    }
    out += &format!("\n{}\n\n", disposition.sentence);
    // One question beside the other where there is room, and else below it.
    let mut table = Table::of([Left("head")])
        .with([Right("mean a"), Right("mean b"), Right("d"), Right("95 % interval"), Right("p max"), Right("q")])
        .with([Right("d naive*"), Right("d held out"), Right("p max"), Right("q"), Left("verdict")]);
    let named: Vec<HeadRef> = named_heads(disposition).into_iter().map(HeadEffect::at).collect();
    let shown = ranked(disposition, compat, RankBy::Magnitude).into_iter().enumerate();
    for (_, h) in shown.filter(|(rank, h)| *rank < top || named.contains(&h.at())) {
        table.row([
            h.at().to_string(),
            short(h.magnitude.mean_a),
            short(h.magnitude.mean_b),
            short(h.magnitude.cohen_d),
            interval(h.d_low, h.d_high, 3),
            short(h.magnitude.p_max),
            short(h.magnitude.q),
            short(h.d_naive),
            short(h.d_crossfit),
            short(h.p_max_directional),
            short(h.q_directional),
            h.verdict.words().into(),
        ]);
    }
    out += &table.to_string();
    if s.shuffles > 0 {
        out += &format!(
            "\nshuffled labels ({} times): largest |d| {} on average, {} at 95 %; d naive {} on average; d held out {} on \
             average, largest {} at 95 %\n",
            s.shuffles,
            short(s.max_abs_d_mean),
            short(s.max_abs_d_q95),
            short(s.mean_d_naive),
            short(s.mean_d_crossfit),
            short(s.max_d_crossfit_q95),
        );
        out += &stability_line(&disposition.stability);
    }
    out += "* in-sample, as the paper defines it: not evidence by itself\n";
    disposition.warnings.iter().fold(out, |out, warning| out + "warning: " + warning + "\n")
}

/// How alike two halves of the items rank heads; empty where they could not be halved and ranked.
fn stability_line(stability: &Stability) -> String {
    let of = |name: &str, r: &Reliability| {
        let line = || format!("{name} {} (shuffled labels {}, p {})", short(r.rho), short(r.null_mean), short(r.p));
        r.rho.is_finite().then(line)
    };
    let both = [of("by d", &stability.magnitude), of("by d held out", &stability.directional)];
    let told: Vec<String> = both.into_iter().flatten().collect();
    if told.is_empty() {
        return String::new();
    }
    format!("how alike two halves of the items rank heads: {}\n", told.join("; "))
}

/// Results beside the same computation where there is nothing to find.
fn controls_markdown(attribution: &Attribution) -> String {
    if attribution.controls.is_empty() {
        return String::new();
    }
    let mut table = Table::of([Left("disposition and control")])
        .with([Right("largest d"), Right("least p max")])
        .with([Right("largest d held out"), Right("least p max")])
        .with([Left("verdicts")]);
    let mut row = |name: String, s: &Summary| {
        let verdicts: Vec<String> = s.verdicts.iter().map(|(verdict, n)| format!("{n} {verdict}")).collect();
        let (d, p) = (short(s.largest_d), short(s.least_p_max));
        let (held_out, p_held_out) = (short(s.largest_d_crossfit), short(s.least_p_max_directional));
        table.row([name, d, p, held_out, p_held_out, verdicts.join(", ")]);
    };
    for (index, disposition) in attribution.dispositions.iter().enumerate() {
        row(disposition.name.clone(), &disposition.summary);
        for control in &attribution.controls {
            if let Some(controlled) = control.dispositions.get(index) {
                row(format!("- {}", control.name), &controlled.summary);
            }
        }
    }
    format!("\n{table}")
}

/// What the dispositions, and other models, have in common.
fn across_markdown(across: &Across) -> String {
    let mut out = String::new();
    if !across.pairs.is_empty() {
        let top = format!("in both tops of {}", across.top);
        let mut table = Table::of([Left("dispositions")])
            .with([Right("rank correlation of d"), Right("p")])
            .with([Right("of d held out"), Right("p")])
            .with([Right("of labels")])
            .with([Right(&top), Right("by chance")]);
        for pair in &across.pairs {
            table.row([
                format!("{} and {}", pair.first, pair.second),
                short(pair.rho_d),
                short(pair.p_rho_d),
                short(pair.rho_crossfit),
                short(pair.p_rho_crossfit),
                short(pair.label_correlation),
                pair.shared_top.to_string(),
                fixed(pair.expected_top, 1),
            ]);
        }
        out += &format!("\n{table}");
    }
    for beside in &across.beside {
        out += &match &beside.incomparable {
            Some(why) => format!("beside {}: {} cannot be compared: {why}\n", beside.model, beside.name),
            None => format!(
                "beside {}: {} ranks {} heads, rank correlation of d {}, of d held out {}; no p, where both may have read the same \
                 items\n",
                beside.model,
                beside.name,
                beside.heads,
                short(beside.rho_d),
                short(beside.rho_crossfit)
            ),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{attribution::Verdict, report::fixture};

    #[test]
    fn heads_that_the_sentence_names_stand_in_the_table_with_their_q() {
        let mut disposition = fixture::disposition(&[4, 4, 4]);
        for (head, p) in disposition.heads.iter_mut().zip(1_u8..) {
            (head.magnitude.q, head.q_directional) = (0.1, 0.01 * f64::from(p));
            head.verdict = Verdict::NoEvidence;
        }
        let last = ranked(&disposition, Compat::None, RankBy::Magnitude)[11].at();
        let quiet = disposition.heads.iter_mut().find(|head| head.at() == last).unwrap();
        quiet.verdict = Verdict::Separable;
        let q = format!("| {} | separable", short(quiet.q_directional));
        let out = heads_markdown(&disposition, Compat::None, 2);
        let rows: Vec<&str> = out.lines().filter(|line| line.starts_with("| L")).collect();
        assert_eq!(rows.len(), 2 * 3, "a table for each question: {out}");
        assert!([2, 5].iter().all(|&at| rows[at].starts_with(&format!("| {last} "))) && rows[5].contains(&q), "{out}");
        let heads: Vec<&str> = out.lines().filter(|line| line.starts_with("| head")).collect();
        assert!(heads.len() == 2 && heads.iter().all(|head| head.contains("| p max |     q |")), "{out}");
        assert!(out.lines().filter(|line| line.starts_with('|')).all(|line| line.chars().count() <= 80), "{out}");
    }

    #[test]
    fn halves_are_told_as_they_are_and_not_at_all_where_there_are_none() {
        let mut disposition = fixture::disposition(&[2]);
        let out = heads_markdown(&disposition, Compat::None, 2);
        let line = "how alike two halves of the items rank heads: by d 0.100 (shuffled labels 0.000, p 0.300); by d held out 0.100";
        assert!(out.contains(line), "{out}");
        disposition.stability.magnitude.rho = f64::NAN;
        assert!(heads_markdown(&disposition, Compat::None, 2).contains("rank heads: by d held out 0.100"));
        disposition.stability.directional.rho = f64::NAN;
        (disposition.heads[0].d_low, disposition.heads[0].d_high) = (f64::NAN, f64::NAN);
        let out = heads_markdown(&disposition, Compat::None, 2);
        assert!(!out.contains("halves") && out.contains("no interval |"), "{out}");
    }
}
