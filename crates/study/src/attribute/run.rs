//! The verb `attribute`: one pass over the texts, any number of dispositions, in a directory of its own.

use std::{collections::BTreeSet, path::Path, sync::atomic::AtomicBool};

use headtemper_engine::Encoded;
use headtemper_hook::{LAMBDAS, is_lambda};
use serde_json::json;

use crate::{
    Adjust, AttributeOptions, Cohorts, Compat, Controls, DispositionSpec, Item, ItemFacts, ItemsFrom, Parts, Progress,
    Result, RunDir, RunSummary, StudyError, TopHeads,
    attribute::{
        AttributeSource, LEVEL, STATISTICS, dd,
        items::AttributeItems,
        no_ends,
        results::{ATTRIBUTION_FILES, write_attribution, write_heads},
        rule,
        source::{Source, Texts},
    },
    attribution::attribution_markdown,
    attribution::{Attribution, Control, Skipped},
    capture::{leaves_ids, left_ids},
    items::{
        cohort::{label_counts, labels},
        dispositions::LEAST,
    },
    report::{self, Facts, Page},
    store::{
        digest::digest,
        files::{write_json, write_text},
    },
};

/// What `temper attribute` is asked for.
pub struct AttributeRun<'a> {
    /// Where the items came from.
    pub from: ItemsFrom<'a>,
    /// What is compared.
    pub specs: Vec<DispositionSpec>,
    /// Whether a disposition that the items cannot fill is passed over instead of being an error.
    pub pass_over: bool,
    /// How many of the last response tokens heads are averaged over; in a capture they are averaged already.
    pub last_n: usize,
    /// How heads are compared.
    pub options: AttributeOptions,
    /// The same where there is nothing to find.
    pub controls: Controls,
    /// Attributions of other models to be set beside this one.
    pub beside: Vec<Attribution>,
    /// How many heads of each disposition the head lists hold.
    pub top: TopHeads,
    /// λ of the head lists.
    pub lambda: Option<f32>,
    /// Set from outside, stops after the current batch.
    pub stop: Option<&'a AtomicBool>,
}

/// The items that have a place in any cohort, as their source gives them, and the cohorts over them.
struct Chosen<'a> {
    items: Vec<Item>,
    facts: Vec<ItemFacts>,
    texts: Texts<'a>,
    specs: Vec<DispositionSpec>,
    cohorts: Vec<Cohorts>,
    skipped: Vec<Skipped>,
    /// Items that were dropped because the scripts drop them.
    dropped: usize,
}

/// Reads items that bring their responses, or what a capture kept of them, ranks the heads of every disposition and writes the
/// report.
///
/// # Errors
/// If an item has no response or was not captured, a cohort is too small, or the directory belongs to another run.
pub fn attribute_run(
    source: AttributeSource<'_>,
    items: &[Item],
    settings: &AttributeRun<'_>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<RunSummary> {
    settings.check()?;
    settings.check_for(source)?;
    let source = Source::open(source)?;
    // Every refusal comes before the first file.
    let chosen = settings.choose(&source, items)?;
    let parts = settings.parts(&source, &chosen);
    if let Some(told) = source.told(chosen.items.len()) {
        progress.note(&told);
    }
    if let Some(note) = settings.left_ids(&chosen) {
        progress.note(&note);
    }
    let (said_dropped, count) = (chosen.said_dropped(), chosen.items.len());
    // Labels are written down beside the numbers, also where other fields make the cohorts.
    let labels: Vec<_> = chosen.items.iter().map(|item| &item.label).collect();
    let key = digest(&(parts.key(), STATISTICS, labels));
    // Nothing has to be computed anew to say why other dispositions are passed over now.
    let skipped = chosen.skipped.clone();
    let worded = |found: Attribution| {
        let attribution = Attribution { skipped: skipped.clone(), ..found };
        let warnings = Said::of(&attribution, said_dropped.clone()).warnings;
        Attribution { warnings, ..attribution }
    };
    let mut run = RunDir::open(dir, "attribute", &parts, None, progress)?;
    let attribution = if run.finished("attribute", &key, &ATTRIBUTION_FILES, progress) {
        progress.note("attribute  nothing left to do");
        let path = run.file("attribution.json");
        let found = Attribution::read(&path)?;
        let attribution = worded(found.clone());
        if (&attribution.skipped, &attribution.warnings) != (&found.skipped, &found.warnings) {
            write_json(&path, &attribution)?;
        }
        attribution
    } else {
        let Chosen { items, facts, texts, specs, cohorts, .. } = chosen;
        let read = texts.read(&items, settings, progress)?;
        let work = AttributeItems {
            read: &read,
            facts: &facts,
            specs: &specs,
            cohorts: &cohorts,
            options: settings.options.clone(),
            shuffled: settings.controls.shuffled,
            stop: settings.stop,
        };
        let attribution = worded(work.attribute(&settings.beside, progress)?);
        write_attribution(&run, &attribution, &read.features)?;
        run.note("identity", source.identity())?;
        attribution
    };
    // Made from the attribution alone, even if it was finished earlier: files that somebody removed are there again.
    if settings.options.compat == Compat::Dd {
        dd::write(&run, &attribution)?;
    }
    let said = Said::of(&attribution, said_dropped);
    write_report(&run, &source, items, settings, &attribution, &said)?;
    write_heads(&run, &attribution, settings.top, settings.lambda)?;
    run.finish("attribute", &key, &ATTRIBUTION_FILES, json!({"items": count}))?;
    let Said { warnings, text, .. } = said;
    let of_dispositions = attribution.dispositions.iter().flat_map(|disposition| disposition.warnings.iter().cloned());
    Ok(RunSummary { text, warnings: warnings.into_iter().chain(of_dispositions).collect(), check_failed: false })
}

impl AttributeRun<'_> {
    /// Refuses settings without meaning for any model and any items.
    ///
    /// # Errors
    /// Names the setting and what would have been allowed.
    pub fn check(&self) -> Result<()> {
        self.options.check()?;
        if self.options.compat == Compat::Dd {
            dd::check_names(self.specs.iter().map(|spec| spec.name.as_str()))?;
        }
        let refused = |what: &str, found: String, allowed: &str| Err(StudyError::option(what, found, allowed));
        match (self.last_n, self.top.count, self.lambda) {
            (0, ..) => refused("last_n", "0".into(), "at least 1"),
            (_, 0, _) => refused("top", "0".into(), "at least 1"),
            (_, _, Some(lambda)) if !is_lambda(lambda) => refused("--lambda", lambda.to_string(), LAMBDAS),
            _ => Ok(()),
        }
    }

    /// Refuses what cannot be compared whatever reads it, so that no model has to be opened first.
    ///
    /// # Errors
    /// If a cohort is too small, an item has no response, or no item has a field that is named.
    pub fn check_items(&self, items: &[Item]) -> Result<()> {
        let (specs, cohorts, _) = self.fill(self.specs.clone(), items, items)?;
        let chosen = self.members(&cohorts, items)?;
        let (_, cohorts, _) = self.fill(specs, &chosen, items)?;
        let facts: Vec<ItemFacts> = chosen.iter().map(ItemFacts::of).collect();
        cohorts.iter().try_for_each(|cohorts| self.options.check_fields(Some(cohorts), &facts))
    }

    /// The items of any cohort, each with a response.
    fn members(&self, cohorts: &[Cohorts], items: &[Item]) -> Result<Vec<Item>> {
        let members: BTreeSet<usize> = cohorts.iter().flat_map(|c| c.a.iter().chain(&c.b)).copied().collect();
        // Items of no cohort take no part: reading them would cost time and tell nothing.
        let chosen: Vec<Item> = members.iter().map(|&row| items[row].clone()).collect();
        match chosen.iter().find(|item| item.is_silent()) {
            None => Ok(chosen),
            Some(item) => {
                let why = format!("item '{}' has no response; attribution reads prompt and response", item.id);
                Err(StudyError::content(self.from.path, why))
            }
        }
    }

    /// Whether items bring tokens of their response that they are not read by. The paper's scripts know no such tokens.
    fn left_ids(&self, chosen: &Chosen<'_>) -> Option<String> {
        let Texts::Encoded(_, encoded) = &chosen.texts else { return None };
        let pairs = chosen.items.iter().zip(encoded).filter(|_| self.options.compat != Compat::Dd);
        left_ids(pairs.filter(|(item, encoded)| leaves_ids(item, encoded)).count(), chosen.items.len())
    }

    /// Refuses what needs a model where there is none.
    fn check_for(&self, source: AttributeSource<'_>) -> Result<()> {
        let refused = |what: &str, found: &str, allowed: &str| Err(StudyError::option(what, found, allowed));
        let captured = matches!(source, AttributeSource::Capture(_));
        if captured && self.controls.random.is_some() {
            let allowed = "shuffled, or left out, for a capture: random weights would have to read the texts";
            return refused("--control", "random", allowed);
        }
        if captured && self.options.compat == Compat::Dd {
            let allowed = "left out for a capture: the scripts tokenise texts in their own way";
            return refused("--compat", "dd", allowed);
        }
        Ok(())
    }

    /// The cohorts, and the items in them as their source has them.
    fn choose<'a>(&self, source: &Source<'a>, items: &[Item]) -> Result<Chosen<'a>> {
        let file = items;
        let (specs, cohorts, skipped) = self.fill(self.specs.clone(), file, file)?;
        let chosen = self.members(&cohorts, file)?;
        let members = chosen.len();
        let enough = |e: &Encoded| e.ids.len() >= e.prompt_len + dd::LEAST_RESPONSE;
        let (items, texts) = match source.texts(&chosen, self.options.compat)? {
            Texts::Encoded(engine, encoded) if self.options.compat == Compat::Dd => {
                let (items, encoded) = chosen.into_iter().zip(encoded).filter(|(_, encoded)| enough(encoded)).unzip();
                (items, Texts::Encoded(engine, encoded))
            }
            texts => (chosen, texts),
        };
        self.options.heads.check(&texts.slots())?;
        let dropped = members - items.len();
        let (specs, cohorts, late) = self.fill(specs, &items, file)?;
        let skipped = skipped.into_iter().chain(late).collect();
        let facts = source.facts(&items)?;
        cohorts.iter().try_for_each(|cohorts| self.options.check_fields(Some(cohorts), &facts))?;
        Ok(Chosen { items, facts, texts, specs, cohorts, skipped, dropped })
    }

    /// The dispositions whose cohorts the items, some of the file's, fill, and why the others are passed over.
    fn fill(
        &self,
        specs: Vec<DispositionSpec>,
        items: &[Item],
        file: &[Item],
    ) -> Result<(Vec<DispositionSpec>, Vec<Cohorts>, Vec<Skipped>)> {
        let (mut filled, mut cohorts, mut skipped) = (Vec::new(), Vec::new(), Vec::new());
        for spec in specs {
            match spec.check_fields(file).and_then(|()| spec.cohorts(items, LEAST)) {
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

    fn parts(&self, source: &Source<'_>, chosen: &Chosen<'_>) -> Parts {
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
        let parts = match source {
            Source::Model(_) => Parts::of(source.identity()).with_raw(&chosen.items),
            Source::Capture(_) => Parts::of(source.identity()).with("read", "from a capture"),
        };
        // Confounds and strata are read from the other fields.
        let read = chosen.texts.named(&chosen.items).into_iter().zip(&chosen.facts);
        let items: Vec<_> = read.map(|((id, read), facts)| (id, digest(&(read, &facts.fields)))).collect();
        parts
            .with("items", items)
            .with("dispositions", compared)
            .with("last_n", source.last_n(self.last_n))
            .with("method", &self.options)
            .with("controls", (self.controls.shuffled, self.controls.random))
            .with("beside", self.beside.iter().map(|other| (&other.model, digest(other))).collect::<Vec<_>>())
            .with("top", (self.top, self.lambda))
    }
}

impl Chosen<'_> {
    /// What a reader must know about the items that were dropped.
    fn said_dropped(&self) -> Vec<String> {
        let (dropped, least) = (self.dropped, dd::LEAST_RESPONSE);
        let said = format!("{dropped} items with fewer than {least} response tokens were dropped, as --compat dd does");
        if dropped > 0 { vec![said] } else { Vec::new() }
    }
}

/// What was passed over, and how much chance alone would find: the page has a section of its own for this.
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
             a head by chance, and up to {:.1} where p max and q find other heads",
            100.0 * LEVEL,
            2.0 * asked as f64 * LEVEL,
            2 * asked,
            4.0 * asked as f64 * LEVEL
        ));
    }
    warnings
}

/// An attribution for people to read, in the terminal and in the report.
struct Said {
    /// About dropped items, and about responses whose ends are unknown.
    page: Vec<String>,
    /// The same, and what [`of_chance`] says.
    warnings: Vec<String>,
    /// The tables, followed by these warnings.
    text: String,
}

impl Said {
    fn of(attribution: &Attribution, dropped: Vec<String>) -> Self {
        let page: Vec<String> = dropped.into_iter().chain(no_ends(&attribution.dispositions)).collect();
        let warnings: Vec<String> = page.iter().cloned().chain(of_chance(attribution)).collect();
        let tables = attribution_markdown(attribution, 10);
        let text = warnings.iter().fold(tables, |text, warning| text + "warning: " + warning + "\n");
        Self { page, warnings, text }
    }
}

/// Writes `report.html`, `report.json` and `report.md`.
fn write_report(
    run: &RunDir,
    source: &Source<'_>,
    items: &[Item],
    settings: &AttributeRun<'_>,
    attribution: &Attribution,
    Said { page: of_page, warnings, text }: &Said,
) -> Result<()> {
    let counts: Vec<(String, usize)> = label_counts(&labels(items)).into_iter().collect();
    let (identity, options) = (source.identity(), &settings.options);
    let method = &attribution.method;
    let within = |field| format!("values of {field}: taken out, and labels shuffled among items of one value");
    let groups =
        |field| format!("items of one {field} stay together: labels shuffled, items dealt and drawn by whole groups");
    let adjusted = (options.adjust == Adjust::Length).then_some("the length of the response and its logarithm");
    let scripts = (options.compat == Compat::Dd).then_some("that of the scripts of arXiv 2604.11867 (--compat dd)");
    let facts = Facts::default()
        .with_model(identity)
        .with_items(items.len(), &format!("{}{}", settings.from.path.display(), source.read_from()), settings.from.only)
        .with_system(items)
        .with(
            "heads",
            format!("{}, averaged over the last {} response tokens", method.heads.name(), attribution.last_n),
        )
        .with("labels shuffled", format!("{} times, seed {}", options.shuffles, options.seed))
        .with("cross-fit", format!("{} folds, dealt {} times", options.folds, options.repeats))
        .with("intervals", format!("bootstrap, {} resamples within the cohorts", options.resamples))
        .with_some("within", options.within.as_ref().map(within))
        .with_some("groups", options.groups.as_ref().map(groups))
        .with_some("adjusted for", adjusted)
        .with_some("arithmetic", scripts);
    let control = |facts: Facts, control: &Control| facts.with("control", format!("{}: {}", control.name, control.how));
    let facts = attribution.controls.iter().fold(facts, control).with_version(identity);
    let title = match &attribution.dispositions[..] {
        [one] => one.name.clone(),
        several => format!("{} dispositions", several.len()),
    };
    let page = Page {
        title: &title,
        facts: &facts,
        counts: if attribution.dispositions.len() == 1 { &counts } else { &[] },
        warnings: of_page,
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
