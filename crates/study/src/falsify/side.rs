//! One of the two sets of a falsification, with all that its items say.

use std::collections::BTreeMap;

use headtemper_stats::Shuffles;

use super::{
    SetConfig,
    overlap::Prompts,
    view::{Texts, View},
};
use crate::{
    ItemFacts, Result,
    attribution::FieldCheck,
    confounds::{Dealt, OUTCOMES, VERDICTS},
    probe::{FeatureRows, FitOptions, ProbeSet, told_ends},
    significance::{LEVEL, least_p},
};

/// One of the two sets, with all that is known of its items.
pub(super) struct Side<'a> {
    pub(super) view: &'a View,
    pub(super) rows: &'a FeatureRows,
    pub(super) set: &'a ProbeSet,
    pub(super) texts: Texts<'a>,
    pub(super) prompts: Prompts,
}

impl<'a> Side<'a> {
    pub(super) fn of(view: &'a View, rows: &'a FeatureRows, set: &'a ProbeSet) -> Result<Self> {
        let texts = view.texts(set)?;
        let prompts = Prompts::of(&texts);
        Ok(Self { view, rows, set, texts, prompts })
    }

    /// What the file of items says about cut-off responses beyond features and labels.
    pub(super) fn cut_off(&self) -> Vec<String> {
        let cut_off = self.texts.cut_off();
        let told = if cut_off == self.set.cut_off { Vec::new() } else { self.set.truncation(&cut_off) };
        let contradicted = told_ends(self.texts.contradicted_ends(), cut_off.len(), "items");
        contradicted.into_iter().chain(told).collect()
    }

    /// The fields of the items that go with the labels more than by chance, strongest first; none without items. Not those that the labels
    /// or groups are made from, nor verdicts.
    pub(super) fn fields(&self, SetConfig { labels, groups, .. }: &SetConfig, options: &FitOptions) -> Vec<FieldCheck> {
        let Some(items) = self.texts.items.as_ref().filter(|_| self.set.smaller_class() > 0) else {
            return Vec::new();
        };
        let (mut order, others): (Vec<usize>, Vec<usize>) = (0..items.len()).partition(|&item| self.set.labels[item]);
        let n_a = order.len();
        order.extend(others);
        let unit: Vec<usize> = order.iter().map(|&item| self.set.units[item]).collect();
        let shuffles = Shuffles::whole(n_a, items.len() - n_a, options.measure.seed, &unit, None);
        let facts: Vec<ItemFacts> = order.iter().map(|&item| ItemFacts::of(items[item])).collect();
        let fields: Vec<Option<&BTreeMap<String, String>>> = facts.iter().map(|facts| Some(&facts.fields)).collect();
        let made_from = |field: &str| field == labels.column.key || groups.as_ref().is_some_and(|by| by.key == field);
        let dealt = Dealt { n_a, items: items.len(), shuffles, count: options.shuffles };
        // Ends have a baseline of their own, where they are known.
        let ends = self.texts.cut_off().iter().any(Option::is_some);
        let passed_over =
            |field: &str| made_from(field) || VERDICTS.contains(&field) || (ends && OUTCOMES.contains(&field));
        let (mut found, checked) = dealt.fields(&fields, passed_over);
        // Of many fields one goes with the labels by chance; no p is smaller than the shuffles allow.
        let most = (LEVEL / checked.max(1) as f64).max(least_p(options.shuffles));
        found.retain(|field| field.p <= most);
        found
    }
}

/// The warning that a field goes with the labels; a probe is not compared with it as with a baseline.
pub(super) fn told_field(field: &FieldCheck) -> String {
    format!(
        "the field '{}' goes with the labels (Cramér's V {:.2}, p {:.3}): a probe that reads it looks like one that reads what is asked, and \
         p and intervals take items with one value for independent; `groups` of [train] and [fresh] keeps them together",
        field.field, field.cramers_v, field.p
    )
}
