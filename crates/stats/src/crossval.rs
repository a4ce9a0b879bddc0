//! A classifier on items that it was not fitted on, fold by fold, under any labels.

use rayon::prelude::*;

use crate::{
    folds::Folds,
    logistic::{ClassWeight, First, FitError, Kernel, Scaler, Target, check_finite, fit_over_features, sigmoid},
    permute::{Relabelings, a_first, group_sizes},
    random::Random,
};

/// Streams of shuffled labels begin here, so that a seed's shuffles have nothing to do with its other draws.
const STREAM: u64 = 0xc405_0000_0000;

/// Probabilities that are held at once: labelings are taken as many at a time, at least [`TOGETHER`].
const HELD: usize = 64 << 20;
/// Enough labelings for what they share to cost little, and for all threads to have work.
const TOGETHER: usize = 64;

/// Features dealt out in folds, ready to be fitted under many labelings. Scaler and regression see only a fold's training items.
/// What labels have no part in is computed once for all labelings: where training items are fewer than the features, their products; else
/// the factor of the first Hessian, if all items weigh the same.
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

/// How labels are fitted: the weights of classes, and the inverse strengths of the penalty, one fit each.
#[derive(Clone, Copy, Debug)]
pub struct Fits<'a> {
    /// How items are weighted.
    pub weight: ClassWeight,
    /// scikit-learn's C.
    pub c: &'a [f64],
}

/// Is called whenever a labeling was fitted in a fold, by whichever thread did it.
pub type Step<'a> = &'a (dyn Fn() + Sync);

/// A fold while labelings are fitted in it.
enum Ready<'a> {
    /// Over its items.
    Items(&'a Kernel),
    /// Over features, in units of the training items' spread, with what all fits of a C share.
    Features { train: Vec<f64>, test: Vec<f64>, first: Vec<Option<First>> },
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

    /// The probability of the true class for each item, by the fit on the other folds: `[C][item]`. `step` is called after each fold.
    ///
    /// # Errors
    /// If a fold's training items are all of one class, or there is no fit.
    pub fn probabilities(&self, labels: &[bool], fits: Fits<'_>, step: Step<'_>) -> Result<Vec<Vec<f64>>, FitError> {
        let mut all = self.under(&[labels.to_vec()], fits, step)?;
        Ok(all.pop().expect("one labeling was given"))
    }

    /// The probabilities under each of several labelings, `[labeling][C][item]`: fold by fold, so that one fold at a time is ready.
    fn under(&self, labelings: &[Vec<bool>], fits: Fits<'_>, step: Step<'_>) -> Result<Vec<Vec<Vec<f64>>>, FitError> {
        let items = self.x.len() / self.features;
        let mut out = vec![vec![vec![f64::NAN; items]; fits.c.len()]; labelings.len()];
        for fold in &self.folds {
            let ready = self.ready(fold, fits, labelings.len());
            let one = |(out, labels): (&mut Vec<Vec<f64>>, &Vec<bool>)| {
                let of_train: Vec<bool> = fold.train.iter().map(|&item| labels[item]).collect();
                let weights = fits.weight.of(&of_train);
                for (of_c, (out, &c)) in out.iter_mut().zip(fits.c).enumerate() {
                    let log_odds = ready.log_odds(of_c, Target { labels: &of_train, weights: &weights, c })?;
                    fold.test.iter().zip(log_odds).for_each(|(&item, f)| out[item] = sigmoid(f));
                }
                step();
                Ok(())
            };
            out.par_iter_mut().zip(labelings).try_for_each(one)?;
        }
        Ok(out)
    }

    fn ready<'f>(&self, fold: &'f Fold, fits: Fits<'_>, labelings: usize) -> Ready<'f> {
        if let Some(kernel) = &fold.kernel {
            return Ready::Items(kernel);
        }
        let rows = |items: &[usize]| fold.scaler.apply(self.x, self.features, items);
        let train = rows(&fold.train);
        let shared = labelings > 1 && fits.weight == ClassWeight::None;
        let first = fits.c.iter().map(|&c| if shared { First::new(&train, self.features, c) } else { None }).collect();
        Ready::Features { train, test: rows(&fold.test), first }
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
        (labels, whole): (&[bool], Option<&WholeUnits>),
        (count, seed): (usize, u64),
        fits: Fits<'_>,
        step: Step<'_>,
        statistic: impl Fn(&[Vec<f64>], &[bool]) -> T + Sync,
    ) -> Result<Vec<T>, FitError> {
        let shuffle = |k| whole.map_or_else(|| self.shuffle(labels, seed, k), |whole| whole.labels(k));
        let together = (HELD / (labels.len() * fits.c.len() * size_of::<f64>()).max(1)).max(TOGETHER);
        let mut out = Vec::with_capacity(count);
        for from in (0..count).step_by(together) {
            let labelings: Vec<Vec<bool>> = (from..count.min(from + together)).map(|k| shuffle(k as u64)).collect();
            let all = self.under(&labelings, fits, step)?;
            out.par_extend(all.par_iter().zip(&labelings).map(|(p, labels)| statistic(p, labels)));
        }
        Ok(out)
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

impl Ready<'_> {
    /// Log-odds of the test items by a fit of the training items under the C of this place.
    fn log_odds(&self, of_c: usize, target: Target<'_>) -> Result<Vec<f64>, FitError> {
        match self {
            Self::Items(kernel) => Ok(kernel.log_odds(&kernel.fit(target)?)),
            Self::Features { train, test, first } => {
                let features = train.len() / target.labels.len();
                let fit = fit_over_features(train, features, target, first[of_c].as_ref())?;
                Ok(test.chunks_exact(features).map(|row| fit.log_odds(row)).collect())
            }
        }
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

    const PLAIN: Fits<'_> = Fits { weight: ClassWeight::None, c: &[1.0] };

    #[test]
    fn held_out_items_have_no_say() {
        let (items, features) = (24, 40);
        let mut x = normal_table(8, items, &vec![1.0; features]);
        let labels: Vec<bool> = (0..items).map(|i| i % 2 == 0).collect();
        let folds = stratified_folds(&labels, 4, Some(0)).unwrap();
        let before = CrossValidation::new(&x, features, &folds).unwrap();
        let before = before.probabilities(&labels, PLAIN, &|| ()).unwrap().remove(0);
        // Another row in fold 0 changes its own probability and those of all other folds, but not those of its fold-mates.
        let changed = (0..items).find(|&item| folds[item] == 0).unwrap();
        x[changed * features] += 5.0;
        let after = CrossValidation::new(&x, features, &folds).unwrap();
        let after = after.probabilities(&labels, PLAIN, &|| ()).unwrap().remove(0);
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
        let balanced = Fits { weight: ClassWeight::Balanced, c: &[0.3] };
        let by_items = ready.probabilities(&labels, balanced, &|| ()).unwrap().remove(0);
        assert!(ready.folds.iter().all(|fold| fold.kernel.is_some()), "40 items of 45 features");
        ready.folds.iter_mut().for_each(|fold| fold.kernel = None);
        let plain = ready.probabilities(&labels, balanced, &|| ()).unwrap().remove(0);
        let differ = worst(&by_items, &plain);
        assert!(differ < 1e-9, "{differ:e}");
    }

    /// Labelings that are fitted together, sharing what labels have no part in, have the same numbers to the last bit as one alone; and
    /// each is counted once in every fold.
    #[test]
    fn what_labelings_share_changes_nothing() {
        use std::sync::atomic::{AtomicUsize, Ordering};
        // Above and below what makes the Hessian cheap enough to be factored at every step; and over items.
        for (items, features) in [(2200, 520), (150, 20), (40, 60)] {
            let x = normal_table(12, items, &vec![1.0; features]);
            let labels: Vec<bool> = (0..items).map(|i| i % 3 == 0).collect();
            let folds = stratified_folds(&labels, 2, Some(3)).unwrap();
            let ready = CrossValidation::new(&x, features, &folds).unwrap();
            for weight in [ClassWeight::None, ClassWeight::Balanced] {
                let (fits, steps) = (Fits { weight, c: &[1.0, 0.01] }, AtomicUsize::new(0));
                let step = || {
                    steps.fetch_add(1, Ordering::Relaxed);
                };
                let both = |p: &[Vec<f64>], labels: &[bool]| (p.to_vec(), labels.to_vec());
                let shuffled = ready.shuffled((&labels, None), (3, 8), fits, &step, both).unwrap();
                assert_eq!((shuffled.len(), steps.into_inner()), (3, 2 * 3));
                for (p, labels) in shuffled {
                    assert_eq!(p, ready.probabilities(&labels, fits, &|| ()).unwrap(), "{items} items x {features}");
                }
            }
        }
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
            let of = |p: &[Vec<f64>], labels: &[bool]| auc(&p[0], labels);
            let null = ready.shuffled((&labels, None), (99, set), PLAIN, &|| (), of).unwrap();
            p_value(of(&ready.probabilities(&labels, PLAIN, &|| ()).unwrap(), &labels), &null, Tail::Greater)
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
            let of = |p: &[Vec<f64>], labels: &[bool]| auc(&p[0], labels);
            let null = ready.shuffled((&labels, Some(&whole)), (99, set), PLAIN, &|| (), of).unwrap();
            p_value(of(&ready.probabilities(&labels, PLAIN, &|| ()).unwrap(), &labels), &null, Tail::Greater)
        };
        assert_uniform((0..200).map(p).collect());
    }
}
