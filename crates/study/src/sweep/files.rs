//! What a sweep leaves besides its rows: `sweep.json`, `sweep.csv`, `lambda.npz` and, if it stands alone, `report.html`.

use std::{collections::BTreeSet, path::Path};

use headtemper_engine::Identity;
use headtemper_hook::HeadPlan;

use crate::{
    Arm, Array, HookCounts, Result, Role, Row, RunDir,
    heads::table::lambda_table,
    hooks,
    items::units::counted,
    report::{self, Facts, Page},
    store::{
        files::{write_json, write_text},
        shards::PLAN,
    },
    sweep::{
        Answered, arms::is_random, csv::sweep_csv, examples::examples, outcome::Outcomes, outcomes_of, run::SweepPlan,
    },
};

const OUTCOMES: &str = "sweep.json";
pub(crate) const TABLE: &str = "sweep.csv";
const LAMBDA: &str = "lambda.npz";
const PAGE: &str = "report.html";
/// What the sweep of an experiment leaves besides its rows and its part of the report.
pub(crate) const SWEEP_FILES: [&str; 4] = [OUTCOMES, TABLE, LAMBDA, PLAN];

/// What a sweep by itself leaves besides its rows and its plan.
pub(super) const RESULTS: [&str; 4] = [OUTCOMES, TABLE, LAMBDA, PAGE];

/// Writes `sweep.json` and `sweep.csv`. `all` are the rows of the whole directory.
pub(crate) fn write_outcomes<'a>(
    run: &RunDir,
    answered: &Answered<'_>,
    all: impl Iterator<Item = &'a Row>,
) -> Result<Outcomes> {
    let outcomes = outcomes_of(answered);
    let own: BTreeSet<&str> = answered.arms.iter().map(|arm| arm.variant.as_str()).collect();
    let reference =
        |row: &Row| answered.arms.iter().any(|arm| arm.role == Role::Reference && arm.variant == row.variant);
    // What was tried but stands in no table: other arms, and other seeds of these arms. The untouched model alone tries nothing.
    // Nothing was tried by a random set: what it could tell is how unusual others are.
    let all = all.filter(|row| !is_random(&row.variant));
    let stray = |row: &Row| match (own.contains(row.variant.as_str()), outcomes.seeds.contains(&row.seed)) {
        (true, true) => None,
        (false, _) => Some(row.variant.clone()),
        (true, false) => (!reference(row)).then(|| format!("seed {}", row.seed)),
    };
    let elsewhere: BTreeSet<String> = all.filter_map(stray).collect();
    let outcomes = Outcomes { elsewhere: elsewhere.into_iter().collect(), ..outcomes };
    write_json(&run.file(OUTCOMES), &outcomes)?;
    write_text(&run.file(TABLE), &sweep_csv(&outcomes))?;
    Ok(outcomes)
}

/// Writes `lambda.npz`: λ of every head in every arm, `[arm, layer, head]`.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write_lambda(run: &RunDir, arms: &[Arm], heads_per_layer: &[usize], identity: &Identity) -> Result<()> {
    let plans: Vec<&HeadPlan> = arms.iter().map(|arm| &arm.plan).collect();
    let mut npz = lambda_table(&plans, heads_per_layer, (&identity.model, &identity.weights_sha256));
    npz.add("variant", Array::Text(arms.iter().map(|arm| arm.variant.clone()).collect()));
    npz.add("positions", Array::Text(arms.iter().map(|arm| arm.plan.positions().to_string()).collect()));
    npz.save(&run.file(LAMBDA))
}

/// Writes `report.html` of a sweep by itself; of one that a judge has read, `from` is its directory, and how many items it has.
pub(crate) fn write_report(
    run: &RunDir,
    identity: &Identity,
    plan: &SweepPlan,
    (answered, outcomes): (&Answered<'_>, &Outcomes),
    fired: &HookCounts,
    from: Option<(&Path, usize)>,
) -> Result<()> {
    let rules = match answered.grader {
        Some(_) => "accepted answers, where items have them, and a lexicon of hedges",
        None => "accepted answers, where items have them",
    };
    let judged = answered.judged.map_or_else(
        || rules.to_string(),
        |judged| format!("{}, asked for {}; whatever else, by {rules}", judged.judge, judged.tasks.join(" and ")),
    );
    let items = match from {
        Some((_, all)) if all > answered.items.len() => format!("the first {} of {all}", answered.items.len()),
        _ => answered.items.len().to_string(),
    };
    let file = plan.file.as_deref().unwrap_or("a file");
    let facts = Facts::default()
        .with_model(identity)
        .with_some("sweep", from.map(|(dir, _)| dir.display().to_string()))
        .with_items(items, file, plan.only.as_ref())
        .with_system(answered.items)
        .with("units of comparison", counted(outcomes.prompts, outcomes.groups.as_deref()))
        .with_answers(&plan.sampling, &outcomes.seeds, answered.max_new_tokens)
        .with("judged by", judged)
        .with("hooks fired", hooks::told(fired, (answered.arms.len(), "arm"), "answer"))
        .with_version(identity);
    let sets = answered.arms.iter().filter(|arm| arm.role == Role::Tempered).map(|arm| arm.set.as_str());
    let sets: Vec<&str> = sets.collect::<BTreeSet<_>>().into_iter().collect();
    let title = match sets[..] {
        [one] => format!("A sweep over {}", one.replace('+', " ")),
        _ => format!("A sweep over {} head sets", sets.len()),
    };
    let page = Page {
        title: &title,
        facts: &facts,
        counts: &[],
        warnings: &[],
        model: &identity.model,
        heads_per_layer: &plan.heads_per_layer,
        attribution: None,
        sweep: Some(outcomes),
        examples: &examples(answered.items, answered.arms, answered.rows),
    };
    write_text(&run.file(PAGE), &report::render(&page))
}
