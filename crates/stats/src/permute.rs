//! Permutation tests: shuffled labels, and p-values from what they yield.

use std::{cmp::Ordering, collections::BTreeMap};

use crate::{random::Random, units::alone};

/// A shuffle that misses the observed statistic by less than this share of it ties with it: the same split of the
/// items, summed in another order, differs in its last bits and must count.
pub(crate) const TIE: f64 = 1e-10;

/// Random relabelings of `n_a + n_b` pooled items into groups of the same two sizes.
///
/// Counter-based: shuffle `k` depends only on what the shuffles were made of, the seed and `k`, and is the same on every platform.
/// So shuffles can be spread over threads, and a single one can be made again. Every relabeling that they allow is equally likely,
/// the observed one included, which is what the `1 +` of [`p_value`] allows for.
#[derive(Clone, Debug)]
pub struct Shuffles {
    n_a: usize,
    n_b: usize,
    seed: u64,
    classes: Vec<Class>,
}

/// Units that may change places with each other.
#[derive(Clone, Debug)]
struct Class {
    /// The places of each unit, one row per unit, those of one stratum together.
    places: Vec<usize>,
    /// How many places of a row belong to each of its strata.
    runs: Vec<usize>,
}

impl Class {
    fn units(&self) -> std::slice::ChunksExact<'_, usize> {
        self.places.chunks_exact(self.runs.iter().sum())
    }

    /// How many of a unit's items in each of its strata are of group a.
    fn pattern(&self, unit: &[usize], n_a: usize) -> Vec<usize> {
        let mut rest = unit;
        let of_a = |run: &usize| {
            let (own, others) = rest.split_at(*run);
            rest = others;
            own.iter().filter(|&&place| place < n_a).count()
        };
        self.runs.iter().map(of_a).collect()
    }
}

impl Shuffles {
    /// The shuffles of `n_a` items of group a and `n_b` of group b under a seed.
    pub fn new(n_a: usize, n_b: usize, seed: u64) -> Self {
        Self::whole(n_a, n_b, seed, &alone(n_a + n_b), None)
    }

    /// The same where units stay together, such as the answers to one prompt. The labels of all items of a unit go to the items of
    /// another unit with as many items, and are shuffled within it. What the items of a unit have in common besides their label
    /// then differs between shuffled groups as it does between the observed ones.
    ///
    /// With strata, a unit changes places only with one that has as many items of each stratum. Every stratum then keeps its share
    /// of both groups, so what goes with the strata goes with shuffled labels too. `unit` and `stratum` are those of the item at
    /// each place. Panics unless there is one of each per place.
    pub fn whole(n_a: usize, n_b: usize, seed: u64, unit: &[usize], stratum: Option<&[usize]>) -> Self {
        assert_eq!(unit.len(), n_a + n_b, "one unit a place");
        assert!(stratum.is_none_or(|stratum| stratum.len() == n_a + n_b), "one stratum a place");
        let mut units: BTreeMap<usize, Vec<(usize, usize)>> = BTreeMap::new();
        for (place, &of) in unit.iter().enumerate() {
            units.entry(of).or_default().push((stratum.map_or(0, |stratum| stratum[place]), place));
        }
        let mut classes: BTreeMap<Vec<usize>, Class> = BTreeMap::new();
        for mut members in units.into_values() {
            members.sort_unstable();
            let strata: Vec<usize> = members.iter().map(|&(stratum, _)| stratum).collect();
            let runs = strata.chunk_by(|x, y| x == y).map(<[usize]>::len).collect();
            let class = classes.entry(strata).or_insert(Class { places: Vec::new(), runs });
            class.places.extend(members.iter().map(|&(_, place)| place));
        }
        Self { n_a, n_b, seed, classes: classes.into_values().collect() }
    }

    /// In how many ways they can label that tell different things: swapping the names of the groups leaves |d| the same. Infinite
    /// where there are more than an `f64` counts.
    pub fn labelings(&self) -> f64 {
        let (mut ways, mut turns) = (1.0, true);
        for class in &self.classes {
            let mut patterns: BTreeMap<Vec<usize>, usize> = BTreeMap::new();
            for unit in class.units() {
                let pattern = class.pattern(unit, self.n_a);
                ways *= pattern.iter().zip(&class.runs).map(|(&of_a, &run)| choices(run, of_a)).product::<f64>();
                *patterns.entry(pattern).or_default() += 1;
            }
            let mut left = class.units().len();
            for (pattern, &count) in &patterns {
                ways *= choices(left, count);
                left -= count;
                let turned: Vec<usize> = pattern.iter().zip(&class.runs).map(|(of_a, run)| run - of_a).collect();
                turns = turns && patterns.get(&turned) == Some(&count);
            }
        }
        if turns { ways / 2.0 } else { ways }
    }

    /// How many items have the same label in every shuffle: those of units that can change places only with units labelled as they
    /// are. What they differ in is in every shuffled statistic too.
    pub fn fixed(&self) -> usize {
        let of_class = |class: &Class| {
            let patterns: Vec<Vec<usize>> = class.units().map(|unit| class.pattern(unit, self.n_a)).collect();
            let same = |run: usize, of_a: usize| patterns.iter().all(|pattern| pattern[run] == of_a);
            let fixed = |(run, &size): (usize, &usize)| if same(run, 0) || same(run, size) { size } else { 0 };
            patterns.len() * class.runs.iter().enumerate().map(fixed).sum::<usize>()
        };
        self.classes.iter().map(of_class).sum()
    }

    /// Shuffle number `k`: one label per pooled item, exactly `n_a` of them true, by stream `k` of [`Random`].
    pub fn labels(&self, k: u64) -> Vec<bool> {
        let mut labels = vec![false; self.n_a + self.n_b];
        self.order(k)[..self.n_a].iter().for_each(|&item| labels[item] = true);
        labels
    }

    /// Shuffle number `k` as the item at each place, of which the first `n_a` are group a's: the same relabeling as
    /// [`Shuffles::labels`], for what is bound to places, such as [`Folds`](crate::Folds).
    pub fn order(&self, k: u64) -> Vec<usize> {
        let mut random = Random::new(self.seed, k);
        let mut order = vec![0; self.n_a + self.n_b];
        let (mut goes_to, mut items) = (Vec::new(), Vec::new());
        for class in &self.classes {
            goes_to.clear();
            goes_to.extend(class.units());
            random.shuffle(&mut goes_to);
            for (unit, places) in class.units().zip(&goes_to) {
                items.clear();
                items.extend_from_slice(unit);
                let mut rest = &mut items[..];
                for &run in &class.runs {
                    let (own, others) = rest.split_at_mut(run);
                    random.shuffle(own);
                    rest = others;
                }
                places.iter().zip(&items).for_each(|(&place, &item)| order[place] = item);
            }
        }
        order
    }

    /// Shuffles 0, 1, 2 and so on without end: `.iter().take(1000)`.
    pub fn iter(&self) -> impl Iterator<Item = Vec<bool>> + use<> {
        let shuffles = self.clone();
        (0..).map(move |k| shuffles.labels(k))
    }
}

/// [`Shuffles`] of observed labels (`true` = group a) that stand in any order.
#[derive(Clone, Debug)]
pub struct Relabelings {
    order: Vec<usize>,
    shuffles: Shuffles,
}

impl Relabelings {
    /// As [`Shuffles::whole`], with the sizes found in the labels; `unit` and `stratum` are those of each item.
    pub fn new(labels: &[bool], seed: u64, unit: &[usize], stratum: Option<&[usize]>) -> Self {
        let order = a_first(labels);
        let (n_a, n_b) = group_sizes(labels);
        let at = |of: &[usize]| order.iter().map(|&item| of[item]).collect::<Vec<_>>();
        let shuffles = Shuffles::whole(n_a, n_b, seed, &at(unit), stratum.map(at).as_deref());
        Self { order, shuffles }
    }

    /// As [`Shuffles::labelings`].
    pub fn labelings(&self) -> f64 {
        self.shuffles.labelings()
    }

    /// As [`Shuffles::fixed`].
    pub fn fixed(&self) -> usize {
        self.shuffles.fixed()
    }

    /// Relabeling number `k`, one label per item.
    pub fn labels(&self, k: u64) -> Vec<bool> {
        let mut labels = vec![false; self.order.len()];
        self.order.iter().zip(self.shuffles.labels(k)).for_each(|(&item, label)| labels[item] = label);
        labels
    }
}

/// The items of group a, then those of b, each group in its order.
pub(crate) fn a_first(labels: &[bool]) -> Vec<usize> {
    let (a, b): (Vec<usize>, Vec<usize>) = (0..labels.len()).partition(|&item| labels[item]);
    [a, b].concat()
}

/// In how many ways `some` of `n` can be chosen.
fn choices(n: usize, some: usize) -> f64 {
    (1..=some.min(n - some)).map(|i| (n + 1 - i) as f64 / i as f64).product::<f64>().round()
}

/// Which values count as at least as extreme as the observed one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Those at least as far from 0, on either side.
    TwoSided,
    /// Those at least as large.
    Greater,
}

/// Permutation p-value `(1 + #{null >= observed}) / (1 + B)` for `B` shuffled statistics (Phipson and Smyth 2010);
/// never 0, and 1 for an empty null.
///
/// NaN if `observed` is. What cannot be compared counts against the finding: a NaN in the null is taken as
/// extreme, an infinite observation gives 1, and a null value within 1e-10 (relative) below the observation ties.
pub fn p_value(observed: f64, null: &[f64], tail: Tail) -> f64 {
    if observed.is_nan() {
        return f64::NAN;
    }
    (1 + as_extreme(observed, null, tail)) as f64 / (1 + null.len()) as f64
}

/// How many of `null` are as extreme as the observed value. Values that are equal but for rounding count, and so do NaNs.
pub fn as_extreme(observed: f64, null: &[f64], tail: Tail) -> usize {
    let size = |x: f64| if tail == Tail::TwoSided { x.abs() } else { x };
    let bar = size(observed) - TIE * observed.abs();
    null.iter().filter(|&&x| size(x).partial_cmp(&bar) != Some(Ordering::Less)).count()
}

/// Family-wise p-values from the distribution of the maximum statistic (Westfall and Young 1993, single step): the
/// chance that the most extreme of all statistics would be as extreme as this one, had the labels no meaning.
///
/// `null_max` holds one [`max_abs`] per shuffle, taken over the same family as `observed`; the observed values are
/// compared by absolute value. Degenerate input as in [`p_value`].
pub fn max_p_values(observed: &[f64], null_max: &[f64]) -> Vec<f64> {
    observed.iter().map(|&x| p_value(x, null_max, Tail::TwoSided)).collect()
}

/// The largest absolute value, NaN left out: a statistic that does not exist is not the largest. NaN if none exists,
/// which [`p_value`] then takes as extreme.
pub fn max_abs(statistics: &[f64]) -> f64 {
    statistics.iter().fold(f64::NAN, |largest, x| largest.max(x.abs()))
}

/// How many labels are true and how many false.
pub(crate) fn group_sizes(labels: &[bool]) -> (usize, usize) {
    let n_a = labels.iter().filter(|&&label| label).count();
    (n_a, labels.len() - n_a)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_sizes_stay_and_shuffles_differ() {
        let shuffles = Shuffles::new(5, 8, 42);
        for (k, labels) in shuffles.iter().take(50).enumerate() {
            assert_eq!(group_sizes(&labels), (5, 8));
            assert_eq!(labels, shuffles.labels(k as u64), "the iterator counts from 0");
            let mut order = shuffles.order(k as u64);
            assert!(order.iter().enumerate().all(|(place, &item)| labels[item] == (place < 5)));
            order.sort_unstable();
            assert_eq!(order, (0..13).collect::<Vec<_>>());
        }
        assert_ne!(shuffles.labels(0), shuffles.labels(1));
        assert_ne!(shuffles.labels(0), Shuffles::new(5, 8, 43).labels(0));
        assert!(Shuffles::new(0, 0, 1).labels(0).is_empty());
    }

    #[test]
    fn strata_keep_their_share_of_both_groups() {
        let stratum: Vec<usize> = (0..20).map(|place| [0, 1, 1, 2][place % 4]).collect();
        let shuffles = Shuffles::whole(8, 12, 3, &alone(20), Some(&stratum));
        let share = |labels: &[bool]| {
            let mut share = [0; 3];
            labels.iter().zip(&stratum).filter(|(label, _)| **label).for_each(|(_, &of)| share[of] += 1);
            share
        };
        let observed: Vec<bool> = (0..20).map(|place| place < 8).collect();
        let mut seen = std::collections::BTreeSet::new();
        for k in 0..50 {
            let labels = shuffles.labels(k);
            assert_eq!((group_sizes(&labels), share(&labels)), ((8, 12), share(&observed)));
            seen.insert(labels);
        }
        assert!(seen.len() > 45);
        let one = Shuffles::whole(8, 12, 3, &alone(20), Some(&[0; 20]));
        assert_eq!(one.order(7), Shuffles::new(8, 12, 3).order(7), "one stratum is none");
    }

    #[test]
    fn units_stay_together_and_meet_their_like() {
        // Units of 3, 3, 2, 2, 1 and 1 items, mixed with each other's places.
        let unit = [4, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 5];
        let shuffles = Shuffles::whole(5, 7, 3, &unit, None);
        let mut seen = std::collections::BTreeSet::new();
        for k in 0..1500 {
            let order = shuffles.order(k);
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, alone(12), "one item a place");
            for (place, &item) in order.iter().enumerate() {
                let stands_at: Vec<usize> = (0..12).filter(|&other| unit[order[other]] == unit[item]).collect();
                assert!(stands_at.iter().all(|&other| unit[other] == unit[place]), "{order:?}");
            }
            seen.insert(shuffles.labels(k));
        }
        // Both units of 3 and both of 2 have one a each; either single may be a.
        assert_eq!((shuffles.labelings(), seen.len()), (3.0 * 3.0 * 2.0 * 2.0 * 2.0, 72));
        assert_eq!(Shuffles::whole(5, 7, 3, &alone(12), None).order(9), Shuffles::new(5, 7, 3).order(9));
    }

    #[test]
    fn units_change_with_those_that_have_as_many_of_each_stratum() {
        let (unit, stratum) = ([0, 0, 1, 1, 2, 2, 3, 3], [0, 1, 0, 1, 0, 0, 0, 0]);
        let shuffles = Shuffles::whole(4, 4, 3, &unit, Some(&stratum));
        for order in (0..50).map(|k| shuffles.order(k)) {
            assert!(order.iter().enumerate().all(|(place, &item)| stratum[place] == stratum[item]), "{order:?}");
            assert!((0..4).all(|half| unit[order[2 * half]] == unit[order[2 * half + 1]]), "{order:?}");
            assert!(order[..4].iter().all(|&item| item < 4), "units of one stratum stay among themselves: {order:?}");
        }
        assert_eq!(shuffles.labelings(), 1.0, "all of the first two units are a's");
    }

    #[test]
    fn labels_in_any_order_are_dealt_out_by_whole_units() {
        let labels: Vec<bool> = (0..12).map(|item| item % 3 == 1).collect();
        let (unit, stratum) = ((0..12).map(|item| item / 3).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1]);
        let relabelings = Relabelings::new(&labels, 5, &unit, Some(&stratum));
        assert_eq!(relabelings.labelings(), 81.0, "one of three is an a, four times");
        let drawn: std::collections::BTreeSet<Vec<bool>> = (0..2000).map(|k| relabelings.labels(k)).collect();
        assert!(drawn.iter().all(|labels| labels.chunks(3).all(|unit| group_sizes(unit) == (1, 2))));
        assert_eq!(drawn.len(), 81);
        let alone = Relabelings::new(&labels, 5, &alone(12), None);
        assert_eq!(group_sizes(&alone.labels(3)), (4, 8));
    }

    #[test]
    fn labelings_are_counted() {
        for (n_a, n, expected) in [(2, 5, 10.0), (3, 6, 10.0), (4, 8, 35.0), (1, 2, 1.0), (20, 40, 68_923_264_410.0)] {
            assert_eq!(Shuffles::new(n_a, n - n_a, 0).labelings(), expected, "{n_a} of {n}");
        }
        let pair = Shuffles::whole(2, 3, 0, &alone(5), Some(&[0, 1, 0, 2, 2]));
        assert_eq!(pair.labelings(), 2.0, "one pair changes places, and three items cannot");
        let questions: Vec<usize> = (0..80).map(|place| place / 5).collect();
        assert_eq!(Shuffles::whole(40, 40, 0, &questions, None).labelings(), 6435.0, "8 of 16 questions");
        let both: Vec<usize> = (0..12).map(|place| place % 6).collect();
        assert_eq!(Shuffles::whole(6, 6, 0, &both, None).labelings(), 32.0, "either of two, six times");
        assert_eq!(Shuffles::new(2000, 2000, 0).labelings(), f64::INFINITY);
    }

    #[test]
    fn labels_that_never_change_are_counted() {
        let drawn = |shuffles: &Shuffles, n_a: usize, n: usize| {
            let same = |place: usize| (0..500).all(|k| shuffles.labels(k)[place] == (place < n_a));
            (0..n).filter(|&place| same(place)).count()
        };
        // Units of three and of two a's, of one b and one of both; one unit of two b's and two of one.
        let unit = [0, 0, 0, 1, 1, 2, 3, 3, 4, 5];
        let strata: [usize; 10] = [0, 0, 0, 1, 1, 0, 0, 0, 1, 0];
        for (n_a, stratum, fixed) in [(6, None, 3), (6, Some(&strata[..]), 8), (5, None, 6), (5, Some(&strata), 10)] {
            let shuffles = Shuffles::whole(n_a, 10 - n_a, 1, &unit, stratum);
            assert_eq!((shuffles.fixed(), drawn(&shuffles, n_a, 10)), (fixed, fixed), "{n_a} {stratum:?}");
        }
        // A unit's own items change labels among themselves.
        let mixed = Shuffles::whole(2, 4, 1, &[0, 1, 0, 0, 1, 1], None);
        assert_eq!((mixed.fixed(), drawn(&mixed, 2, 6)), (0, 0));
        assert_eq!(Shuffles::new(4, 6, 0).fixed(), 0);
        let labels = [false, true, false, true];
        assert_eq!(Relabelings::new(&labels, 0, &[0, 1, 0, 2], None).fixed(), 4, "two b's of one unit, and two a's");
    }

    #[test]
    fn every_split_is_equally_likely() {
        // 4 items, 2 per group: 6 splits, 6000 shuffles; the sd of a count is 29.
        let mut seen = [0u32; 16];
        for labels in Shuffles::new(2, 2, 9).iter().take(6000) {
            seen[labels.iter().fold(0, |code, &label| code * 2 + usize::from(label))] += 1;
        }
        let splits: Vec<u32> = seen.into_iter().filter(|&count| count > 0).collect();
        assert_eq!(splits.len(), 6);
        assert!(splits.iter().all(|count| (885..1115).contains(count)), "{splits:?}");
    }

    #[test]
    fn p_counts_the_observed_itself() {
        let null = [-3.0, -1.0, 0.5, 2.0];
        assert_eq!(p_value(2.0, &null, Tail::Greater), 2.0 / 5.0);
        assert_eq!(p_value(2.0, &null, Tail::TwoSided), 3.0 / 5.0);
        assert_eq!(p_value(-2.0, &null, Tail::TwoSided), 3.0 / 5.0);
        assert_eq!(p_value(-2.0, &null, Tail::Greater), 4.0 / 5.0);
        assert_eq!(p_value(9.0, &null, Tail::Greater), 1.0 / 5.0);
        assert_eq!(p_value(0.0, &null, Tail::TwoSided), 1.0);
    }

    #[test]
    fn doubt_counts_against_the_finding() {
        assert_eq!(p_value(2.0, &[], Tail::Greater), 1.0);
        assert_eq!(p_value(2.0, &[f64::NAN, 1.0], Tail::Greater), 2.0 / 3.0);
        assert_eq!(p_value(2.0, &[2.0 - 1e-13, 1.0], Tail::Greater), 2.0 / 3.0, "a tie but for rounding");
        assert_eq!(p_value(f64::INFINITY, &[1.0, 1.0, 1.0], Tail::TwoSided), 1.0);
        assert!(p_value(f64::NAN, &[1.0], Tail::TwoSided).is_nan());
    }

    #[test]
    fn maxima_skip_what_does_not_exist() {
        assert_eq!(max_abs(&[1.0, f64::NAN, -3.0]), 3.0);
        assert!(max_abs(&[f64::NAN]).is_nan() && max_abs(&[]).is_nan());
        let p = max_p_values(&[0.5, -2.5, f64::NAN], &[1.0, 2.0, 3.0]);
        assert_eq!(p[..2], [1.0, 0.5]);
        assert!(p[2].is_nan());
    }
}
