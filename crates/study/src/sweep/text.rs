//! The outcomes of a sweep for people: on a terminal, and as Markdown.

use std::iter;

use crate::{
    Role,
    sweep::{
        compared::Compared,
        files::TABLE,
        outcome::{ArmOutcome, Band, BesideRandom, Difference, Outcomes, SweepTable},
        reading::{
            RANKED_ABOVE, arms_compared, as_far_as_they_go, by_chance, compared, decimals, drawn, in_units, judged_by,
            over_items, ranked, tempered,
        },
    },
    text::{
        UNDEFINED, count, fixed, percent, short, signed,
        table::{
            Column::{Left, Right},
            Table,
        },
    },
};

/// Arms shown in a ranking.
const RANKED: usize = 10;

/// `+1.5 [-0.6, +3.9]`.
fn with_interval(which: Compared<'_>, d: &Difference) -> String {
    let number = |x: f64| signed(in_units(which, x), decimals(which));
    if d.low.is_finite() {
        format!("{} [{}, {}]", number(d.mean), number(d.low), number(d.high))
    } else {
        // No interval: either nothing differs, or everything by the same.
        let why = if d.differing == 0 { "none differs" } else { "no interval" };
        format!("{} ({why})", number(d.mean))
    }
}

/// The heading of an outcome's column.
fn title(which: Compared<'_>) -> String {
    match which {
        Compared::Accuracy => "accuracy, points".into(),
        Compared::AssertionRate => "assertion, points".into(),
        Compared::AssertionAsymmetry => "asymmetry, points".into(),
        Compared::MeanTokens => "length, tokens".into(),
        Compared::Score(axis) => format!("{axis}, levels"),
    }
}

/// The outcomes of a sweep, in Markdown that also reads well on a terminal: shares and differences set by set, or for
/// many sets a ranking of the differences.
pub fn sweep_markdown(outcomes: &Outcomes) -> String {
    let mut out = String::new();
    if outcomes.tables.len() > RANKED_ABOVE {
        let shared: Vec<_> = outcomes.tables[0].arms.iter().filter(|arm| arm.role != Role::Tempered).collect();
        let at = outcomes.positions().map_or_else(String::new, |at| format!(", tempered at {at}"));
        out += &format!("{} head sets{at}; {}\n\n", outcomes.sets(), asked(outcomes));
        out += &shares(&shared, &outcomes.axes);
        for which in compared(outcomes) {
            out += &ranking(outcomes, which);
        }
    } else {
        for (index, table) in outcomes.tables.iter().enumerate() {
            let gap = if index > 0 { "\n" } else { "" };
            out += &format!("{gap}{}: {}; {}\n\n", tempered(table), table.name(), asked(outcomes));
            out += &shares(&table.arms.iter().collect::<Vec<_>>(), &outcomes.axes);
            out += &differences(outcomes, table);
        }
    }
    out + &footnotes(outcomes)
}

fn asked(outcomes: &Outcomes) -> String {
    let seeds = if outcomes.seeds.len() > 1 { format!(" x {} seeds", outcomes.seeds.len()) } else { String::new() };
    let items = count(outcomes.items, "item");
    let judge = judged_by(outcomes).map_or_else(String::new, |judge| format!(", judged by {judge}"));
    let drawn = match outcomes.temperature {
        0.0 => String::new(),
        t => format!(", drawn at temperature {t}"),
    };
    format!("{items}{seeds}, at most {} new tokens{drawn}{judge}", outcomes.max_new_tokens)
}

fn name(arm: &ArmOutcome) -> String {
    match arm.role {
        Role::Reference => format!("{} (base)", arm.lambda),
        Role::Control => format!("{} (control)", arm.lambda),
        _ => arm.lambda.to_string(),
    }
}

/// The numbers of each arm by itself; levels are in a table of their own.
fn shares(arms: &[&ArmOutcome], axes: &[String]) -> String {
    let mut table = Table::of([Left("λ")])
        .with([Right("n"), Right("accuracy"), Right("assertion"), Right("asymmetry")])
        .with([Right("length"), Right("logp/token"), Right("cut off"), Right("changed")]);
    for arm in arms {
        table.row([
            name(arm),
            arm.n.to_string(),
            percent(arm.accuracy),
            percent(arm.assertion_rate),
            arm.assertion_asymmetry.map_or(UNDEFINED.into(), |x| format!("{:+.1} %", 100.0 * x)),
            fixed(arm.mean_tokens, 1),
            fixed(arm.mean_logprob, 3),
            percent(arm.truncated),
            percent(arm.changed),
        ]);
    }
    let out = table.to_string();
    if axes.is_empty() { out } else { format!("{out}\n{}", levels(arms, axes)) }
}

/// The mean level of each arm along the axes, and of how many answers it is, if not of all.
fn levels<'a>(arms: &[&ArmOutcome], axes: &'a [String]) -> Table<'a> {
    let cell = |arm: &ArmOutcome, axis: &String| {
        let Some(level) = arm.scores.get(axis).copied().flatten() else { return UNDEFINED.into() };
        let known = arm.n - arm.unjudged(Compared::Score(axis));
        if known == arm.n { fixed(level, 2) } else { format!("{} of {known}", fixed(level, 2)) }
    };
    let mut table = axes.iter().fold(Table::of([Left("level, 1-5")]), |table, axis| table.with([Right(axis)]));
    for arm in arms {
        table.row(iter::once(name(arm)).chain(axes.iter().map(|axis| cell(arm, axis))));
    }
    table
}

/// How the arms of a set differ from the reference, and how far random sets do.
fn differences(outcomes: &Outcomes, table: &SweepTable) -> String {
    let which = compared(outcomes);
    let rows: Vec<&ArmOutcome> = table.arms.iter().filter(|arm| arm.role != Role::Reference).collect();
    if which.is_empty() || rows.is_empty() {
        return String::new();
    }
    let titles: Vec<String> = which.iter().map(|which| title(*which)).collect();
    let mut told =
        titles.iter().fold(Table::of([Left("λ")]), |table, title| table.with([Right(title), Right("p max")]));
    for arm in rows {
        let cells = which.iter().flat_map(|&which| match arm.difference.of(which) {
            _ if arm.withholds(which) => ["not compared".into(), UNDEFINED.into()],
            None => [UNDEFINED.into(), UNDEFINED.into()],
            Some(d) => [with_interval(which, d), short(d.p_max.unwrap_or(f64::NAN))],
        });
        told.row(iter::once(name(arm)).chain(cells));
    }
    for band in &table.bands {
        let cells = which.iter().flat_map(|&which| [reach(band, which), String::new()]);
        told.row(iter::once(format!("{}, random", band.lambda)).chain(cells));
    }
    format!("\n{told}")
}

/// The lowest and the highest difference of random sets, and of how many, if not of all.
fn reach(band: &Band, which: Compared<'_>) -> String {
    let lacking = band.lacking(which);
    let some = if lacking > 0 { format!(" ({})", count(band.sets - lacking, "set")) } else { String::new() };
    let told = |x: f64| format!("{:+.*}", decimals(which), in_units(which, x));
    band.range.of(which).map_or(UNDEFINED.into(), |&(low, high)| format!("{} to {}{some}", told(low), told(high)))
}

fn ranking(outcomes: &Outcomes, which: Compared<'_>) -> String {
    let ranked = ranked(outcomes, which);
    let differing: Vec<_> = ranked.iter().filter(|(.., d)| d.differing > 0).collect();
    if differing.is_empty() {
        let (arms, far) = (arms_compared(outcomes, ranked.len()), as_far_as_they_go(outcomes));
        let over = over_items(outcomes, &ranked);
        return format!("\n{}: the same, item by item, in {arms}{over}{far}\n", title(which));
    }
    let (shown, all) = (differing.len().min(RANKED), ranked.len());
    let out = if shown < all {
        format!("\nthe {shown} largest of {all} differences; {TABLE} has all\n\n")
    } else {
        format!("\n{all} differences, the largest first\n\n")
    };
    // Whether any heads would do as much can be asked only where there are random sets.
    let random = differing.iter().any(|(.., d)| d.random.is_some());
    let title = title(which);
    let table = Table::of([Left("heads"), Left("λ")])
        .with([Right(&title), Right("differing")])
        .with([Right("p"), Right("p max")]);
    let mut table = if random { table.with([Right("p random")]) } else { table };
    for (set, arm, d) in differing.into_iter().take(RANKED) {
        let cells = [
            outcomes.told(set).into_owned(),
            arm.lambda.to_string(),
            with_interval(which, d),
            format!("{} of {}", d.differing, d.items),
            short(d.p),
            short(d.p_max.unwrap_or(f64::NAN)),
        ];
        let beside = random.then(|| short(d.random.map_or(f64::NAN, |random| random.p_max)));
        table.row(cells.into_iter().chain(beside));
    }
    format!("{out}{table}")
}

/// How the largest difference of each outcome compares with random sets.
fn beside_random(outcomes: &Outcomes) -> String {
    let told = |which: Compared<'_>| {
        let ranked = ranked(outcomes, which);
        let (_, arm, d) = ranked.first().filter(|(.., d)| d.differing > 0)?;
        let BesideRandom { sets, reach, p_max, .. } = d.random?;
        let heads = &arm.variant;
        let p = short(p_max);
        Some(format!("{}: {heads} is reached by {reach} of {sets} random sets, p random {p}\n", title(which)))
    };
    compared(outcomes).into_iter().filter_map(told).collect()
}

fn footnotes(outcomes: &Outcomes) -> String {
    let mut out = String::new();
    if !compared(outcomes).is_empty() {
        out += "\ndifferences are to λ = 1, item by item, with their 95 % interval; ";
        let p_max =
            |arms: &str| format!("p max: how often flipped signs give one as large\nin {arms}, at their own spread\n");
        let told = match outcomes.flips.family {
            0 => "no tempered arm was compared, so there is no p max\n".to_string(),
            1 => p_max("the only arm that is compared"),
            family => p_max(&format!("any of {family} arms")),
        };
        out += &told;
        let asked = compared(outcomes).len();
        if outcomes.flips.family > 0 && asked > 1 {
            out += &format!(
                "each of {asked} outcomes is asked by itself: one finds something in {:.0} % of sweeps without any effect\n",
                100.0 * by_chance(asked)
            );
        }
    }
    let sets: Vec<usize> = outcomes.tables.iter().flat_map(|table| &table.bands).map(|band| band.sets).collect();
    if let Some((fewest, most)) = sets.iter().min().zip(sets.iter().max()) {
        let beside = beside_random(outcomes);
        if outcomes.tables.len() <= RANKED_ABOVE {
            let sets = if fewest == most { most.to_string() } else { format!("{fewest} to {most}") };
            out += &format!(
                "random: lowest and highest of {sets} random head sets of the same size, {}\n",
                drawn(outcomes)
            );
            out += &beside;
        }
        if !beside.is_empty() {
            out += &format!(
                "p random (p_random_max in {TABLE}): how often one of as many sets, of tempered and random ones together, stands out as \
                 far at any λ\n"
            );
        }
    }
    if let Some(floor) = &outcomes.seed_floor {
        out += &format!("another seed alone changes {} of the untouched model's answers", percent(floor.changed));
        for which in outcomes.compared() {
            if let Some(largest) = floor.largest.of(which) {
                out += &format!("; {} up to {:.*}", title(which), decimals(which), in_units(which, *largest));
            }
        }
        out.push('\n');
    }
    outcomes.warnings().into_iter().fold(out, |out, warning| out + "warning: " + &warning + "\n")
}
