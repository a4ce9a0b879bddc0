//! The outcomes of a sweep for programs, as CSV.

use crate::{
    Role,
    sweep::{
        compared::Compared,
        outcome::{ArmOutcome, Outcomes},
    },
    text::quoted,
};

/// Why an outcome of an arm is not compared, in the CSV.
const UNEQUALLY_JUDGED: &str = "verdicts are missing more or less often than in the reference";

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
