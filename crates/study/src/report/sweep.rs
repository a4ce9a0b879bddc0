//! The sweep: how the answers change as heads are tempered, beside what changes when nothing is tempered.

use crate::{
    Role,
    report::{
        html::warning_list,
        sweep_chart::{self, names, told},
        sweep_map,
        text::{NARROW, UNDEFINED, count, escape, fixed, folded, p_value, percent, put, signed, wide},
    },
    significance::LEVEL,
    sweep::{
        compared::Compared,
        outcome::{ArmOutcome, BesideRandom, Difference, Outcomes, SweepTable},
        reading::{
            self, RANKED_ABOVE, arms_compared, as_far_as_they_go, by_chance, compared, decimals, drawn, in_units,
            ranked,
        },
    },
    text::capital,
};

/// Arms of a ranking that are shown outside the fold.
const LISTED: usize = 20;

/// The section of a sweep: set by set, or ranked if there are many. What holds for all of it is said once. If the sweep is alone on its
/// page, its findings stand at the top of the page.
pub(super) fn draw(outcomes: &Outcomes, heads_per_layer: &[usize], alone: bool) -> String {
    let ranked = outcomes.tables.len() > RANKED_ABOVE;
    let said = |which| if alone { String::new() } else { format!("<p>{}</p>", finding(outcomes, which)) };
    let mut out = String::from(r#"<section id="sweep" class="sweep"><h2>What tempering the heads does</h2>"#);
    put!(out, r#"<p class="lead">{}{}.</p>"#, tempered(outcomes, ranked), asked(outcomes));
    out += &warning_list(&outcomes.warnings());
    let which = compared(outcomes);
    if ranked {
        out += &arms_table(outcomes.tables[0].arms.iter().filter(|arm| arm.role != Role::Tempered), &outcomes.axes);
        put!(out, "<p>{}</p>{}", control_sentence(outcomes), floor_sentence(outcomes));
        for &which in &which {
            let (title, unit) = names(which);
            put!(out, "<h3>{title}, difference in {unit}</h3>{}", said(which));
            out += &sweep_map::draw(outcomes, heads_per_layer, which);
            out += &ranking(outcomes, which);
        }
    } else {
        for &which in &which {
            out += &said(which);
        }
        put!(out, "<p>{}</p>{}", control_sentence(outcomes), floor_sentence(outcomes));
        let several = outcomes.tables.len() > 1;
        for table in &outcomes.tables {
            if several {
                put!(out, r#"<h3 class="heads">{}</h3>"#, escape(&outcomes.told(table)));
            }
            out += &set(table, &which, &outcomes.axes, if several { "h4" } else { "h3" });
        }
        if !which.is_empty() {
            put!(out, r#"<p class="note">{}</p>"#, sweep_chart::key(outcomes));
        }
    }
    // On a page of its own, the note stands beside the findings.
    if !which.is_empty() && !alone {
        put!(out, r#"<p class="note">{}</p>"#, note(outcomes));
    }
    out + "</section>"
}

/// Which heads are tempered, and where.
fn tempered(outcomes: &Outcomes, ranked: bool) -> String {
    let at = outcomes.positions().map_or_else(String::new, |at| format!(" at {at}"));
    match &outcomes.tables[..] {
        [one] => {
            format!(r#"{}: <span class="heads">{}</span>{at}. "#, capital(reading::tempered(one)), escape(&one.set))
        }
        _ if ranked => format!("{}, tempered{at}; ", count(outcomes.sets(), "head set")),
        _ => format!("{}, each tempered by itself{at}; ", count(outcomes.sets(), "head set")),
    }
}

/// What the sweep found, in a sentence for each outcome.
pub(super) fn verdicts(outcomes: &Outcomes) -> String {
    let found = compared(outcomes);
    if found.is_empty() {
        return String::new();
    }
    let found: String = found.into_iter().map(|which| format!("<p>{}</p>", finding(outcomes, which))).collect();
    format!(r#"<div class="verdict"><div>{found}</div><p class="note">{}</p></div>"#, note(outcomes))
}

/// One set: its arms and, under a heading, how far they are from the untouched model.
fn set(table: &SweepTable, which: &[Compared<'_>], axes: &[String], heading: &str) -> String {
    let mut out = arms_table(table.arms.iter(), axes);
    if which.is_empty() {
        return out;
    }
    put!(out, r#"<{heading}>Differences to the untouched model</{heading}><div class="maps charts">"#);
    for &which in which {
        out += &sweep_chart::draw(table, which);
    }
    out += "</div>";
    out + &differences(table, which)
}

fn asked(outcomes: &Outcomes) -> String {
    let seeds = if outcomes.seeds.len() > 1 { format!(" × {} seeds", outcomes.seeds.len()) } else { String::new() };
    let judge =
        reading::judged_by(outcomes).map_or_else(String::new, |judge| format!(", judged by {}", escape(&judge)));
    format!("{}{seeds}, at most {} new tokens{judge}", count(outcomes.items, "item"), outcomes.max_new_tokens)
}

/// What the p-values and intervals are.
fn note(outcomes: &Outcomes) -> String {
    let asked = compared(outcomes).len();
    let of = match outcomes.flips.family {
        0 => "No tempered arm was compared, so there is no p max.".to_owned(),
        family => format!(
            "p max: how often they give one as large for its spread in {}; each of {} is asked by itself, so that one finds something \
             in {} % of sweeps without any effect, or fewer.",
            if family == 1 { "the only arm that is compared".to_owned() } else { format!("any of {family} arms") },
            count(asked, "outcome"),
            fixed(100.0 * by_chance(asked), 0)
        ),
    };
    format!(
        "Differences are taken item by item{}{}. p: how often flipped signs of the differences give a mean as far from 0, \
        at most {} flips, seed {}; they ask for differences that lie about 0 alike on both sides. {of} Intervals: \
        Tango's score interval for shares, Student's otherwise (the wider of both for levels, and where a share is of several \
        seeds or answers to a prompt), of what answers add to it for the asymmetry.{}",
        if outcomes.seeds.len() > 1 { ", the seeds of an item averaged" } else { "" },
        if outcomes.prompts < outcomes.items { ", the items of a prompt or group averaged" } else { "" },
        outcomes.flips.at_most,
        outcomes.flips.seed,
        if outcomes.random.is_empty() {
            String::new()
        } else {
            format!(
                " p random (p_random_max in sweep.csv): how often one of as many sets, drawn from tempered and random ones together, stands out as far at \
                 any λ; random sets are {}.",
                drawn(outcomes)
            )
        }
    )
}

/// The arms that differ beyond chance, or a statement that none does.
fn finding(outcomes: &Outcomes, which: Compared<'_>) -> String {
    let (title, unit) = names(which);
    let all = ranked(outcomes, which);
    let found: Vec<_> = all.iter().filter(|(_, _, d)| d.p_max.is_some_and(|p| p <= LEVEL)).collect();
    let Some((table, arm, d)) = found.first().copied().or(all.first()) else {
        return format!("<b>{title}</b>: no arm can be compared.");
    };
    if all.iter().all(|(.., d)| d.differing == 0) {
        let (arms, far) = (arms_compared(outcomes, all.len()), as_far_as_they_go(outcomes));
        let over = reading::over_items(outcomes, &all);
        return format!("<b>{title}</b>: the same, item by item, in {arms}{over}{far}.");
    }
    let of = differing(found.len(), all.len(), outcomes.tempered().count());
    let over = reading::over_items(outcomes, &all);
    let mean = told(which, d.mean);
    // Of differences that all print as 0, none is the largest to a reader, whatever its p.
    if found.is_empty() && mean == told(which, 0.0) {
        let each = if all.len() == 1 { "" } else { " in each of them" };
        return format!("<b>{title}</b>: {of} beyond chance{over}; the difference is {mean} {unit}{each}.");
    }
    let heads = if outcomes.tables.len() > 1 { format!("{} ", escape(&outcomes.told(table))) } else { String::new() };
    let (at, p) = (format!("{heads}at λ = {}", lambda(arm.lambda)), p_value(d.p_max.unwrap_or(f64::NAN)));
    let random = d.random.as_ref().filter(|_| !found.is_empty()).map_or_else(String::new, beside_random);
    format!(
        "<b>{title}</b>: {of} beyond chance{over}; the largest difference is {mean} {unit}, {at} (p max {p}).{random}"
    )
}

/// How many arms differ, of how many that can be compared, of all that are tempered.
fn differing(found: usize, compared: usize, all: usize) -> String {
    let of = if compared == all { String::new() } else { format!(" that can be compared (of {all})") };
    match (found, compared) {
        (0, 1) if of.is_empty() => "the only arm does not differ".to_owned(),
        (0, 1) => format!("the one arm{of} does not differ"),
        (0, n) => format!("none of {n} arms{of} differs"),
        (_, 1) if of.is_empty() => "the only arm differs".to_owned(),
        (_, 1) => format!("the one arm{of} differs"),
        (1, n) => format!("1 of {n} arms{of} differs"),
        (found, n) => format!("{found} of {n} arms{of} differ"),
    }
}

fn head_row(columns: &[&str]) -> String {
    let cells: String = columns.iter().map(|column| format!(r#"<th scope="col">{column}</th>"#)).collect();
    format!("<thead><tr>{cells}</tr></thead><tbody>")
}

/// The numbers of each arm by itself.
fn arms_table<'a>(arms: impl Iterator<Item = &'a ArmOutcome>, axes: &[String]) -> String {
    let mut out = wide("The arms", "arms");
    let always = [
        "arm",
        "n",
        "accuracy %",
        "assertion %",
        "asymmetry",
        "length, tokens",
        "logp/token",
        "cut off %",
        "changed %",
    ];
    let judged: Vec<String> = axes.iter().map(|axis| format!("{} (1 to 5)", escape(&axis.replace('_', " ")))).collect();
    out += &head_row(&always.into_iter().chain(judged.iter().map(String::as_str)).collect::<Vec<_>>());
    for arm in arms {
        put!(out, r#"<tr{}><th scope="row" title="{}">{}</th>"#, class(arm), escape(&arm.variant), arm_name(arm));
        let asymmetry = arm.assertion_asymmetry.map_or_else(|| UNDEFINED.to_owned(), |value| signed(value * 100.0, 1));
        let cells = [
            arm.n.to_string(),
            percent(arm.accuracy),
            percent(arm.assertion_rate),
            asymmetry,
            fixed(arm.mean_tokens, 1),
            fixed(arm.mean_logprob, 3),
            percent(arm.truncated),
            percent(arm.changed),
        ];
        let level = |axis: &String| {
            let known = arm.n - arm.unjudged(Compared::Score(axis));
            let of = if known < arm.n { format!(" of {known}") } else { String::new() };
            arm.scores.get(axis).copied().flatten().map_or(UNDEFINED.to_owned(), |x| fixed(x, 2) + &of)
        };
        for cell in cells.into_iter().chain(axes.iter().map(level)) {
            put!(out, "<td>{cell}</td>");
        }
        out.push_str("</tr>");
    }
    out + "</tbody>" + NARROW
}

fn class(arm: &ArmOutcome) -> &'static str {
    if arm.role == Role::Control { r#" class="control""# } else { "" }
}

/// An arm in the words of the examples; its heads are named where it stands.
pub(super) fn arm_name(arm: &ArmOutcome) -> String {
    match arm.role {
        Role::Reference => "untouched".to_owned(),
        Role::Control => format!("λ = {} (control)", lambda(arm.lambda)),
        Role::Tempered | Role::Random => format!("λ = {}", lambda(arm.lambda)),
    }
}

/// What random sets do, beside the largest difference.
fn beside_random(random: &BesideRandom) -> String {
    let p = p_value(random.p_max);
    match (random.reach, random.sets) {
        (0, _) if random.p_max <= LEVEL => format!(" Random sets do not reach that (p {p})."),
        (0, sets) => format!(
            " None of {} of the same size does as much, but that is too few for all that was tempered (p {p}).",
            count(sets, "random set")
        ),
        (reach, sets) => {
            format!(
                " {reach} of {} of the same size {} as much (p {p}).",
                count(sets, "random set"),
                if reach == 1 { "does" } else { "do" }
            )
        }
    }
}

/// The cells of a difference, the last of them only if there are random sets; a withheld difference says so.
fn cells(which: Compared<'_>, arm: &ArmOutcome, d: Option<&Difference>, random: bool) -> String {
    let told = |x: f64| told(which, x);
    let [mean, interval, p_max, p_random] = match d {
        _ if arm.withholds(which) => ["not compared".to_owned(), String::new(), String::new(), String::new()],
        None => [UNDEFINED.to_owned(), String::new(), String::new(), String::new()],
        Some(d) => [
            told(d.mean),
            if d.low.is_finite() { format!("{} to {}", told(d.low), told(d.high)) } else { UNDEFINED.to_owned() },
            d.p_max.map_or_else(|| UNDEFINED.to_owned(), p_value),
            d.random.map_or_else(|| UNDEFINED.to_owned(), |random| p_value(random.p_max)),
        ],
    };
    let last = if random { format!("<td>{p_random}</td>") } else { String::new() };
    format!(r#"<td class="gap">{mean}</td><td>{interval}</td><td>{p_max}</td>{last}"#)
}

/// Every arm against the reference.
fn differences(table: &SweepTable, which: &[Compared<'_>]) -> String {
    let random = !table.bands.is_empty();
    let mut out = wide("Differences to the untouched model", "arms") + r#"<thead><tr class="span"><td></td>"#;
    for &which in which {
        let ((title, unit), columns) = (names(which), 3 + usize::from(random));
        put!(out, r#"<th colspan="{columns}" scope="colgroup" class="gap">{title}, {unit}</th>"#);
    }
    out.push_str(r#"</tr><tr><th scope="col">arm</th>"#);
    for _ in which {
        out.push_str(r#"<th scope="col" class="gap">difference</th><th scope="col">95 %</th>"#);
        out.push_str(r#"<th scope="col">p max</th>"#);
        out.push_str(if random { r#"<th scope="col">p random</th>"# } else { "" });
    }
    out.push_str("</tr></thead><tbody>");
    for arm in table.arms.iter().filter(|arm| arm.role != Role::Reference) {
        put!(out, r#"<tr{}><th scope="row">{}</th>"#, class(arm), arm_name(arm));
        for &which in which {
            out += &cells(which, arm, arm.difference.of(which), random);
        }
        out.push_str("</tr>");
    }
    for band in &table.bands {
        put!(out, r#"<tr class="control"><th scope="row">{} random sets, λ = {}</th>"#, band.sets, lambda(band.lambda));
        for &which in which {
            let told = |x: f64| told(which, x);
            let range = band
                .range
                .of(which)
                .map_or_else(|| UNDEFINED.to_owned(), |&(low, high)| format!("{} to {}", told(low), told(high)));
            let some = match band.lacking(which) {
                0 => String::new(),
                lacking => format!(" ({lacking} not compared)"),
            };
            put!(out, r#"<td class="gap"></td><td>{range}{some}</td><td></td><td></td>"#);
        }
        out.push_str("</tr>");
    }
    out + "</tbody>" + NARROW
}

/// The largest differences, and all of them behind a click.
fn ranking(outcomes: &Outcomes, which: Compared<'_>) -> String {
    let all = ranked(outcomes, which);
    let random = outcomes.tables.iter().any(|table| !table.bands.is_empty());
    let rows = |rows: &[(&SweepTable, &ArmOutcome, &Difference)]| {
        let mut out = wide(&format!("{}: the arms by their difference", names(which).0), "sort");
        out.push_str(
            r#"<thead><tr><th scope="col">heads</th><th scope="col">λ</th><th scope="col">answers that differ</th>
            <th scope="col">p</th><th scope="col" class="gap" data-size aria-sort="descending">difference</th>
            <th scope="col">95 %</th><th scope="col">p max</th>"#,
        );
        out.push_str(if random { r#"<th scope="col">p random</th>"# } else { "" });
        out.push_str("</tr></thead><tbody>");
        for (table, arm, d) in rows {
            put!(out, r#"<tr><th scope="row">{}</th>"#, escape(&outcomes.told(table)));
            put!(out, "<td>{}</td><td>{}</td><td>{}</td>", lambda(arm.lambda), d.differing, p_value(d.p));
            out += &cells(which, arm, Some(d), random);
            out.push_str("</tr>");
        }
        out + "</tbody>" + NARROW
    };
    let mut out = rows(&all[..all.len().min(LISTED)]);
    if all.len() > LISTED {
        out += &folded(&format!("All {} arms", all.len()), "sweep.csv", &rows(&all));
    }
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

fn control_sentence(outcomes: &Outcomes) -> String {
    let Some(control) = outcomes.control() else {
        return "<b>This sweep has no control arm</b> (λ = 1 again), so what rounding and batching alone move is \
            unknown."
            .to_owned();
    };
    let mut out = "The control arm (λ = 1 through every hook) shows what rounding and batching alone move".to_owned();
    put!(out, ": here {} % of the responses", percent(control.changed));
    for which in outcomes.compared() {
        if let Some(d) = control.difference.of(which) {
            let (title, unit) = names(which);
            put!(out, ", {} by {} {unit}", title.to_lowercase(), told(which, d.mean));
        }
    }
    out.push_str(". A change of that size at another λ is not an effect.");
    out
}

fn floor_sentence(outcomes: &Outcomes) -> String {
    let Some(floor) = &outcomes.seed_floor else { return String::new() };
    let mut out = format!(
        "<p>Another seed alone changes {} % of the untouched model's responses, and between two seeds its means differ",
        percent(floor.changed)
    );
    let gaps: Vec<String> = outcomes
        .compared()
        .filter_map(|which| {
            let (title, unit) = names(which);
            let largest = in_units(which, *floor.largest.of(which)?);
            Some(format!(" by up to {} {unit} in {}", fixed(largest, decimals(which)), title.to_lowercase()))
        })
        .collect();
    out += &gaps.join(",");
    out + ".</p>"
}

#[cfg(test)]
mod tests;
