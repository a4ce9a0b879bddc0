//! The verb `attribute`: one pass over the texts, any number of dispositions, in a directory of its own.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use headtemper_engine::{Encoded, Engine, HeadsWanted};
use headtemper_hook::{LAMBDAS, is_lambda};
use serde_json::json;

use crate::{
    AttributeOptions, CaptureOptions, Cohorts, Controls, DispositionSpec, Item, ItemFacts, Outcome, Parts, Progress,
    Result, RunDir, StudyError,
    attribute::{
        LEVEL, STATISTICS, dd,
        items::AttributeItems,
        results::{ATTRIBUTION_FILES, write_attribution, write_heads},
        rule,
    },
    attribution::{Attribution, Skipped},
    capture::{encode, named_items},
    items::{
        cohort::{label_counts, labels},
        dispositions::LEAST,
    },
    report::{self, Page},
    store::{
        digest::digest,
        files::{read_json, write_json, write_text},
    },
    tables::attribution_markdown,
};

/// What `temper attribute` is asked for.
pub struct AttributeRun<'a> {
    /// Where the items came from.
    pub items_path: &'a Path,
    /// What is compared.
    pub specs: Vec<DispositionSpec>,
    /// Whether a disposition that the items cannot fill is passed over, and not an error.
    pub pass_over: bool,
    /// Heads are averaged over so many of the last response tokens.
    pub last_n: usize,
    /// How heads are compared.
    pub options: AttributeOptions,
    /// The same where there is nothing to find.
    pub controls: Controls,
    /// Attributions of other models to be set beside this one.
    pub beside: Vec<PathBuf>,
    /// How many heads of each disposition the head lists hold.
    pub top: usize,
    /// λ of the head lists.
    pub lambda: Option<f32>,
    /// Set from outside, stops after the current batch.
    pub stop: Option<&'a AtomicBool>,
}

/// The items that have a place in any cohort, as tokens, and the cohorts over them.
struct Chosen {
    items: Vec<Item>,
    encoded: Vec<Encoded>,
    specs: Vec<DispositionSpec>,
    cohorts: Vec<Cohorts>,
    skipped: Vec<Skipped>,
    /// Items that were dropped because the scripts drop them.
    dropped: usize,
}

/// Captures items that bring their responses, ranks the heads of every disposition and writes the report.
///
/// # Errors
/// If an item has no response, a cohort is too small, or the directory belongs to another run.
pub fn attribute_run(
    engine: &Engine,
    items: &[Item],
    settings: &AttributeRun<'_>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<Outcome> {
    settings.check()?;
    settings.options.heads.check(engine.spec())?;
    let others = settings.beside.iter().map(|path| read_json(path)).collect::<Result<Vec<Attribution>>>()?;
    // Every refusal comes before the first file.
    let chosen = settings.choose(engine, items)?;
    let parts = settings.parts(engine, &chosen, &others);
    let key = digest(&(parts.key(), STATISTICS));
    let mut run = RunDir::open(dir, "attribute", &parts, None, progress)?;
    let files: Vec<&str> = ["report.html", "report.json", "report.md"].into_iter().chain(ATTRIBUTION_FILES).collect();
    let attribution = if run.finished("attribute", &key, &files) {
        progress.note("attribute  nothing left to do");
        read_json(&run.file("attribution.json"))?
    } else {
        let work = AttributeItems {
            engine,
            items: &chosen.items,
            encoded: &chosen.encoded,
            specs: &chosen.specs,
            cohorts: &chosen.cohorts,
            capture: CaptureOptions {
                heads: HeadsWanted::Vector,
                last_n: settings.last_n,
                stop: settings.stop,
                ..Default::default()
            },
            options: settings.options.clone(),
            controls: settings.controls,
        };
        let (mut attribution, features) = work.attribute(&others, progress)?;
        attribution.skipped.clone_from(&chosen.skipped);
        write_attribution(&run, &attribution, &features)?;
        run.note("identity", engine.identity())?;
        attribution
    };
    // Made from that alone, and from a finished one too: what somebody removed is there again.
    if settings.options.compat_dd {
        dd::write(&run, &attribution)?;
    }
    write_heads(&run, &attribution, settings.top, settings.lambda)?;
    let said = Said::of(&attribution, chosen.said_dropped());
    write_report(&run, engine, items, settings, &attribution, &said)?;
    run.finish("attribute", &key, json!({"items": chosen.items.len()}))?;
    let Said { warnings, text, .. } = said;
    let of_dispositions = attribution.dispositions.iter().flat_map(|disposition| disposition.warnings.iter().cloned());
    Ok(Outcome { text, warnings: warnings.into_iter().chain(of_dispositions).collect(), check_failed: false })
}

impl AttributeRun<'_> {
    /// Refuses what has no meaning for any model and any items.
    ///
    /// # Errors
    /// Names the setting and what would have been allowed.
    pub fn check(&self) -> Result<()> {
        self.options.check()?;
        let refused = |what: &str, found: String, allowed: &str| Err(StudyError::option(what, found, allowed));
        match (self.last_n, self.top, self.lambda) {
            (0, ..) => refused("last_n", "0".into(), "at least 1"),
            (_, 0, _) => refused("top", "0".into(), "at least 1"),
            (_, _, Some(lambda)) if !is_lambda(lambda) => refused("--lambda", lambda.to_string(), LAMBDAS),
            _ => Ok(()),
        }
    }

    /// The cohorts, and the items in them as tokens.
    fn choose(&self, engine: &Engine, items: &[Item]) -> Result<Chosen> {
        let (specs, cohorts, skipped) = self.fill(self.specs.clone(), items)?;
        let members: BTreeSet<usize> = cohorts.iter().flat_map(|c| c.a.iter().chain(&c.b)).copied().collect();
        // Items of no cohort take no part; reading them would cost and tell nothing.
        let chosen: Vec<Item> = members.iter().map(|&row| items[row].clone()).collect();
        let silent = |item: &&Item| item.response.is_none() && !matches!(item.input, headtemper_engine::Input::Ids(_));
        if let Some(item) = chosen.iter().find(silent) {
            let why = format!("item '{}' has no response; attribution reads prompt and response", item.id);
            return Err(StudyError::content(self.items_path, why));
        }
        let encoded = if self.options.compat_dd { encode_joined(engine, &chosen)? } else { encode(engine, &chosen)? };
        let enough = |e: &Encoded| !self.options.compat_dd || e.ids.len() >= e.prompt_len + dd::LEAST_RESPONSE;
        let (items, encoded): (Vec<Item>, Vec<Encoded>) =
            chosen.into_iter().zip(encoded).filter(|(_, encoded)| enough(encoded)).unzip();
        let dropped = members.len() - items.len();
        let (specs, cohorts, late) = self.fill(specs, &items)?;
        let skipped = skipped.into_iter().chain(late).collect();
        let facts: Vec<ItemFacts> = items.iter().map(ItemFacts::of).collect();
        cohorts.iter().try_for_each(|cohorts| self.options.check_fields(Some(cohorts), &facts))?;
        Ok(Chosen { items, encoded, specs, cohorts, skipped, dropped })
    }

    /// The dispositions whose cohorts the items fill, and why the others are passed over.
    fn fill(
        &self,
        specs: Vec<DispositionSpec>,
        items: &[Item],
    ) -> Result<(Vec<DispositionSpec>, Vec<Cohorts>, Vec<Skipped>)> {
        let (mut filled, mut cohorts, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for spec in specs {
            match spec.cohorts(items, LEAST) {
                Ok(found) => {
                    cohorts.push(found);
                    filled.push(spec);
                }
                Err(why) if self.pass_over => skipped.push(Skipped { name: spec.name, why: why.to_string() }),
                Err(why) => return Err(why),
            }
        }
        match skipped.first() {
            Some(first) if filled.is_empty() => {
                let (count, name, why) = (skipped.len(), first.name.clone(), first.why.clone());
                Err(StudyError::NoCohorts { count, name, why })
            }
            _ => Ok((filled, cohorts, skipped)),
        }
    }

    fn parts(&self, engine: &Engine, chosen: &Chosen, others: &[Attribution]) -> Parts {
        let compared: Vec<_> = chosen
            .specs
            .iter()
            .zip(&chosen.cohorts)
            .map(|(spec, cohorts)| {
                let ids = |rows: &[usize]| rows.iter().map(|&row| chosen.items[row].id.clone()).collect::<Vec<_>>();
                let texts = [&spec.means, &spec.source, &spec.a.name, &spec.b.name];
                (
                    &spec.name,
                    texts,
                    spec.a.holds.to_string(),
                    spec.b.holds.to_string(),
                    ids(&cohorts.a),
                    ids(&cohorts.b),
                )
            })
            .collect();
        // Confounds and strata are read from the other fields.
        let items: Vec<_> = named_items(&chosen.items, &chosen.encoded)
            .into_iter()
            .zip(&chosen.items)
            .map(|((id, tokens), item)| (id, digest(&(tokens, ItemFacts::of(item).fields))))
            .collect();
        Parts::of(engine.identity())
            .with_raw(&chosen.items)
            .with("items", items)
            .with("dispositions", compared)
            .with("last_n", self.last_n)
            .with("method", self.options.method())
            .with("controls", (self.controls.shuffled, self.controls.random))
            .with("beside", others.iter().map(|other| (&other.model, digest(other))).collect::<Vec<_>>())
            .with("top", (self.top, self.lambda))
    }
}

impl Chosen {
    /// What a reader must know of the items that take no part.
    fn said_dropped(&self) -> Vec<String> {
        let (dropped, least) = (self.dropped, dd::LEAST_RESPONSE);
        let said = format!("{dropped} items with fewer than {least} response tokens were dropped, as --compat dd does");
        if dropped > 0 { vec![said] } else { Vec::new() }
    }
}

/// What was passed over, and how much chance there is: the page has a section of its own for it.
fn of_chance(attribution: &Attribution) -> Vec<String> {
    let mut warnings = Vec::new();
    if !attribution.skipped.is_empty() {
        let names: Vec<&str> = attribution.skipped.iter().map(|skipped| skipped.name.as_str()).collect();
        warnings.push(format!("not attributed on these items: {}", names.join(", ")));
    }
    let asked = attribution.dispositions.len();
    if asked > 1 {
        warnings.push(format!(
            "{asked} dispositions were asked two questions each at {:.0} %: without any signal {:.1} of the {} would find \
             a head by chance",
            100.0 * LEVEL,
            2.0 * asked as f64 * LEVEL,
            2 * asked
        ));
    }
    warnings
}

/// An attribution as people read it: in the terminal and in the report.
struct Said {
    /// Of the items that take no part.
    dropped: Vec<String>,
    /// That, what was passed over, and how much chance there is.
    warnings: Vec<String>,
    /// The tables, with these warnings behind them.
    text: String,
}

impl Said {
    fn of(attribution: &Attribution, dropped: Vec<String>) -> Self {
        let warnings: Vec<String> = dropped.iter().cloned().chain(of_chance(attribution)).collect();
        let tables = attribution_markdown(attribution, 10);
        let text = warnings.iter().fold(tables, |text, warning| text + "warning: " + warning + "\n");
        Self { dropped, warnings, text }
    }
}

/// Items as the scripts tokenise them.
fn encode_joined(engine: &Engine, items: &[Item]) -> Result<Vec<Encoded>> {
    let encode = |item: &Item| {
        let response = item.response.as_deref().unwrap_or_default();
        Ok(engine.encode_joined(&format!("item '{}'", item.id), &item.input, response, dd::MAX_TOKENS)?)
    };
    items.iter().map(encode).collect()
}

/// Writes `report.html`, `report.json` and `report.md`.
fn write_report(
    run: &RunDir,
    engine: &Engine,
    items: &[Item],
    settings: &AttributeRun<'_>,
    attribution: &Attribution,
    Said { dropped, warnings, text }: &Said,
) -> Result<()> {
    let counts: Vec<(String, usize)> = label_counts(&labels(items)).into_iter().collect();
    let (identity, options) = (engine.identity(), &settings.options);
    let method = &attribution.method;
    let mut facts = vec![
        ("model", identity.model.clone()),
        ("weights (SHA-256)", identity.weights_sha256.clone()),
        ("held in", identity.held_in()),
        ("items", format!("{} of {}", items.len(), settings.items_path.display())),
        ("heads", format!("{}, averaged over the last {} response tokens", method.heads, attribution.last_n)),
        ("labels shuffled", format!("{} times, seed {}", options.shuffles, options.seed)),
        ("cross-fit", format!("{} folds, dealt {} times", options.folds, options.repeats)),
        ("intervals", format!("bootstrap, {} resamples within the cohorts", options.resamples)),
    ];
    if let Some(field) = &options.within {
        facts.push(("within", format!("values of {field}: taken out, and labels shuffled among items of one value")));
    }
    if let Some(field) = &options.groups {
        facts.push((
            "groups",
            format!("items of one {field} stay together: labels shuffled, items dealt and drawn by whole groups"),
        ));
    }
    if options.adjust_length {
        facts.push(("adjusted for", "the length of the response and its logarithm".into()));
    }
    if options.compat_dd {
        facts.push(("arithmetic", "that of the scripts of arXiv 2604.11867 (--compat dd)".into()));
    }
    facts.extend(attribution.controls.iter().map(|control| ("control", format!("{}: {}", control.name, control.how))));
    facts.push(("version", format!("headtemper {}", identity.version)));
    let facts: Vec<(String, String)> = facts.into_iter().map(|(name, value)| (name.into(), value)).collect();
    let title = match &attribution.dispositions[..] {
        [one] => one.name.clone(),
        several => format!("{} dispositions", several.len()),
    };
    let page = Page {
        title: &title,
        facts: &facts,
        counts: if attribution.dispositions.len() == 1 { &counts } else { &[] },
        warnings: dropped,
        model: &attribution.model,
        heads_per_layer: &attribution.heads_per_layer,
        attribution: Some(attribution),
        sweep: None,
        examples: &[],
    };
    write_text(&run.file("report.html"), &report::render(&page))?;
    let document = json!({
        "schema": "report/v1", "title": title, "facts": facts, "warnings": warnings, "rule": rule(),
        "attribution": attribution,
    });
    write_json(&run.file("report.json"), &document)?;
    let facts: String = facts.iter().map(|(name, value)| format!("- {name}: {value}\n")).collect();
    write_text(&run.file("report.md"), &format!("# {title}\n\n{text}\n{}\n\n{facts}", rule()))
}
