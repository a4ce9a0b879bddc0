//! A classifier on items that it was not fitted on, fold by fold, under any labels.

use rayon::prelude::*;

use crate::{
    folds::Folds,
    logistic::{ClassWeight, FitError, Kernel, Logistic, Scaler, Target, check_finite, sigmoid},
    permute::{Relabelings, a_first, group_sizes},
    random::Random,
};

/// Streams of shuffled labels begin here, so that a seed's shuffles have nothing to do with its other draws.
const STREAM: u64 = 0xc405_0000_0000;

/// Features dealt out in folds, ready to be fitted under many labelings. Scaler and regression see only a fold's training items.
/// Where these are fewer than the features, their products are computed once for all labelings.
pub struct CrossValidation<'a> {
    x: &'a [f64],
    features: usize,
    folds: Vec<Fold>,
}

struct Fold {
    train: Vec<usize>,
    test: Vec<usize>,
    scaler: Scaler,
    kernel: Option<Kernel>,
}

impl<'a> CrossValidation<'a> {
    /// Row-major `x` `[items, features]`, each row in a fold. Panics unless there is one fold per row, or if a fold holds all rows.
    ///
    /// # Errors
    /// If a number is not finite.
    pub fn new(x: &'a [f64], features: usize, fold_of: &[usize]) -> Result<Self, FitError> {
        assert_eq!(x.len(), fold_of.len() * features, "one fold a row");
        check_finite(x, features)?;
        let count = fold_of.iter().max().map_or(0, |last| last + 1);
        let fold = |fold: usize| {
            let (test, train): (Vec<usize>, Vec<usize>) = (0..fold_of.len()).partition(|&item| fold_of[item] == fold);
            let scaler = Scaler::of(x, features, &train);
            let kernel = (train.len() < features).then(|| {
                let others = scaler.apply(x, features, &test);
                Kernel::new(&scaler.apply(x, features, &train), features, &others)
            });
            Fold { train, test, scaler, kernel }
        };
        Ok(Self { x, features, folds: (0..count).map(fold).collect() })
    }

    /// The probability of the true class for each item, by the fit on the other folds.
    ///
    /// # Errors
    /// If a fold's training items are all of one class, or there is no fit.
    pub fn probabilities(&self, labels: &[bool], weight: ClassWeight, c: f64) -> Result<Vec<f64>, FitError> {
        let mut out = vec![f64::NAN; labels.len()];
        for fold in &self.folds {
            let of_train: Vec<bool> = fold.train.iter().map(|&item| labels[item]).collect();
            let weights = weight.of(&of_train);
            let target = Target { labels: &of_train, weights: &weights, c };
            let log_odds = if let Some(kernel) = &fold.kernel {
                kernel.log_odds(&kernel.fit(target)?)
            } else {
                let rows = |items: &[usize]| fold.scaler.apply(self.x, self.features, items);
                let fit = Logistic::fit(&rows(&fold.train), self.features, target)?;
                rows(&fold.test).chunks_exact(self.features).map(|row| fit.log_odds(row)).collect()
            };
            fold.test.iter().zip(log_odds).for_each(|(&item, f)| out[item] = sigmoid(f));
        }
        Ok(out)
    }

    /// A statistic of `count` shuffled labelings. Labels change places within their folds. If classes were dealt out over folds
    /// at random, all these labelings are equally likely where labels mean nothing. Every training set keeps its share of both
    /// classes, and what was made ready serves all labelings.
    ///
    /// With `whole`, units that were dealt out together stay together: the labels of a unit go to another unit of the same fold
    /// with as many items, and are shuffled within it.
    ///
    /// # Errors
    /// As [`CrossValidation::probabilities`].
    pub fn shuffled<T: Send>(
        &self,
        labels: &[bool],
        whole: Option<&WholeUnits>,
        (count, seed): (usize, u64),
        statistic: impl Fn(&Self, &[bool]) -> Result<T, FitError> + Sync,
    ) -> Result<Vec<T>, FitError> {
        let ks: Vec<u64> = (0..count as u64).collect();
        let shuffle = |k| whole.map_or_else(|| self.shuffle(labels, seed, k), |whole| whole.labels(k));
        ks.into_par_iter().map(|k| statistic(self, &shuffle(k))).collect()
    }

    fn shuffle(&self, labels: &[bool], seed: u64, k: u64) -> Vec<bool> {
        let mut random = Random::new(seed, STREAM + k);
        let mut out = labels.to_vec();
        for Fold { test: places, .. } in &self.folds {
            for last in (1..places.len()).rev() {
                out.swap(places[last], places[random.below(last + 1)]);
            }
        }
        out
    }
}

/// Units of items that are dealt out over folds and labelled together, such as the answers to one prompt.
#[derive(Clone, Debug)]
pub struct WholeUnits {
    relabelings: Relabelings,
    fold_of: Vec<usize>,
    folds: usize,
}

impl WholeUnits {
    /// Deals units out once, as [`Folds::whole`] does; `unit` is that of each item. None if a fold would have all of a class.
    pub fn deal(labels: &[bool], unit: &[usize], count: usize, seed: u64) -> Option<Self> {
        let order = a_first(labels);
        let unit_at: Vec<usize> = order.iter().map(|&item| unit[item]).collect();
        let folds = Folds::whole(group_sizes(labels), count, 1, seed, &unit_at);
        if folds.leaves_none() {
            return None;
        }
        let mut fold_of = vec![0; order.len()];
        order.iter().zip(folds.fold_of(0)).for_each(|(&item, &fold)| fold_of[item] = fold.into());
        let relabelings = Relabelings::new(labels, seed, unit, Some(&fold_of));
        Some(Self { relabelings, fold_of, folds: folds.count() })
    }

    /// The fold of each item.
    pub fn fold_of(&self) -> &[usize] {
        &self.fold_of
    }

    /// How many folds there are.
    pub fn folds(&self) -> usize {
        self.folds
    }

    /// In how many ways shuffles can label the items.
    pub fn labelings(&self) -> f64 {
        self.relabelings.labelings()
    }

    /// How many items have the same label in every shuffle, as [`Shuffles::fixed`](crate::Shuffles::fixed) counts them.
    pub fn fixed(&self) -> usize {
        self.relabelings.fixed()
    }

    fn labels(&self, k: u64) -> Vec<bool> {
        self.relabelings.labels(k)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Tail, auc,
        laws::{assert_uniform, normal_table},
        p_value,
        probe_fixtures::worst,
        stratified_folds,
    };

    #[test]
    fn held_out_items_have_no_say() {
        let (items, features) = (24, 40);
        let mut x = normal_table(8, items, &vec![1.0; features]);
        let labels: Vec<bool> = (0..items).map(|i| i % 2 == 0).collect();
        let folds = stratified_folds(&labels, 4, Some(0)).unwrap();
        let before = CrossValidation::new(&x, features, &folds).unwrap();
        let before = before.probabilities(&labels, ClassWeight::None, 1.0).unwrap();
        // Another row in fold 0 changes its own probability and those of all other folds, but not those of its fold-mates.
        let changed = (0..items).find(|&item| folds[item] == 0).unwrap();
        x[changed * features] += 5.0;
        let after = CrossValidation::new(&x, features, &folds).unwrap();
        let after = after.probabilities(&labels, ClassWeight::None, 1.0).unwrap();
        for item in 0..items {
            let same = before[item] == after[item];
            assert_eq!(same, folds[item] == 0 && item != changed, "item {item}");
        }
    }

    #[test]
    fn both_ways_give_the_same_probabilities() {
        let (items, features) = (50, 45);
        let x = normal_table(9, items, &vec![1.0; features]);
        let labels: Vec<bool> = x.chunks_exact(features).map(|row| row[0] > 0.0).collect();
        let folds = stratified_folds(&labels, 5, Some(1)).unwrap();
        let mut ready = CrossValidation::new(&x, features, &folds).unwrap();
        let by_items = ready.probabilities(&labels, ClassWeight::Balanced, 0.3).unwrap();
        assert!(ready.folds.iter().all(|fold| fold.kernel.is_some()), "40 items of 45 features");
        ready.folds.iter_mut().for_each(|fold| fold.kernel = None);
        let plain = ready.probabilities(&labels, ClassWeight::Balanced, 0.3).unwrap();
        let differ = worst(&by_items, &plain);
        assert!(differ < 1e-9, "{differ:e}");
    }

    /// Without signal the p of a cross-validated AUC is uniform, though the AUC itself lies below one half on average.
    #[test]
    fn p_of_the_auc_is_uniform_without_signal() {
        let (items, features) = (30, 40);
        let p = |set: u64| {
            let x = normal_table(70_000 + set, items, &vec![1.0; features]);
            let labels: Vec<bool> = (0..items).map(|i| i < 12).collect();
            let folds = stratified_folds(&labels, 5, Some(set as u32)).unwrap();
            let ready = CrossValidation::new(&x, features, &folds).unwrap();
            let of = |ready: &CrossValidation<'_>, labels: &[bool]| {
                ready.probabilities(labels, ClassWeight::None, 1.0).map(|p| auc(&p, labels))
            };
            let null = ready.shuffled(&labels, None, (99, set), of).unwrap();
            p_value(of(&ready, &labels).unwrap(), &null, Tail::Greater)
        };
        assert_uniform((0..300).map(p).collect());
    }

    #[test]
    fn whole_units_stay_whole() {
        let labels: Vec<bool> = (0..40).map(|item| item / 4 % 2 == 0 || item % 13 == 0).collect();
        let unit: Vec<usize> = (0..40).map(|item| item / 4).collect();
        let whole = WholeUnits::deal(&labels, &unit, 5, 3).unwrap();
        assert!((0..40).all(|item| whole.fold_of()[item] == whole.fold_of()[item / 4 * 4]) && whole.folds() == 2);
        let counts = |labels: &[bool], fold: usize| {
            let of = |unit: usize| (0..4).filter(|at| labels[4 * unit + at]).count();
            let mut counts: Vec<usize> = (0..10).filter(|&unit| whole.fold_of()[4 * unit] == fold).map(of).collect();
            counts.sort_unstable();
            counts
        };
        let mut other = 0;
        for k in 0..20 {
            let shuffled = whole.labels(k);
            assert!((0..2).all(|fold| counts(&shuffled, fold) == counts(&labels, fold)));
            other += usize::from(shuffled != labels);
        }
        assert!(other > 10 && whole.labelings() > 100.0, "{other}, {}", whole.labelings());
        let one: Vec<usize> = (0..40).map(|item| if labels[item] { 99 } else { item }).collect();
        assert!(WholeUnits::deal(&labels, &one, 5, 3).is_none(), "all of a class in one unit");
    }

    /// Twenty units of five items. Features and labels both follow the units, but agree by chance alone: p is uniform.
    #[test]
    fn p_over_units_is_uniform_without_signal() {
        let (units, features) = (20, 40);
        let p = |set: u64| {
            let noise = normal_table(80_000 + set, 6 * units, &vec![1.0; features]);
            let row = |item: usize| {
                let (own, of_unit) = (&noise[item * features..], &noise[(5 * units + item / 5) * features..]);
                (0..features).map(|j| own[j] + 2.0 * of_unit[j]).collect::<Vec<_>>()
            };
            let x: Vec<f64> = (0..5 * units).flat_map(row).collect();
            let labels: Vec<bool> = (0..5 * units).map(|item| item / 5 % 2 == 0).collect();
            let unit: Vec<usize> = (0..5 * units).map(|item| item / 5).collect();
            let whole = WholeUnits::deal(&labels, &unit, 5, set).unwrap();
            let ready = CrossValidation::new(&x, features, whole.fold_of()).unwrap();
            let of = |ready: &CrossValidation<'_>, labels: &[bool]| {
                ready.probabilities(labels, ClassWeight::None, 1.0).map(|p| auc(&p, labels))
            };
            let null = ready.shuffled(&labels, Some(&whole), (99, set), of).unwrap();
            p_value(of(&ready, &labels).unwrap(), &null, Tail::Greater)
        };
        assert_uniform((0..200).map(p).collect());
    }
}
