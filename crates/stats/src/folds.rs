//! Stratified folds: every item is measured by what only the others have defined.

use crate::{
    random::Random,
    units::{alone, by_group},
};

/// Streams of the folds begin here, so that a seed's folds have nothing to do with its shuffles.
const STREAM: u64 = 0xf01d_0000_0000;

/// Repeated stratified folds over *places*: the first `n_a` places are group a's, the others group b's.
///
/// Which item stands at which place is another matter ([`Shuffles::order`](crate::Shuffles::order)): shuffled labels are items that
/// changed places. They meet the same folds, so observed and null come from one procedure. Each group is dealt out evenly, in an
/// order that depends only on the sizes, the units, the seed and the number of the repeat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Folds {
    n_a: usize,
    n_b: usize,
    count: usize,
    /// The fold of each place, one row per repeat.
    fold_of: Vec<Vec<u16>>,
    /// The places of each fold of each group, `[repeat][2 * fold + group]`.
    places: Vec<Vec<Vec<usize>>>,
}

impl Folds {
    /// `repeats` times `count` folds. There are fewer folds where the smaller group would have fewer than two items in one, but at
    /// least two.
    pub fn new(n_a: usize, n_b: usize, count: usize, repeats: usize, seed: u64) -> Self {
        Self::whole((n_a, n_b), count, repeats, seed, &alone(n_a + n_b))
    }

    /// The same where units stay together, such as the answers to one prompt: what they share cannot be learnt from some and held
    /// against others. Units, not items, are counted and dealt out. Panics unless there is one unit per place.
    pub fn whole((n_a, n_b): (usize, usize), count: usize, repeats: usize, seed: u64, unit: &[usize]) -> Self {
        assert_eq!(unit.len(), n_a + n_b, "one unit a place");
        let kinds = by_group(unit, |place| place < n_a);
        let [of_a, of_both, of_b] = kinds.each_ref().map(Vec::len);
        let count = count.min((of_a + of_both).min(of_both + of_b) / 2).max(2);
        let fold_of: Vec<Vec<u16>> = (0..repeats as u64).map(|repeat| deal(&kinds, count, seed, repeat)).collect();
        let cells = |fold_of: &Vec<u16>| {
            let mut cells = vec![Vec::new(); 2 * count];
            for (place, &fold) in fold_of.iter().enumerate() {
                cells[2 * usize::from(fold) + usize::from(place >= n_a)].push(place);
            }
            cells
        };
        let places = fold_of.iter().map(cells).collect();
        Self { n_a, n_b, count, fold_of, places }
    }

    /// Whether a fold has all of a group in some repeat, so that the others define no direction.
    pub fn leaves_none(&self) -> bool {
        let all = |(at, places): (usize, &Vec<usize>)| places.len() == if at % 2 == 0 { self.n_a } else { self.n_b };
        self.places.iter().any(|cells| cells.iter().enumerate().any(all))
    }

    /// Items of group a and of group b.
    pub fn sizes(&self) -> (usize, usize) {
        (self.n_a, self.n_b)
    }

    /// How many folds there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// How many times the items are dealt out.
    pub fn repeats(&self) -> usize {
        self.fold_of.len()
    }

    /// The places of every fold in one repeat: group a's of fold f at `2 f`, group b's at `2 f + 1`.
    pub fn cells(&self, repeat: usize) -> &[Vec<usize>] {
        &self.places[repeat]
    }

    /// The fold of each place in one repeat, below [`Folds::count`].
    pub fn fold_of(&self, repeat: usize) -> &[u16] {
        &self.fold_of[repeat]
    }
}

/// Deals out units of every kind. Each kind goes on where the one before ended, so the folds are of equal size to within one unit.
fn deal(kinds: &[Vec<Vec<usize>>; 3], count: usize, seed: u64, repeat: u64) -> Vec<u16> {
    let mut random = Random::new(seed, STREAM + repeat);
    let mut fold_of = vec![0; kinds.iter().flatten().map(Vec::len).sum()];
    let mut dealt = 0;
    for kind in kinds {
        let mut units: Vec<&Vec<usize>> = kind.iter().collect();
        random.shuffle(&mut units);
        for unit in units {
            for &place in unit {
                fold_of[place] = (dealt % count) as u16;
            }
            dealt += 1;
        }
    }
    fold_of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_groups_are_dealt_evenly_and_never_the_same_way() {
        let folds = Folds::new(64, 18, 5, 10, 3);
        assert_eq!((folds.count(), folds.repeats(), folds.sizes()), (5, 10, (64, 18)));
        for repeat in 0..10 {
            let of = folds.fold_of(repeat);
            for fold in 0..5 {
                let in_fold = |places: &[u16]| places.iter().filter(|&&f| f == fold).count();
                assert!((12..=13).contains(&in_fold(&of[..64])) && (3..=4).contains(&in_fold(&of[64..])));
                assert!((16..=17).contains(&in_fold(of)));
            }
        }
        assert_ne!(folds.fold_of(0), folds.fold_of(1));
        assert_eq!(folds, Folds::new(64, 18, 5, 10, 3));
        assert_ne!(folds, Folds::new(64, 18, 5, 10, 4));
    }

    #[test]
    fn units_stay_together() {
        // Two units of a, five of both, five of b.
        let unit: Vec<usize> = (0..60).map(|place| if place < 35 { place % 7 } else { 5 + place % 7 }).collect();
        let n_a = 30;
        let folds = Folds::whole((n_a, 60 - n_a), 5, 4, 1, &unit);
        for repeat in 0..4 {
            let of = folds.fold_of(repeat);
            assert!((0..60).all(|x| (0..60).all(|y| unit[x] != unit[y] || of[x] == of[y])), "{of:?}");
        }
        assert_eq!((folds.count(), folds.leaves_none()), (3, false));
        assert_eq!(Folds::whole((64, 18), 5, 10, 3, &alone(82)), Folds::new(64, 18, 5, 10, 3));
        let one: Vec<usize> = (0..60).map(|place| if place < n_a { 0 } else { place }).collect();
        assert!(Folds::whole((n_a, 60 - n_a), 5, 1, 1, &one).leaves_none(), "all of a in one unit");
    }

    #[test]
    fn small_groups_have_fewer_folds() {
        for ((n_a, n_b), count) in [((64, 9), 4), ((4, 30), 2), ((2, 2), 2), ((3, 3), 2), ((10, 10), 5)] {
            assert_eq!(Folds::new(n_a, n_b, 5, 1, 0).count(), count);
        }
    }
}
