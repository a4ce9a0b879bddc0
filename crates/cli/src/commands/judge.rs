//! `temper judge`: labels from a judge behind an OpenAI-compatible endpoint.

use anyhow::{Result, ensure};
use headtemper_study::{
    ApiKey, Endpoint, JudgeDone, JudgePrompts, JudgeRun, JudgeTask, ReadAs, SweptAnswers, Taken, dry_judge, judge_run,
    outcome::Outcomes, read_taken, sweep_markdown,
};

use crate::{
    Done,
    args::Judge,
    model::{check_out, say_taken},
    ui,
};

pub(crate) fn run(args: &Judge) -> Result<Done> {
    let mut tasks: Vec<JudgeTask> = args.tasks.iter().map(|task| task.task()).collect();
    tasks.sort_unstable();
    tasks.dedup();
    ensure!(
        args.axes.is_empty() || tasks.contains(&JudgeTask::Rubric),
        "--axes are those of the rubric, which --tasks does not name"
    );
    ensure!(!args.model.trim().is_empty(), "--judge-model is empty, but must be what the server calls the model");
    check_out(&args.out)?;
    let endpoint = Endpoint::parse(&args.endpoint)?;
    ensure!(args.limit != Some(0), "--limit is 0, but must be at least 1");
    let sweep = args.sweep.as_deref().map(|dir| SweptAnswers::read(dir, args.limit)).transpose()?;
    let read_as = ReadAs { only: args.only.clone(), limit: args.limit, ..ReadAs::default() };
    let (read, taken) =
        args.items.as_deref().map_or(Ok((Vec::new(), Taken::default())), |path| read_taken(path, &read_as))?;
    say_taken(taken, args.only.as_ref());
    let (items_path, items) = match (&sweep, &args.items) {
        (Some(sweep), _) => (sweep.path(), sweep.answers()),
        (None, path) => (path.as_deref().expect("clap asks for items or a sweep"), &read[..]),
    };
    ensure!(
        !items.is_empty(),
        "there is nothing to judge: every answer of {} is empty, or ends within a thought",
        items_path.display()
    );
    let prompts = JudgePrompts::read(args.prompts.as_deref(), &tasks, &args.axes)?;
    let (key, note) = ApiKey::from_vars(args.key_env.as_deref(), &endpoint, |name| std::env::var_os(name))?;
    let judging = JudgeRun {
        items_path,
        items,
        sweep: sweep.as_ref(),
        endpoint: &endpoint,
        key: &key,
        model: &args.model,
        max_tokens: args.max_tokens,
        prompts: &prompts,
        prompts_dir: args.prompts.as_deref(),
        patience: args.patience(),
        cache: args.cache.as_deref(),
        stop: Some(ui::stop_on_interrupt()),
    };
    if args.dry_run {
        let dry = dry_judge(&judging, &args.out)?;
        ui::put(&if args.json { format!("{}\n", serde_json::to_string(&dry)?) } else { dry.text() })?;
        return Ok(Done::Well);
    }
    if let Some(note) = note {
        ui::say(&note);
    }
    let JudgeDone { report, outcomes } = judge_run(&judging, &args.out, &mut ui::Bars::default())?;
    if args.json {
        ui::put_json(&report)?;
    } else {
        let tables = outcomes.as_ref().map_or_else(String::new, |outcomes| format!("\n{}", sweep_markdown(outcomes)));
        ui::put(&(report.text() + &tables))?;
    }
    // Those of a sweep hold the judge's; the tables above have them too.
    ui::warn(&outcomes.as_ref().filter(|_| args.json).map_or(report.warnings, Outcomes::warnings));
    ui::say(&format!("wrote      {}", args.out.join("judged.jsonl").display()));
    if outcomes.is_some() {
        ui::say(&format!("report     {}", args.out.join("report.html").display()));
    }
    Ok(if report.complete { Done::Well } else { Done::CheckFailed })
}
