//! `temper capture`: a data set's hidden states and heads, as one .npz.

use anyhow::Result;
use headtemper_engine::{HeadsWanted, Keep};
use headtemper_study::{
    CaptureJob, CaptureOptions, capture_file, check_layers, check_rows, count, dry_capture, parse_layers,
};
use serde_json::json;

use crate::{
    Done,
    args::{Capture, Heads},
    model, ui,
};

pub(crate) fn run(args: &Capture) -> Result<Done> {
    let items = model::item_file(&args.items)?;
    let answering = args.answers.answering()?;
    let parent = args.out.parent().filter(|p| !p.as_os_str().is_empty());
    if let Some(parent) = parent {
        anyhow::ensure!(
            parent.is_dir(),
            "cannot write {}: {} is no directory\nhint: make it first",
            args.out.display(),
            parent.display()
        );
    }
    anyhow::ensure!(!args.out.is_dir(), "cannot write {}: it is a directory; give a .npz file", args.out.display());
    let keep = Keep {
        layers: Vec::new(),
        mean_layers: args.mean_layers,
        pool: args.pool,
        heads: match args.heads {
            Heads::None => HeadsWanted::None,
            Heads::Norm => HeadsWanted::Norm,
            Heads::Vector => HeadsWanted::Vector,
        },
        last_n: args.last_n,
        logits: args.logits,
    };
    let options = CaptureOptions { keep: keep.clone(), memory: args.batch.memory()?, ..CaptureOptions::default() };
    let (shard, part_items) = (args.shard.shard, args.part_items);
    let (out, answers) = (&*args.out, args.answers.answers.as_deref());
    let job = CaptureJob { items: &items, options: &options, answering, shard, part_items, out, answers };
    // What needs no model is refused before one is opened, which may take minutes.
    job.check()?;
    check_layers(&args.layers)?;
    model::check_plan(&args.plan)?;
    if let Some(text) = &args.plan.plan {
        check_rows(text, || Ok(items.read(0..items.len())?.into_iter().map(|item| item.id).collect()))?;
    }
    let engine = model::open(&args.model, args.items.thinking)?;
    let options = CaptureOptions {
        keep: Keep { layers: parse_layers(&args.layers, engine.spec().layers.len())?, ..keep },
        plans: model::plans_of(&args.plan, engine.spec(), Some(engine.identity()))?,
        max_rows: if args.answers.generate {
            args.batch.max_rows(&engine)
        } else {
            args.batch.asked_rows().unwrap_or(usize::MAX)
        },
        stop: Some(ui::stop_on_interrupt()),
        ..options
    };
    let job = CaptureJob { options: &options, ..job };
    let mut bars = ui::Bars::default();
    if args.dry_run {
        return ui::dry(&dry_capture(&engine, &job, &mut bars)?, args.json);
    }
    let done = capture_file(&engine, &job, &mut bars)?;
    let (n, d, layers, fired) = (done.items, done.d_model, done.layers, done.fired_tokens);
    let wrote = if fired.is_some() { "wrote" } else { "there" };
    let mut arrays = format!("h_last [{n}, {d}]");
    if layers > 0 {
        arrays += &format!(", h_layers [{n}, {layers}, {d}]");
    }
    if args.mean_layers.is_some() {
        arrays += &format!(", h_mean [{n}, {d}]");
    }
    ui::say(&format!("{wrote:<10} {}: {}, {arrays}", args.out.display(), count(n, "item")));
    if let (Some(path), Some(answers)) = (answers, done.answers) {
        ui::say(&format!(
            "answers    {}: {}{}",
            path.display(),
            count(answers.items, "item"),
            left_out(answers.silent)
        ));
    }
    if let Some(measured) = &done.generated_vs_forced {
        ui::say(&format!("generated  {}", measured.text()));
    }
    if let Some(cut) = done.truncated.filter(|&cut| cut > 0) {
        ui::warn(&[format!(
            "{cut} of {n} responses were cut off at the limit of tokens: their last tokens are no ends"
        )]);
    }
    ui::say_peak();
    if let Some(fired) = fired.filter(|&fired| fired > 0) {
        ui::say(&format!("plan       fired on {fired} head-tokens"));
    }
    if args.json {
        let mut summary = json!({"out": args.out.display().to_string(), "items": n, "d_model": d, "layers": layers, "fired_tokens": fired});
        if let Some(cut) = done.truncated {
            summary["truncated"] = json!(cut);
        }
        if let (Some(path), Some(written)) = (answers, done.answers) {
            summary["answers"] =
                json!({"out": path.display().to_string(), "items": written.items, "silent": written.silent});
        }
        if let Some(measured) = &done.generated_vs_forced {
            summary["generated_vs_forced"] = json!(measured);
        }
        ui::put(&format!("{summary}\n"))?;
    }
    Ok(Done::Well)
}

/// What is said of items whose answers are empty.
fn left_out(silent: usize) -> String {
    match silent {
        0 => String::new(),
        1 => "; 1 is left out, whose answer says nothing".into(),
        _ => format!("; {silent} are left out, whose answers say nothing"),
    }
}
