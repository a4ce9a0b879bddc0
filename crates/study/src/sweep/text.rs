//! The outcomes of a sweep for people and programs: on a terminal, as Markdown, as CSV.

use crate::{
    RandomFrom, Role,
    significance::LEVEL,
    sweep::outcome::{ArmOutcome, BesideRandom, Compared, Difference, Outcomes, SweepTable},
    text::{UNDEFINED, count, fixed, percent, quoted, short, signed},
};

/// With more head sets than this, arms are ranked instead of listed set by set.
pub(crate) const RANKED_ABOVE: usize = 3;

/// Arms shown in a ranking.
const RANKED: usize = 10;
/// From this share of cut-off answers on, the report must say that nobody knows how they would have ended.
const MANY_CUT: f64 = 0.1;
/// Why an outcome of an arm is not compared, in the CSV.
const UNEQUALLY_JUDGED: &str = "verdicts are missing more or less often than in the reference";
/// Axes side by side in a table of levels.
const LEVELS_AT_ONCE: usize = 4;

/// A difference in the units of the report: percentage points, tokens, or levels of an axis.
pub(crate) fn in_units(which: Compared<'_>, x: f64) -> f64 {
    if which.is_share() { 100.0 * x } else { x }
}

/// How many decimals it is given with: levels run from 1 to 5.
pub(crate) fn decimals(which: Compared<'_>) -> usize {
    if matches!(which, Compared::Score(_)) { 2 } else { 1 }
}

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

/// Where random sets come from.
pub(crate) fn drawn(outcomes: &Outcomes) -> &'static str {
    match outcomes.random_from {
        RandomFrom::Model => "from all layers",
        RandomFrom::Layers => "from the same layers",
    }
}

/// How often, at most, one of this many outcomes finds something where there is nothing.
pub(crate) fn by_chance(outcomes: usize) -> f64 {
    1.0 - (1.0 - LEVEL).powi(outcomes as i32)
}

/// The outcomes by which at least one arm is compared.
pub(crate) fn compared(outcomes: &Outcomes) -> Vec<Compared<'_>> {
    let has = |which: &Compared<'_>| outcomes.arms().any(|(_, arm)| arm.difference.of(*which).is_some());
    outcomes.compared().filter(has).collect()
}

/// The outcomes of a sweep, in Markdown that also reads well on a terminal: shares and differences set by set, or for
/// many sets a ranking of the differences.
pub fn sweep_markdown(outcomes: &Outcomes) -> String {
    let mut out = String::new();
    if outcomes.tables.len() > RANKED_ABOVE {
        let shared: Vec<_> = outcomes.tables[0].arms.iter().filter(|arm| arm.role != Role::Tempered).collect();
        let at = outcomes.positions().map_or_else(String::new, |at| format!(", tempered at {at}"));
        out += &format!("{} head sets{at}; {}\n\n", outcomes.tables.len(), asked(outcomes));
        out += &shares(&shared, &outcomes.axes);
        for which in compared(outcomes) {
            out += &ranking(outcomes, which);
        }
    } else {
        for (index, table) in outcomes.tables.iter().enumerate() {
            let gap = if index > 0 { "\n" } else { "" };
            let at = outcomes.positions().map_or_else(String::new, |at| format!(" at {at}"));
            out += &format!("{gap}{}: {}{at}; {}\n\n", tempered(table), table.set, asked(outcomes));
            out += &shares(&table.arms.iter().collect::<Vec<_>>(), &outcomes.axes);
            out += &differences(outcomes, table);
        }
    }
    out + &footnotes(outcomes)
}

/// The judge, and what it was asked for.
pub(crate) fn judged_by(outcomes: &Outcomes) -> Option<String> {
    outcomes.judge.as_ref().map(|judge| format!("{judge} ({})", outcomes.tasks.join(", ")))
}

/// Of how many items the comparisons are at the least, where that is not all.
pub(crate) fn over_items(outcomes: &Outcomes, ranked: &[(&SweepTable, &ArmOutcome, &Difference)]) -> String {
    match ranked.iter().map(|(.., d)| d.items).min() {
        Some(least) if least < outcomes.items => format!(", over {least} of {} items", outcomes.items),
        _ => String::new(),
    }
}

/// Several heads are tempered together.
pub(crate) fn tempered(table: &SweepTable) -> &'static str {
    if table.heads.len() > 1 { "tempered together" } else { "tempered" }
}

fn asked(outcomes: &Outcomes) -> String {
    let seeds = if outcomes.seeds.len() > 1 { format!(" x {} seeds", outcomes.seeds.len()) } else { String::new() };
    let items = count(outcomes.items, "item");
    let judge = judged_by(outcomes).map_or_else(String::new, |judge| format!(", judged by {judge}"));
    format!("{items}{seeds}, at most {} new tokens{judge}", outcomes.max_new_tokens)
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
    let mut out =
        "| λ           |    n | accuracy | assertion | asymmetry | length | logp/token | cut off | changed |\n\
         |-------------|-----:|---------:|----------:|----------:|-------:|-----------:|--------:|--------:|\n"
            .to_string();
    for arm in arms {
        out += &format!(
            "| {:<11} | {:>4} | {:>8} | {:>9} | {:>9} | {:>6} | {:>10} | {:>7} | {:>7} |\n",
            name(arm),
            arm.n,
            percent(arm.accuracy),
            percent(arm.assertion_rate),
            arm.assertion_asymmetry.map_or(UNDEFINED.into(), |x| format!("{:+.1} %", 100.0 * x)),
            fixed(arm.mean_tokens, 1),
            fixed(arm.mean_logprob, 3),
            percent(arm.truncated),
            percent(arm.changed),
        );
    }
    axes.chunks(LEVELS_AT_ONCE).fold(out, |out, axes| out + "\n" + &levels(arms, axes))
}

/// The mean level of each arm along some axes, and of how many answers it is, if not of all.
fn levels(arms: &[&ArmOutcome], axes: &[String]) -> String {
    let cell = |arm: &ArmOutcome, axis: &String| {
        let Some(level) = arm.scores.get(axis).copied().flatten() else { return UNDEFINED.into() };
        let known = arm.n - arm.unjudged(Compared::Score(axis));
        if known == arm.n { fixed(level, 2) } else { format!("{} of {known}", fixed(level, 2)) }
    };
    let cells: Vec<Vec<String>> = arms.iter().map(|arm| axes.iter().map(|axis| cell(arm, axis)).collect()).collect();
    let width = |at: usize| {
        let longest = cells.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
        longest.max(axes[at].chars().count())
    };
    let each = |text: &dyn Fn(usize) -> String| (0..axes.len()).map(text).collect::<String>();
    let mut out = format!("| level, 1-5  |{}\n", each(&|at| format!(" {:>1$} |", axes[at], width(at))));
    out += &format!("|-------------|{}\n", each(&|at| format!("{}:|", "-".repeat(width(at) + 1))));
    for (arm, row) in arms.iter().zip(&cells) {
        out += &format!("| {:<11} |{}\n", name(arm), each(&|at| format!(" {:>1$} |", row[at], width(at))));
    }
    out
}

fn differences(outcomes: &Outcomes, table: &SweepTable) -> String {
    let all = compared(outcomes);
    // Three of them fit on a line.
    let at_once = if all.len() > 3 { 2 } else { 3 };
    all.chunks(at_once).map(|which| differences_of(which, table)).collect()
}

fn differences_of(which: &[Compared<'_>], table: &SweepTable) -> String {
    let rows: Vec<&ArmOutcome> = table.arms.iter().filter(|arm| arm.role != Role::Reference).collect();
    if which.is_empty() || rows.is_empty() {
        return String::new();
    }
    let width = |which: Compared<'_>| title(which).chars().count().max(24);
    let mut out = String::from("\n| λ           |");
    for &which in which {
        out += &format!(" {:>1$} | p max |", title(which), width(which));
    }
    out += "\n|-------------|";
    for &which in which {
        out += &format!("{}:|------:|", "-".repeat(width(which) + 1));
    }
    out.push('\n');
    for arm in rows {
        out += &format!("| {:<11} |", name(arm));
        for &which in which {
            let (text, p) = match arm.difference.of(which) {
                _ if arm.withholds(which) => ("not compared".into(), UNDEFINED.into()),
                None => (UNDEFINED.into(), UNDEFINED.into()),
                Some(d) => (with_interval(which, d), short(d.p_max.unwrap_or(f64::NAN))),
            };
            out += &format!(" {text:>0$} | {p:>5} |", width(which));
        }
        out.push('\n');
    }
    for band in &table.bands {
        out += &format!("| {:<11} |", format!("{}, random", band.lambda));
        for &which in which {
            let lacking = band.lacking(which);
            let some = if lacking > 0 { format!(" ({})", count(band.sets - lacking, "set")) } else { String::new() };
            let range = band.range.of(which).map_or(UNDEFINED.into(), |&(low, high)| {
                let told = |x: f64| format!("{:+.*}", decimals(which), in_units(which, x));
                format!("{} to {}{some}", told(low), told(high))
            });
            out += &format!(" {range:>0$} |       |", width(which));
        }
        out.push('\n');
    }
    out
}

/// The tempered arms by |difference|, the largest first; arms that are not compared are left out.
pub(crate) fn ranked<'a>(
    outcomes: &'a Outcomes,
    which: Compared<'_>,
) -> Vec<(&'a SweepTable, &'a ArmOutcome, &'a Difference)> {
    let tempered = outcomes.arms().filter(|(_, arm)| arm.role == Role::Tempered);
    let mut ranked: Vec<_> =
        tempered.filter_map(|(table, arm)| Some((table, arm, arm.difference.of(which)?))).collect();
    ranked.sort_by(|a, b| b.2.mean.abs().total_cmp(&a.2.mean.abs()).then(a.2.p.total_cmp(&b.2.p)));
    ranked
}

/// How many tempered arms this is about, and out of how many, if some cannot be compared: of those nothing is known.
pub(crate) fn arms_compared(outcomes: &Outcomes, compared: usize) -> String {
    let all = outcomes.arms().filter(|(_, arm)| arm.role == Role::Tempered).count();
    match (compared, all) {
        (1, 1) => "the only arm".into(),
        _ if compared == all => format!("all {all} arms"),
        _ => format!("the {compared} of {all} arms that can be compared"),
    }
}

/// What must be said of outcomes that are the same, if many answers were cut off: they are the same only as far as they go.
pub(crate) fn as_far_as_they_go(outcomes: &Outcomes) -> String {
    let compared = outcomes.arms().map(|(_, arm)| arm).filter(|arm| arm.withheld.is_none());
    let cut = compared.map(|arm| arm.truncated).fold(0.0, f64::max);
    if cut < MANY_CUT {
        return String::new();
    }
    format!(
        ", as far as they go: up to {} of an arm's answers were cut off at {} tokens",
        percent(cut),
        outcomes.max_new_tokens
    )
}

fn ranking(outcomes: &Outcomes, which: Compared<'_>) -> String {
    let ranked = ranked(outcomes, which);
    let differing: Vec<_> = ranked.iter().filter(|(.., d)| d.differing > 0).collect();
    if differing.is_empty() {
        let (arms, far) = (arms_compared(outcomes, ranked.len()), as_far_as_they_go(outcomes));
        let over = over_items(outcomes, &ranked);
        return format!("\n{}: the same, item by item, in {arms}{over}{far}\n", title(which));
    }
    let mut out = format!("\nthe largest of {} differences\n\n", ranked.len());
    // Whether any heads would do as much can be asked only where there are random sets.
    let random = differing.iter().any(|(.., d)| d.random.is_some());
    let column = |text: &str| if random { format!(" {text:>8} |") } else { String::new() };
    out += &format!("| heads            | λ     | {:>24} | answers that differ |     p | p max |", title(which));
    out += &column("p random");
    out += "\n|------------------|-------|-------------------------:|--------------------:|------:|------:|";
    out += if random { "---------:|\n" } else { "\n" };
    for (table, arm, d) in differing.into_iter().take(RANKED) {
        out += &format!(
            "| {:<16} | {:<5} | {:>24} | {:>19} | {:>5} | {:>5} |{}\n",
            table.set,
            arm.lambda,
            with_interval(which, d),
            format!("{} of {}", d.differing, d.items),
            short(d.p),
            short(d.p_max.unwrap_or(f64::NAN)),
            column(&short(d.random.map_or(f64::NAN, |random| random.p_max))),
        );
    }
    out
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
    if let Some(band) = outcomes.tables.iter().flat_map(|table| &table.bands).next() {
        let beside = beside_random(outcomes);
        if outcomes.tables.len() <= RANKED_ABOVE {
            let sets = band.sets;
            out += &format!(
                "random: lowest and highest of {sets} random head sets of the same size, {}\n",
                drawn(outcomes)
            );
            out += &beside;
        }
        if !beside.is_empty() {
            out += "p random: how often one of as many sets, of tempered and random ones together, stands out as far at any λ\n";
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

/// Every arm and outcome as CSV, one line each: full precision, empty where there is no number.
pub(crate) fn sweep_csv(outcomes: &Outcomes) -> String {
    let mut out =
        "role,set,lambda,variant,outcome,n,value,items,differing,difference,low,high,p,p_max,p_random,p_random_max,withheld\n"
            .to_string();
    for (table, arm) in outcomes.arms() {
        let set = if arm.role == Role::Tempered { table.set.as_str() } else { "" };
        csv_of(&mut out, set, arm);
    }
    for arm in &outcomes.random {
        csv_of(&mut out, arm.variant.split('@').next().unwrap_or_default(), arm);
    }
    out
}

/// A value with the name of its outcome.
fn named((which, value): (Compared<'_>, f64)) -> (String, f64, Option<Compared<'_>>) {
    (which.name(), value, Some(which))
}

fn csv_of(out: &mut String, set: &str, arm: &ArmOutcome) {
    let cell = |x: f64| if x.is_finite() { x.to_string() } else { String::new() };
    let role = match arm.role {
        Role::Reference => "reference",
        Role::Control => "control",
        Role::Tempered => "tempered",
        Role::Random => "random",
    };
    let compared = [
        (Compared::Accuracy, arm.accuracy),
        (Compared::AssertionRate, arm.assertion_rate),
        (Compared::MeanTokens, arm.mean_tokens),
        (Compared::AssertionAsymmetry, arm.assertion_asymmetry.unwrap_or(f64::NAN)),
    ];
    let alone = [("mean_logprob", arm.mean_logprob), ("truncated", arm.truncated), ("changed", arm.changed)];
    let levels = arm.scores.iter().map(|(axis, level)| (Compared::Score(axis), level.unwrap_or(f64::NAN)));
    let values = compared.map(named).into_iter().chain(alone.map(|(name, value)| (name.to_string(), value, None)));
    for (name, value, which) in values.chain(levels.map(named)) {
        let named = quoted(&name);
        let n = (arm.n - which.map_or(0, |which| arm.unjudged(which))).to_string();
        let head = [role, &quoted(set), &arm.lambda.to_string(), &quoted(&arm.variant), &named, &n];
        *out += &format!("{},{},", head.join(","), cell(value));
        match which.and_then(|which| arm.difference.of(which)) {
            None => *out += ",,,,,,,,",
            Some(d) => {
                *out += &format!("{},{}", d.items, d.differing);
                let random = d.random.map_or([f64::NAN; 2], |random| [random.p, random.p_max]);
                for x in [d.mean, d.low, d.high, d.p, d.p_max.unwrap_or(f64::NAN)].into_iter().chain(random) {
                    *out += &format!(",{}", cell(x));
                }
            }
        }
        let withheld = match (which, &arm.withheld) {
            (Some(_), Some(why)) => why,
            (Some(which), None) if arm.withholds(which) => UNEQUALLY_JUDGED,
            _ => "",
        };
        *out += &format!(",{}\n", quoted(withheld));
    }
}
