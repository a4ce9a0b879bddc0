//! `temper attribute`: ranks heads between the cohorts of one or many dispositions, and writes a report.

use anyhow::Result;
use headtemper_engine::Keep;
use headtemper_study::{
    Adjust, AttributeOptions, AttributeRun, AttributeSource, Compat, Controls, DispositionSpec, HeadChoice,
    attribute_run, attribution::Attribution, named, read_dispositions,
};

use crate::{
    Done,
    args::{Attribute, ControlOf, HeadsOf},
    model, ui,
};

pub(crate) fn run(args: &Attribute) -> Result<Done> {
    model::check_out(&args.out)?;
    let compat = args.compat.map_or(Compat::None, |_| Compat::Dd);
    let mut settings = AttributeRun {
        from: args.items.from(),
        specs: specs(args)?,
        pass_over: args.dispositions.is_some() && args.only.is_empty(),
        last_n: args.last_n.unwrap_or(Keep::LAST_N),
        options: AttributeOptions {
            heads: match args.heads {
                // The paper's scripts know attention heads only.
                None if compat == Compat::Dd => HeadChoice::Attn,
                None | Some(HeadsOf::All) => HeadChoice::All,
                Some(HeadsOf::Attn) => HeadChoice::Attn,
                Some(HeadsOf::Linear) => HeadChoice::Linear,
            },
            adjust: args.adjust.map_or(Adjust::None, |_| Adjust::Length),
            within: args.within.clone(),
            groups: args.groups.groups.clone(),
            compat,
            shuffles: args.shuffles,
            folds: args.folds,
            repeats: args.repeats,
            resamples: args.resamples,
            seed: args.seed,
        },
        controls: Controls {
            shuffled: args.control.contains(&ControlOf::Shuffled),
            random: args.control.contains(&ControlOf::Random).then_some(args.seed),
        },
        beside: args.beside.iter().map(|path| Attribution::read(path)).collect::<Result<_, _>>()?,
        top: args.top,
        lambda: args.lambda,
        stop: None,
    };
    settings.check()?;
    let items = model::items(&args.items)?;
    settings.check_items(&items)?;
    let engine = args.model().map(|model| model::open(&model, args.items.thinking)).transpose()?;
    let source = match (&engine, &args.features) {
        (Some(engine), _) => AttributeSource::Model(engine),
        (None, Some(path)) => AttributeSource::Capture(path),
        (None, None) => unreachable!("a model is required where there are no features"),
    };
    // Set only now: before this point an interrupt should end the process at once.
    settings.stop = Some(ui::stop_on_interrupt());
    let outcome = attribute_run(source, &items, &settings, &args.out, &mut ui::Bars::default())?;
    ui::finish(&outcome, &args.out, if args.json { Some("attribution.json") } else { None })
}

/// What is compared: a file's dispositions, or two labels.
fn specs(args: &Attribute) -> Result<Vec<DispositionSpec>> {
    if let Some(path) = &args.dispositions {
        return Ok(named(read_dispositions(path)?, &args.only)?);
    }
    let (a, b) = (args.a.as_deref().unwrap_or_default(), args.b.as_deref().unwrap_or_default());
    let name = args.name.clone().unwrap_or_else(|| format!("{a} against {b}"));
    Ok(vec![DispositionSpec::of_labels(&name, a, b)?])
}
