//! Whether a ranking would come out again: two halves of the items, ranked separately.

use crate::folds::Folds;
use crate::rank::spearman;
use crate::summary::mean;
use crate::units::alone;

/// Random halves of two groups: each half holds half of each group.
#[derive(Clone, Debug)]
pub struct Halves {
    halves: Folds,
    /// The unit of each place.
    unit: Vec<usize>,
}

impl Halves {
    /// `splits` ways to halve `n_a` and `n_b` items.
    pub fn new(n_a: usize, n_b: usize, splits: usize, seed: u64) -> Self {
        Self::whole((n_a, n_b), splits, seed, &alone(n_a + n_b))
    }

    /// The same where units stay together ([`Folds::whole`]).
    pub fn whole(sizes: (usize, usize), splits: usize, seed: u64, unit: &[usize]) -> Self {
        Self { halves: Folds::whole(sizes, 2, splits, seed ^ 0x5711, unit), unit: unit.to_vec() }
    }

    /// How many splits there are.
    pub fn splits(&self) -> usize {
        self.halves.repeats()
    }

    /// Folds within both halves of one split, for the items of [`Halves::of`], group a's first; units stay together.
    pub fn folds(&self, split: usize, count: usize, repeats: usize) -> [Folds; 2] {
        self.of(split, &alone(self.unit.len())).map(|[a, b]| {
            let unit: Vec<usize> = a.iter().chain(&b).map(|&place| self.unit[place]).collect();
            Folds::whole((a.len(), b.len()), count, repeats, 0, &unit)
        })
    }

    /// The items of both halves of one split, by group, where `order[place]` is the item at each place.
    pub fn of(&self, split: usize, order: &[usize]) -> [[Vec<usize>; 2]; 2] {
        let (n_a, _) = self.halves.sizes();
        let mut halves = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
        for (place, (&item, &half)) in order.iter().zip(self.halves.fold_of(split)).enumerate() {
            halves[usize::from(half)][usize::from(place >= n_a)].push(item);
        }
        halves
    }
}

/// Split-half reliability: Spearman's correlation between the statistics that `rank` gives for the two halves, averaged over the
/// splits. `rank` takes the items of a half, group a's and group b's, and returns one number per head.
///
/// By itself it proves nothing: a statistic that depends on more than the labels (d_naive, on how many dimensions a head
/// uses) ranks the halves of pure noise alike. Compare it with the same under shuffled labels.
pub fn split_half(halves: &Halves, order: &[usize], rank: impl Fn(&[usize], &[usize]) -> Vec<f64>) -> f64 {
    let of_split = |split: usize| {
        let [first, second] = halves.of(split, order).map(|[a, b]| rank(&a, &b));
        spearman(&first, &second)
    };
    mean(&(0..halves.splits()).map(of_split).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_share_nothing_and_leave_nothing_out() {
        let halves = Halves::new(7, 10, 3, 1);
        let order: Vec<usize> = (0..17).rev().collect();
        for split in 0..halves.splits() {
            let [first, second] = halves.of(split, &order);
            assert!((3..=4).contains(&first[0].len()) && first[1].len() == 5 && second[1].len() == 5);
            assert!(first[0].iter().chain(&second[0]).all(|&item| item >= 10), "a's places hold the last items");
            let mut all: Vec<usize> = first.into_iter().chain(second).flatten().collect();
            all.sort_unstable();
            assert_eq!(all, (0..17).collect::<Vec<_>>());
        }
    }

    #[test]
    fn units_are_in_one_half_and_in_one_fold_of_it() {
        let unit: Vec<usize> = (0..40).map(|place| place % 20 / 2).collect();
        let halves = Halves::whole((20, 20), 3, 1, &unit);
        for split in 0..3 {
            let of = halves.of(split, &alone(40)).map(|groups| groups.concat());
            let units =
                of.each_ref().map(|half| half.iter().map(|&x| unit[x]).collect::<std::collections::BTreeSet<_>>());
            assert!(units[0].is_disjoint(&units[1]) && units[0].len() == 5);
            for (half, folds) in of.iter().zip(halves.folds(split, 2, 2)) {
                let fold = folds.fold_of(1);
                let together = |x: usize, y: usize| unit[half[x]] != unit[half[y]] || fold[x] == fold[y];
                assert!((0..half.len()).all(|x| (0..half.len()).all(|y| together(x, y))));
            }
        }
        let plain = Halves::new(7, 10, 3, 1);
        assert_eq!(plain.folds(1, 5, 2)[0], Folds::new(plain.of(1, &alone(17))[0][0].len(), 5, 5, 2, 0));
    }

    #[test]
    fn a_ranking_that_is_the_same_in_both_halves_is_stable() {
        let halves = Halves::new(6, 6, 4, 0);
        let order: Vec<usize> = (0..12).collect();
        assert_eq!(split_half(&halves, &order, |_, _| vec![0.1, 3.0, 2.0]), 1.0);
        assert!(split_half(&halves, &order, |_, _| vec![1.0; 3]).is_nan());
        // Whichever half has item 0 ranks one way, and the other half the other way.
        let turned = |a: &[usize], _: &[usize]| if a.contains(&0) { vec![1.0, 2.0, 3.0] } else { vec![3.0, 2.0, 1.0] };
        assert_eq!(split_half(&halves, &order, turned), -1.0);
    }
}
