//! `temper judge`: labels from a judge behind an OpenAI-compatible endpoint.

use anyhow::{Result, ensure};
use headtemper_study::{ApiKey, Endpoint, JudgePrompts, JudgeRun, JudgeTask, dry_judge, judge_run, read_items};

use crate::{Done, args::Judge, ui};

pub(crate) fn run(args: &Judge) -> Result<Done> {
    let mut tasks: Vec<JudgeTask> = args.tasks.iter().map(|task| task.task()).collect();
    tasks.sort_unstable();
    tasks.dedup();
    ensure!(
        args.axes.is_empty() || tasks.contains(&JudgeTask::Rubric),
        "--axes are those of the rubric, which --tasks does not name"
    );
    ensure!(!args.model.trim().is_empty(), "--judge-model is empty, but must be what the server calls the model");
    let endpoint = Endpoint::parse(&args.endpoint)?;
    let mut items = read_items(&args.items, false)?;
    items.truncate(args.limit.unwrap_or(usize::MAX));
    ensure!(!items.is_empty(), "--limit is 0, but must be at least 1");
    let prompts = JudgePrompts::read(args.prompts.as_deref(), &tasks, &args.axes)?;
    let (key, note) = ApiKey::from_vars(args.key_env.as_deref(), &endpoint, |name| std::env::var_os(name))?;
    let judging = JudgeRun {
        items_path: &args.items,
        items: &items,
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
    let report = judge_run(&judging, &args.out, &mut ui::Bars::default())?;
    if args.json {
        ui::put_json(&report)?;
    } else {
        ui::put(&report.text())?;
    }
    ui::warn(&report.warnings);
    ui::say(&format!("wrote      {}", args.out.join("judged.jsonl").display()));
    Ok(if report.complete { Done::Well } else { Done::CheckFailed })
}
