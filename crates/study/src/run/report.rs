//! What a whole experiment says at its end: its checks, and report.html, report.json and report.md.

use std::{collections::BTreeMap, path::Path};

use headtemper_engine::Engine;
use serde_json::json;

use crate::{
    Arm, Experiment, FiredByArm, GoldRule, Item, Result, Row, RunDir, RunSummary,
    attribute::no_ends,
    attribution::{Attribution, attribution_markdown},
    items::cohort::{label_counts, labels},
    report::{self, Page},
    store::files::{write_json, write_text},
    sweep::{examples::examples, files::counted_by_hooks, outcome::Outcomes},
    sweep_markdown,
};

/// What a sweep ends with.
pub(crate) struct Swept {
    pub(crate) outcomes: Outcomes,
    pub(crate) arms: Vec<Arm>,
    /// `[arm][item]`.
    pub(crate) rows: Vec<Vec<Row>>,
    pub(crate) fired: FiredByArm,
}

/// What all stages have found.
pub(crate) struct RunReport<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) experiment: &'a Experiment,
    pub(crate) run: &'a RunDir,
    pub(crate) items: &'a [Item],
    /// Those of the items that take part in the attribution.
    pub(crate) answered: &'a [Item],
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
        let text = markdown(&title, &counts, attribution, outcomes, &warnings);
        write_text(&self.run.file("report.md"), &text)?;
        warnings.extend(compared.warnings.iter().cloned());
        Ok(RunSummary { text, warnings, check_failed })
    }

    /// What the run was made from, in the order of the page.
    fn facts(&self) -> Vec<(String, String)> {
        let (identity, spec) = (self.engine.identity(), self.engine.spec());
        let generate = &self.experiment.generate;
        let mut facts = Vec::new();
        let mut fact = |name: &str, value: String| facts.push((name.into(), value));
        fact("experiment", self.experiment.name.clone());
        fact("model", identity.model.clone());
        fact(
            "geometry",
            format!("{}, {} layers, {} heads", identity.architecture, spec.layers.len(), spec.slots().len()),
        );
        fact("parameters", spec.parameters.to_string());
        if let Some(revision) = &identity.revision {
            fact("revision", revision.clone());
        }
        fact("weights (SHA-256)", identity.weights_sha256.clone());
        fact("held in", identity.held_in());
        fact("items", format!("{} of {}", self.items.len(), file_name(&self.experiment.items.path)));
        if let Some(system) = &self.experiment.items.system {
            fact("system message", system.clone());
        }
        let decoding = if generate.sampling.temperature == 0.0 {
            "greedy".to_string()
        } else {
            format!("sampled at temperature {}, seed {}", generate.sampling.temperature, generate.sampling.seed)
        };
        fact("answers", format!("{decoding}, at most {} new tokens", generate.max_new_tokens));
        if let Some(judge) = &self.experiment.judge {
            let gold = if judge.gold == GoldRule::Exact { "exactly accepted answers" } else { "accepted answers" };
            fact("judged by", format!("{gold}, and the hedges in {}", file_name(&judge.hedges)));
        }
        let attribute = &self.experiment.attribute;
        fact("heads averaged over", format!("the last {} response tokens", attribute.last_n));
        fact("labels shuffled", format!("{} times, seed {}", attribute.shuffles, attribute.seed));
        fact("cross-fit", format!("{} folds, dealt {} times", attribute.folds, attribute.repeats));
        if let Some(swept) = &self.swept {
            let sets: Vec<&str> = swept.outcomes.tables.iter().map(|table| table.set.as_str()).collect();
            fact("tempered", if sets.len() > 8 { format!("{} sets", sets.len()) } else { sets.join("; ") });
            fact("hooks fired", counted_by_hooks(&swept.arms, &swept.fired));
        }
        fact("version", format!("headtemper {}", identity.version));
        facts
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn markdown(
    title: &str,
    counts: &[(String, usize)],
    attribution: &Attribution,
    outcomes: Option<&Outcomes>,
    warnings: &[String],
) -> String {
    let counts: Vec<String> = counts.iter().map(|(name, n)| format!("{name} {n}")).collect();
    let mut out = format!("# {title}\n\nitems: {}\n\n", counts.join(", "));
    out += &attribution_markdown(attribution, 10);
    out.push('\n');
    if let Some(outcomes) = outcomes {
        out += &sweep_markdown(outcomes);
        out.push('\n');
    }
    for warning in warnings {
        out += &format!("warning: {warning}\n");
    }
    out
}
