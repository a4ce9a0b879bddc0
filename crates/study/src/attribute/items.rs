//! From features to an attribution with its controls: what `temper attribute` and `temper run` share.

use std::sync::atomic::AtomicBool;

use headtemper_engine::{Encoded, Engine, Keep};
use headtemper_hook::HeadRef;
use headtemper_stats::Shuffles;

use crate::{
    AttributeOptions, CaptureOptions, Cohorts, Compat, DispositionSpec, Features, Item, ItemFacts, Progress, Result,
    attribute::{Nulls, Table, across::across, attribute_with_nulls, no_ends},
    attribution::{Attribution, Control, Controlled, Disposition, Verdict},
    capture::capture_encoded,
    watch::Watch,
};

/// Streams of the shuffled control begin here: it must not be a shuffle of the null.
const CONTROL_SEED: u64 = 0xc0_7201;

/// The same computation where there is nothing to find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controls {
    /// With labels that were shuffled once.
    pub shuffled: bool,
    /// With random weights of this seed in place of the model's.
    pub random: Option<u64>,
}

/// What was read from some items, and the same by random weights if that was asked for.
pub(crate) struct ReadItems {
    pub(crate) features: Features,
    /// The seed of the weights, and the features.
    pub(crate) untrained: Option<(u64, Features)>,
}

impl ReadItems {
    /// Reads items as tokens, and once more with random weights of this seed, if there is one.
    pub(crate) fn read(
        engine: &Engine,
        (items, encoded): (&[Item], &[Encoded]),
        capture: &CaptureOptions<'_>,
        random: Option<u64>,
        progress: &mut dyn Progress,
    ) -> Result<Self> {
        let (features, _) = capture_encoded(engine, items, encoded, capture, progress)?;
        let mut untrained = None;
        if let Some(seed) = random {
            let engine = engine.with_random_weights(seed)?;
            let capture = CaptureOptions {
                keep: Keep { layers: Vec::new(), ..capture.keep },
                plans: capture.plans.clone(),
                ..*capture
            };
            untrained = Some((seed, capture_encoded(&engine, items, encoded, &capture, progress)?.0));
        }
        Ok(Self { features, untrained })
    }
}

/// What was read of items, what is compared of them, and how.
pub(crate) struct AttributeItems<'a> {
    pub(crate) read: &'a ReadItems,
    /// Facts about the items, in the order of the features.
    pub(crate) facts: &'a [ItemFacts],
    pub(crate) specs: &'a [DispositionSpec],
    /// The cohorts of each disposition, over the items.
    pub(crate) cohorts: &'a [Cohorts],
    pub(crate) options: AttributeOptions,
    /// Whether the same is done once more with shuffled labels.
    pub(crate) shuffled: bool,
    pub(crate) stop: Option<&'a AtomicBool>,
}

impl AttributeItems<'_> {
    /// Ranks, does the same for the controls, and compares the dispositions with each other and with `others`.
    pub(crate) fn attribute(&self, others: &[Attribution], progress: &mut dyn Progress) -> Result<Attribution> {
        let features = &self.read.features;
        let (mut dispositions, nulls): (Vec<_>, Vec<_>) =
            self.each(features, self.cohorts, "attribute", progress)?.into_iter().unzip();
        if self.options.compat == Compat::Dd {
            dispositions.iter_mut().for_each(crate::attribute::dd::name);
        }
        let controls = self.controls(progress)?;
        say_untrained(&mut dispositions, &controls);
        let across =
            across((&dispositions, &nulls), self.cohorts, (self.facts, self.options.groups.as_deref()), others);
        let warnings = no_ends(&dispositions).into_iter().collect();
        Ok(Attribution {
            schema: "attribution/v1".into(),
            model: features.meta.identity.model.clone(),
            weights_sha256: features.meta.identity.weights_sha256.clone(),
            last_n: features.meta.last_n,
            heads_per_layer: heads_per_layer(&features.slots),
            method: self.options.clone(),
            dispositions,
            skipped: Vec::new(),
            controls,
            across,
            warnings,
        })
    }

    fn each(
        &self,
        features: &Features,
        cohorts: &[Cohorts],
        stage: &str,
        progress: &mut dyn Progress,
    ) -> Result<Vec<(Disposition, Nulls)>> {
        let watch = Watch::new(self.stop);
        progress.begin(stage, self.specs.len() * Table::slots(features, &self.options).len(), 0);
        let one = |(spec, cohorts)| attribute_with_nulls(features, spec, cohorts, self.facts, (&self.options, &watch));
        let all = watch.during(progress, || self.specs.iter().zip(cohorts).map(one).collect())?;
        progress.end();
        Ok(all)
    }

    fn controls(&self, progress: &mut dyn Progress) -> Result<Vec<Control>> {
        let mut controls = Vec::new();
        let features = &self.read.features;
        if self.shuffled {
            let shuffled = |cohorts: &Cohorts| {
                let table = Table::new(features, cohorts, self.facts, &self.options)?;
                Ok(shuffled(cohorts, &table.shuffles(self.options.seed ^ CONTROL_SEED)))
            };
            let cohorts = self.cohorts.iter().map(shuffled).collect::<Result<Vec<Cohorts>>>()?;
            let found = self.each(features, &cohorts, "shuffled", progress)?;
            let how = format!("the labels of the items shuffled once, as for the null, seed {}", self.options.seed);
            controls.push(control(Control::SHUFFLED, how, &found));
        }
        if let Some((seed, features)) = &self.read.untrained {
            let found = self.each(features, self.cohorts, "random", progress)?;
            let how = format!("the same texts read by a model of the same geometry with random weights, seed {seed}");
            controls.push(control(Control::RANDOM, how, &found));
        }
        Ok(controls)
    }
}

/// Cohorts of the same sizes, from the same items, as the first of these shuffles has them.
fn shuffled(cohorts: &Cohorts, shuffles: &Shuffles) -> Cohorts {
    let all: Vec<usize> = cohorts.a.iter().chain(&cohorts.b).copied().collect();
    let labels = shuffles.labels(0);
    let of = |which: bool| {
        let mut rows: Vec<usize> =
            all.iter().zip(&labels).filter(|&(_, &label)| label == which).map(|(&row, _)| row).collect();
        rows.sort_unstable();
        rows
    };
    Cohorts { a: of(true), b: of(false) }
}

fn control(name: &str, how: String, found: &[(Disposition, Nulls)]) -> Control {
    let controlled =
        |(found, _): &(Disposition, Nulls)| Controlled { name: found.name.clone(), summary: found.summary.clone() };
    Control { name: name.into(), how, dispositions: found.iter().map(controlled).collect() }
}

/// Adds what a model that has learnt nothing finds in the same texts to the sentence that says what was found.
fn say_untrained(dispositions: &mut [Disposition], controls: &[Control]) {
    let Some(untrained) = controls.iter().find(|control| control.name == Control::RANDOM) else { return };
    for (disposition, found) in dispositions.iter_mut().zip(&untrained.dispositions) {
        let named = |verdict: &Verdict| matches!(verdict, Verdict::Separable | Verdict::MagnitudeOnly);
        let count = |verdicts: &[(Verdict, usize)]| -> usize {
            verdicts.iter().filter(|(verdict, _)| named(verdict)).map(|(_, n)| n).sum()
        };
        let (here, there) = (count(&disposition.summary.verdicts), count(&found.summary.verdicts));
        if there > 0 {
            let heads = if there == 1 { "head" } else { "heads" };
            disposition.sentence +=
                &format!(" Reading the same texts, a model of random weights names {there} {heads} (here {here})");
            // One head among many is what chance names in one report of ten.
            disposition.sentence += if 2 * there >= here {
                ": differences between the texts alone do this, whatever a model has learnt."
            } else {
                "."
            };
        }
    }
}

/// How many heads each layer has, of all heads of a model.
fn heads_per_layer(slots: &[HeadRef]) -> Vec<usize> {
    let mut heads = vec![0; slots.iter().map(|at| at.layer + 1).max().unwrap_or(0)];
    for at in slots {
        heads[at.layer] += 1;
    }
    heads
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fixture;

    #[test]
    fn what_random_weights_name_is_in_the_sentence() {
        let mut found = fixture::disposition(&[4]);
        found.summary.verdicts = vec![(Verdict::Separable, 2), (Verdict::MagnitudeOnly, 1), (Verdict::NoEvidence, 1)];
        let nothing = fixture::disposition(&[4]);
        let mut much = nothing.clone();
        much.summary.verdicts = vec![(Verdict::Separable, 7)];
        let mut all = [nothing.clone(), nothing.clone()];
        let with = |name: &str, found: [&Disposition; 2]| {
            let none = || Nulls { d: Vec::new(), crossfit: Vec::new() };
            control(name, String::new(), &found.map(|found| (found.clone(), none())))
        };
        say_untrained(&mut all, &[with(Control::SHUFFLED, [&found, &found])]);
        assert_eq!(all[0].sentence, nothing.sentence, "shuffled labels find by chance");
        say_untrained(&mut all, &[with(Control::RANDOM, [&nothing, &found])]);
        assert_eq!(all[0].sentence, nothing.sentence);
        assert!(
            all[1].sentence.contains("a model of random weights names 3 heads (here 0): differences"),
            "{}",
            all[1].sentence
        );
        let mut all = [much.clone(), much];
        say_untrained(&mut all, &[with(Control::RANDOM, [&found, &nothing])]);
        assert!(all[0].sentence.ends_with("a model of random weights names 3 heads (here 7)."), "{}", all[0].sentence);
    }

    #[test]
    fn shuffled_cohorts_keep_their_sizes_and_items() {
        let cohorts = Cohorts { a: vec![1, 4, 6], b: vec![0, 2, 9, 11] };
        let other = shuffled(&cohorts, &Shuffles::new(3, 4, 0));
        assert_eq!((other.a.len(), other.b.len()), (3, 4));
        let sorted = |c: &Cohorts| {
            let mut all = [c.a.clone(), c.b.clone()].concat();
            all.sort_unstable();
            all
        };
        assert_eq!(sorted(&other), sorted(&cohorts));
        assert_ne!(other, cohorts);
    }
}
