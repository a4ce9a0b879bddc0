//! What a whole experiment says at its end: its checks, and report.html, report.json and report.md.

use std::collections::BTreeMap;

use headtemper_engine::Engine;
use serde_json::json;

use crate::{
    Arm, Experiment, GoldRule, HookCounts, Item, JudgeConfig, Result, Row, RunDir, RunSummary,
    attribute::no_ends,
    attribution::{Attribution, attribution_markdown},
    hooks,
    items::cohort::{label_counts, labels},
    report::{self, Facts, Page},
    store::files::{write_json, write_text},
    sweep::{examples::examples, outcome::Outcomes},
    sweep_markdown,
    text::file_name,
};

/// The files of a report.
pub(crate) const REPORTS: [&str; 3] = ["report.html", "report.json", "report.md"];

/// What a sweep ends with.
pub(crate) struct Swept {
    pub(crate) outcomes: Outcomes,
    pub(crate) arms: Vec<Arm>,
    /// `[arm][item]`.
    pub(crate) rows: Vec<Vec<Row>>,
    pub(crate) fired: HookCounts,
}

/// What all stages have found.
pub(crate) struct RunReport<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) experiment: &'a Experiment,
    pub(crate) run: &'a RunDir,
    pub(crate) items: &'a [Item],
    /// Those of the items that take part in the attribution.
    pub(crate) answered: &'a [Item],
    /// How many answers the attribution reads that were generated for it.
    pub(crate) generated: usize,
    pub(crate) attribution: Attribution,
    pub(crate) swept: Option<Swept>,
}

impl RunReport<'_> {
    /// Writes the reports and says what the run found; `warnings` are those of the stages.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub(crate) fn write(&self, mut warnings: Vec<String>) -> Result<RunSummary> {
        let outcomes = self.swept.as_ref().map(|swept| &swept.outcomes);
        let counts: Vec<(String, usize)> = label_counts(&labels(self.answered)).into_iter().collect();
        let (attribution, compared) = (&self.attribution, &self.attribution.dispositions[0]);
        let least = self.experiment.attribute.min_cohort;
        let small = [(&compared.a, compared.n_a), (&compared.b, compared.n_b)].into_iter().filter(|&(_, n)| n < least);
        let small: Vec<String> = small
            .map(|(name, n)| format!("cohort {name} has {n} items, but the experiment asks for {least}"))
            .collect();
        let check_failed = !small.is_empty();
        warnings.extend(small);
        warnings.extend(no_ends(&attribution.dispositions));
        let facts = self.facts();
        let title = self.experiment.title.clone();
        let title = title.unwrap_or_else(|| format!("{} against {}", compared.a, compared.b));
        let page = Page {
            title: &title,
            facts: &facts,
            counts: &counts,
            warnings: &warnings,
            model: &attribution.model,
            heads_per_layer: &attribution.heads_per_layer,
            attribution: Some(attribution),
            sweep: outcomes,
            examples: &self
                .swept
                .as_ref()
                .map_or_else(Vec::new, |swept| examples(self.items, &swept.arms, &swept.rows)),
        };
        write_text(&self.run.file("report.html"), &report::render(&page))?;
        let counts_map: BTreeMap<_, _> = counts.iter().cloned().collect();
        let document = json!({
            "schema": "report/v1", "title": title, "facts": facts, "cohorts": counts_map,
            "warnings": warnings, "attribution": attribution, "sweep": outcomes,
        });
        write_json(&self.run.file("report.json"), &document)?;
        let text = markdown(&title, &counts, attribution, (outcomes, self.other_seeds()), &warnings);
        write_text(&self.run.file("report.md"), &text)?;
        warnings.extend(compared.warnings.iter().cloned());
        Ok(RunSummary { text, warnings, check_failed })
    }

    /// The seeds of the sweep, where they are not just that of the answers, and whether that is among them.
    fn other_seeds(&self) -> Option<String> {
        let (seeds, own) = (&self.swept.as_ref()?.outcomes.seeds, self.experiment.generate.sampling.seed);
        (self.generated > 0 && *seeds != [own]).then(|| {
            let all: Vec<String> = seeds.iter().map(ToString::to_string).collect();
            let name = if all.len() == 1 { "seed" } else { "seeds" };
            let so = if seeds.contains(&own) {
                format!("; the answers under {own} are those attributed")
            } else {
                ", not that of the answers attributed".into()
            };
            format!("{name} {}{so}", all.join(", "))
        })
    }

    /// What the run was made from, in the order of the page.
    fn facts(&self) -> Facts {
        let (identity, spec) = (self.engine.identity(), self.engine.spec());
        let (items, generate) = (&self.experiment.items, &self.experiment.generate);
        let attribute = &self.experiment.attribute;
        let judged = |judge: &JudgeConfig| {
            let gold = if judge.gold == GoldRule::Exact { "exactly accepted answers" } else { "accepted answers" };
            let with_gold = self.items.iter().filter(|item| !item.gold.is_empty()).count();
            let own = match self.items.len() - with_gold {
                0 => String::new(),
                others => format!("; {others} of {} items accept none, and keep their own labels", self.items.len()),
            };
            format!("{gold}, and the hedges in {}{own}", file_name(&judge.hedges))
        };
        let tempered = |swept: &Swept| {
            let sets: Vec<&str> = swept.outcomes.tables.iter().map(|table| table.set.as_str()).collect();
            if sets.len() > 8 { format!("{} sets", sets.len()) } else { sets.join("; ") }
        };
        let swept = self.swept.as_ref();
        let own = [generate.sampling.seed];
        let seeds = swept.map(|swept| &swept.outcomes.seeds[..]).filter(|_| self.generated == 0).unwrap_or(&own);
        Facts::default()
            .with("experiment", &self.experiment.name)
            .with_model(identity)
            .with(
                "geometry",
                format!("{}, {} layers, {} heads", identity.architecture, spec.layers.len(), spec.slots().len()),
            )
            .with("parameters", spec.parameters.to_string())
            .with_items(self.items.len(), &items.from().file(), items.only.as_ref())
            .with_system(self.items)
            .with_answers(&generate.sampling, seeds, generate.max_new_tokens)
            .with_some("judged by", self.experiment.judge.as_ref().map(judged))
            .with("heads averaged over", format!("the last {} response tokens", attribute.last_n))
            .with("labels shuffled", format!("{} times, seed {}", attribute.shuffles, attribute.seed))
            .with("cross-fit", format!("{} folds, dealt {} times", attribute.folds, attribute.repeats))
            .with_some("tempered", swept.map(tempered))
            .with_some("tempered under", self.other_seeds())
            .with_some("hooks fired", swept.map(|swept| hooks::told(&swept.fired, (swept.arms.len(), "arm"), "answer")))
            .with_version(identity)
    }
}

fn markdown(
    title: &str,
    counts: &[(String, usize)],
    attribution: &Attribution,
    (outcomes, seeds): (Option<&Outcomes>, Option<String>),
    warnings: &[String],
) -> String {
    let counts: Vec<String> = counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
    let mut out = format!("# {title}\n\nitems: {}\n\n", counts.join(", "));
    out += &attribution_markdown(attribution, 10);
    out.push('\n');
    if let Some(outcomes) = outcomes {
        if let Some(seeds) = seeds {
            out += &format!("tempered under {seeds}\n\n");
        }
        out += &sweep_markdown(outcomes);
        out.push('\n');
    }
    for warning in warnings {
        out += &format!("warning: {warning}\n");
    }
    out
}
