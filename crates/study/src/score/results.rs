//! What a causal map leaves beside its rows, made from its plan and its rows alone.

use headtemper_engine::Identity;
use serde_json::json;

use crate::{
    HookCounts, Plan, Result, RowLog, RunDir, RunSummary, hooks,
    items::{cohort::label_counts, units::counted},
    report::{Facts, score},
    score::{
        ScoreMap, ScoreRow, Scores,
        map::{Nulls, map},
        plan::ScorePlan,
        row::fired_of,
        score_markdown,
        whole::Whole,
    },
    store::{
        digest::digest,
        files::{write_json, write_text},
    },
    text::{count, some_of},
};

/// Rows of the table for a terminal.
const LISTED: usize = 10;
/// What a map leaves besides its rows and its plan.
const RESULTS: [&str; 4] = ["scores.npz", "scores.csv", "score.json", "report.html"];
/// The most cells that a warning names.
const NAMED: usize = 5;

/// Writes `scores.npz`, `scores.csv`, `score.json` and `report.html`.
pub(crate) fn write_results(
    run: &mut RunDir,
    identity: &Identity,
    whole: &Whole,
    log: &RowLog<ScoreRow>,
) -> Result<RunSummary> {
    let Plan { keys, plan, .. } = &whole.plan;
    let rows: Vec<&ScoreRow> = keys.iter().map(|key| log.get(key).expect("every cell was scored")).collect();
    plan.check_rows(&rows)?;
    let scores = plan.table(&rows);
    let told = hooks::told(&fired_of(rows.iter().copied()), (plan.heads.len(), "head"), "cell");
    let map = map_of(&scores, identity, whole)?;
    // Those of an earlier call must not stand beside these, also if this call is killed in between.
    run.without("score", &RESULTS)?;
    scores.save(run, &meta(identity, plan), map.contrast.as_ref())?;
    write_json(&run.file("score.json"), &map)?;
    let counts: Vec<(String, usize)> = label_counts(&plan.labels).into_iter().collect();
    let page = score::Page { map: &map, scores: &scores, counts: &counts, facts: &facts(identity, plan, told) };
    write_text(&run.file("report.html"), &score::render(&page))?;
    finish(run, plan, log.len(), &fired_of(log.rows().values()))?;
    let warnings = map.warnings.clone();
    let text = warnings.iter().fold(score_markdown(&map, LISTED), |text, warning| text + "warning: " + warning + "\n");
    Ok(RunSummary { text, warnings, check_failed: false })
}

/// Notes that the rows are there, and how many tokens each head was tempered on in all.
pub(crate) fn finish(run: &mut RunDir, plan: &ScorePlan, rows: usize, fired: &HookCounts) -> Result<()> {
    let notes = json!({"rows": rows, "lambdas": plan.lambdas, "fired": fired});
    run.finish("score", &digest(&(&plan.heads, &plan.lambdas)), &[], notes)
}

fn map_of(scores: &Scores, identity: &Identity, whole: &Whole) -> Result<ScoreMap> {
    let Whole { plan: Plan { plan, .. }, unfinished, foreign } = whole;
    let nulls = Nulls { shuffles: plan.shuffles, seed: plan.seed };
    let layers = plan.heads_per_layer.clone();
    let cohorts = plan.cohorts()?;
    let cohorts = cohorts.as_ref().map(|cohorts| (cohorts, plan.beside.as_ref()));
    let mut map = map(scores, (&plan.units, plan.groups.as_deref()), &identity.model, layers, cohorts, nulls);
    map.earlier = plan.earlier;
    if !unfinished.is_empty() {
        map.warnings.push(format!(
            "this directory also has unfinished cells that no table here holds ({}): p max is not over them; ask for their heads and λ \
             again",
            some_of(unfinished, NAMED)
        ));
    }
    if *foreign > 0 {
        map.warnings.push(format!(
            "{} of scores.jsonl of another model, text or version, which no table here holds: remove what was put there",
            count(*foreign, "line")
        ));
    }
    if plan.unprompted > 0 {
        map.warnings.push(format!(
            "{} of {} items have no prompt: their first token has nothing to be predicted from and is not scored",
            plan.unprompted,
            plan.ids.len()
        ));
    }
    Ok(map)
}

fn meta(identity: &Identity, plan: &ScorePlan) -> String {
    let meta = json!({
        "schema": "scores/v1",
        "sign": "delta_logprob is tempered minus untempered, in nats; kl is KL(untempered || tempered)",
        "plain": plan.plain,
    });
    let mut meta = meta.as_object().cloned().expect("it was written as an object");
    let identity = serde_json::to_value(identity).expect("plain data has a JSON form");
    meta.extend(identity.as_object().cloned().unwrap_or_default());
    serde_json::to_string(&meta).expect("plain data has a JSON form")
}

fn facts(identity: &Identity, plan: &ScorePlan, fired: String) -> Facts {
    let lambdas: Vec<String> = plan.lambdas.iter().map(ToString::to_string).collect();
    let way = if plan.plain { "plain: a forward pass for every head and λ" } else { "shared: as --plain, but faster" };
    let of = plan.cells().len();
    let earlier = || format!("{} of {of} cells (a head at a λ); p max is over all of them", plan.earlier);
    Facts::default()
        .with_model(identity)
        .with_items(plan.ids.len(), &plan.file, plan.only.as_ref())
        .with_some("system message", plan.system.as_ref())
        .with("units of comparison", counted(plan.units.len(), plan.groups.as_deref()))
        .with("tempered", format!("{} heads, one at a time, on prompt and response", plan.heads.len()))
        .with("λ", lambdas.join(", "))
        .with("computed", way)
        .with("hooks fired", fired)
        .with("signs flipped, labels shuffled", format!("{} times at most, seed {}", plan.shuffles, plan.seed))
        .with_some("scored by earlier calls", (plan.earlier > 0).then(earlier))
        .with_version(identity)
}
