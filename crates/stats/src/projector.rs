//! The fast way to the naive and the cross-fitted d of many labelings.

#![expect(clippy::inline_always, reason = "what runs in wider registers must be one function, see `Separate`")]

use crate::adjust::{Adjustment, Covariates, take_out};
use crate::direction::{Pooled, d_of_projections, longest};
use crate::effect::NO_SPREAD;
use crate::folds::Folds;
use crate::table::centre;
use crate::vector::dot;
use pulp::{Arch, NullaryFnOnce};

/// Vectors made ready for the directional statistics of many labelings, as a null distribution needs.
///
/// The vectors are centred on their grand mean, and never projected on a direction themselves. With few items, sums of rows of the
/// Gram matrix `[items, items]` over the items of each fold and group are enough, so a labeling costs `items²` additions per
/// repeat, whatever the dimension. With more than two items per dimension the vectors themselves are the smaller table.
/// [`naive_direction`](crate::naive_direction) and [`held_out_d`](crate::held_out_d) define the results.
#[derive(Clone, Debug)]
pub struct Projector {
    /// Inner products of the centred vectors `[items, items]`, or the centred vectors `[items, dim]`.
    table: Vec<f64>,
    width: usize,
    is_gram: bool,
    items: usize,
    /// A spread that is not above this is rounding.
    floor: f64,
    /// The sum of squares of the centred vectors.
    squares: f64,
}

/// How far apart two groups lie along the direction of their means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Separation {
    /// On the very items that defined the direction ([`Direction::d_naive`](crate::Direction::d_naive)): only the
    /// comparison with shuffled labels is evidence.
    pub naive: f64,
    /// On held-out items ([`held_out_d`](crate::held_out_d)).
    pub crossfit: f64,
    /// The same with the spread of [`welch_d`](crate::welch_d): what shuffled labels are compared by.
    pub crossfit_welch: f64,
}

impl Projector {
    /// Takes row-major vectors `[items, dim]`. Panics if `vectors` is not a whole number of rows, or `dim` is 0.
    pub fn new(vectors: &[f64], dim: usize) -> Self {
        Self::above(vectors, dim, NO_SPREAD * longest(vectors, dim))
    }

    /// The same for vectors that are what is left of longer ones. Where nothing is left, they are the rounding of those, which their
    /// own length does not show. `floor`, in the unit of the vectors, is how far that rounding reaches: along a direction no longer
    /// than this, or with a spread no larger, every d is 0.
    pub fn above(vectors: &[f64], dim: usize, floor: f64) -> Self {
        let (centred, _) = centre(vectors, dim);
        let items = vectors.len() / dim;
        let squares = dot(&centred, &centred);
        if items > 2 * dim {
            return Self { table: centred, width: dim, is_gram: false, items, floor, squares };
        }
        Self { table: gram(&centred, dim), width: items, is_gram: true, items, floor, squares }
    }

    /// The same vectors, for these items only.
    #[must_use]
    pub fn of(&self, items: &[usize]) -> Self {
        let (table, width) = if self.is_gram {
            let products = items.iter().flat_map(|&item| items.iter().map(move |&other| self.row(item)[other]));
            (products.collect(), items.len())
        } else {
            (items.iter().flat_map(|&item| self.row(item).iter().copied()).collect(), self.width)
        };
        Self { table, width, items: items.len(), ..*self }
    }

    /// Residuals that changed places, `order[place]` being the item whose residual is now at each place, less what the covariates explain
    /// of them there: what shuffled labels are compared with where covariates do not go along with the shuffle (Freedman and Lane
    /// 1983). Labels, folds and covariates stay where they are, so that both comparisons share what these have in common.
    #[must_use]
    pub fn exchanged(&self, order: &[usize], covariates: &Covariates) -> Self {
        let mut out = self.of(order);
        for axis in covariates.moving() {
            take_out(axis, &mut out.table, out.width);
            if out.is_gram {
                // Of products, on the other side as well.
                for row in out.table.chunks_exact_mut(out.width) {
                    let share = dot(row, axis);
                    row.iter_mut().zip(axis).for_each(|(x, z)| *x -= share * z);
                }
            }
        }
        out.squares = if out.is_gram {
            (0..out.items).map(|item| out.row(item)[item]).sum()
        } else {
            dot(&out.table, &out.table)
        };
        out
    }

    /// Both d where `order[place]` is the item at each place of `folds`. Degenerate input as in [`held_out_d`](crate::held_out_d).
    /// Panics unless `order` has one item per place.
    pub fn separation(&self, order: &[usize], folds: &Folds) -> Separation {
        self.separation_beside(order, folds, &Adjustment::default())
    }

    /// [`Projector::separation`] of vectors from which covariates were taken out. `adjustment` is their
    /// [`Covariates::adjustment`](crate::Covariates::adjustment) for this order and these folds.
    pub fn separation_beside(&self, order: &[usize], folds: &Folds, adjustment: &Adjustment) -> Separation {
        Arch::new().dispatch(Separate { projector: self, order, folds, adjustment })
    }

    #[inline(always)]
    fn separate(&self, order: &[usize], folds: &Folds, adjustment: &Adjustment) -> Separation {
        let (n_a, n_b) = folds.sizes();
        assert_eq!((self.items, order.len()), (n_a + n_b, n_a + n_b), "one item a place");
        if n_a < 2 || n_b < 2 {
            return Separation { naive: f64::NAN, crossfit: f64::NAN, crossfit_welch: f64::NAN };
        }
        let mut naive = f64::NAN;
        let (mut crossfit, mut welch) = (0.0, 0.0);
        let mut sums = Sums::new(folds.count(), self.width);
        for repeat in 0..folds.repeats() {
            sums.fill(self, order, folds.cells(repeat));
            if repeat == 0 {
                naive = self.naive(&sums, order, (n_a, n_b));
            }
            let found = self.crossfit(&mut sums, (n_a, n_b), |fold| adjustment.leak(repeat, fold) * self.squares);
            (crossfit, welch) = (crossfit + found.d(self.floor), welch + found.welch_d(self.floor));
        }
        if folds.leaves_none() {
            (crossfit, welch) = (f64::NAN, f64::NAN);
        }
        let [crossfit, crossfit_welch] = [crossfit, welch].map(|sum| adjustment.held_out(sum / folds.repeats() as f64));
        Separation { naive: adjustment.all(naive), crossfit, crossfit_welch }
    }

    /// d of all items along v.
    #[inline(always)]
    fn naive(&self, sums: &Sums, order: &[usize], (n_a, n_b): (usize, usize)) -> f64 {
        let of_both = sums.total[0].iter().zip(&sums.total[1]);
        let v: Vec<f64> = of_both.map(|(a, b)| a / n_a as f64 - b / n_b as f64).collect();
        let mut along = Vec::with_capacity(order.len());
        for &item in order {
            along.push(self.project(item, &v));
        }
        let labels: Vec<bool> = (0..order.len()).map(|place| place < n_a).collect();
        d_of_projections(&along, &labels, self.floor)
    }

    /// Held-out items in one repeat. `leak` gives a fold's leak: that of its groups' difference, times the direction's length.
    #[inline(always)]
    fn crossfit(&self, sums: &mut Sums, (n_a, n_b): (usize, usize), leak: impl Fn(usize) -> f64) -> Pooled {
        let mut found = Pooled::default();
        if self.is_gram {
            sums.multiply();
        }
        let (mut along, mut v) = ([Vec::new(), Vec::new()], Vec::new());
        for fold in 0..sums.items.len() / 2 {
            let [of_a, of_b] = [2 * fold, 2 * fold + 1];
            let per_a = 1.0 / (n_a - sums.items[of_a].len()) as f64;
            let per_b = 1.0 / (n_b - sums.items[of_b].len()) as f64;
            if !self.is_gram {
                let rest = |group: usize| sums.total[group].iter().zip(sums.row(2 * fold + group));
                v.clear();
                v.extend(rest(0).zip(rest(1)).map(|((a, x), (b, y))| (a - x) * per_a - (b - y) * per_b));
            }
            let square = if self.is_gram { sums.square(fold, per_a, per_b) } else { dot(&v, &v) };
            let size = square.max(0.0).sqrt();
            let scale = if size > self.floor { 1.0 / size } else { 0.0 };
            for (along, cell) in along.iter_mut().zip([of_a, of_b]) {
                along.clear();
                // A loop, as the adapters of iterators are not compiled for wider registers.
                for &item in &sums.items[cell] {
                    // The product with v: with a Gram matrix, it is in the sums already.
                    let product = if self.is_gram {
                        (sums.total[0][item] - sums.row(of_a)[item]) * per_a
                            - (sums.total[1][item] - sums.row(of_b)[item]) * per_b
                    } else {
                        self.project(item, &v)
                    };
                    along.push(product * scale);
                }
            }
            found.add(&along[0], &along[1], leak(fold) * scale);
        }
        found
    }

    /// The product of an item with v.
    #[inline(always)]
    fn project(&self, item: usize, v: &[f64]) -> f64 {
        if self.is_gram { v[item] } else { dot(self.row(item), v) }
    }

    fn row(&self, item: usize) -> &[f64] {
        &self.table[item * self.width..(item + 1) * self.width]
    }
}

/// [`Projector::separation_beside`], compiled for wider registers as well: the same sums in the same order, so the same bits. A
/// closure would not be: its call is a function of its own.
struct Separate<'a> {
    projector: &'a Projector,
    order: &'a [usize],
    folds: &'a Folds,
    adjustment: &'a Adjustment,
}

impl NullaryFnOnce for Separate<'_> {
    type Output = Separation;

    #[inline(always)]
    fn call(self) -> Separation {
        self.projector.separate(self.order, self.folds, self.adjustment)
    }
}

/// Sums of rows of a [`Projector`]'s table over cells: the items of one fold and group, a's of fold f at `2 f`, b's at
/// `2 f + 1`.
struct Sums {
    /// `[cell, width]`
    rows: Vec<f64>,
    width: usize,
    /// Sums over all folds, by group.
    total: [Vec<f64>; 2],
    /// The items of each cell.
    items: Vec<Vec<usize>>,
    /// With a Gram matrix: the products of the sums of any two cells, `[cell, cell]`.
    products: Vec<f64>,
}

impl Sums {
    fn new(count: usize, width: usize) -> Self {
        let (cells, total) = (2 * count, [vec![0.0; width], vec![0.0; width]]);
        let items = vec![Vec::new(); cells];
        Self { rows: vec![0.0; cells * width], width, total, items, products: vec![0.0; cells * cells] }
    }

    /// Makes the sums anew, four rows at a time: reading costs the time, not adding.
    #[inline(always)]
    fn fill(&mut self, of: &Projector, order: &[usize], cells: &[Vec<usize>]) {
        self.rows.fill(0.0);
        self.total.iter_mut().for_each(|total| total.fill(0.0));
        for (cell, places) in cells.iter().enumerate() {
            let items = &mut self.items[cell];
            items.clear();
            items.extend(places.iter().map(|&place| order[place]));
            let sums = &mut self.rows[cell * self.width..(cell + 1) * self.width];
            let (fours, rest) = items.as_chunks::<4>();
            let (twos, rest) = rest.as_chunks::<2>();
            for four in fours {
                let [a, b, c, d] = four.map(|item| &of.row(item)[..sums.len()]);
                for (at, sum) in sums.iter_mut().enumerate() {
                    *sum += (a[at] + b[at]) + (c[at] + d[at]);
                }
            }
            for two in twos {
                let [a, b] = two.map(|item| &of.row(item)[..sums.len()]);
                for (at, sum) in sums.iter_mut().enumerate() {
                    *sum += a[at] + b[at];
                }
            }
            for &item in rest {
                sums.iter_mut().zip(of.row(item)).for_each(|(sum, x)| *sum += x);
            }
            self.total[cell % 2].iter_mut().zip(&*sums).for_each(|(total, sum)| *total += sum);
        }
    }

    fn row(&self, cell: usize) -> &[f64] {
        &self.rows[cell * self.width..(cell + 1) * self.width]
    }

    /// The products of any two cells, for rows that are products with the items.
    #[inline(always)]
    fn multiply(&mut self) {
        let cells = self.items.len();
        for cell in 0..cells {
            for other in 0..=cell {
                let row = &self.rows[cell * self.width..(cell + 1) * self.width];
                let product = self.items[other].iter().map(|&item| row[item]).sum();
                self.products[cell * cells + other] = product;
                self.products[other * cells + cell] = product;
            }
        }
    }

    /// The squared length of v of all folds but one.
    #[inline(always)]
    fn square(&self, fold: usize, per_a: f64, per_b: f64) -> f64 {
        let cells = self.items.len();
        let weight = |cell: usize| match (cell / 2 == fold, cell % 2) {
            (true, _) => 0.0,
            (false, 0) => per_a,
            (false, _) => -per_b,
        };
        (0..cells)
            .map(|cell| {
                let row = &self.products[cell * cells..(cell + 1) * cells];
                weight(cell) * row.iter().enumerate().map(|(other, x)| weight(other) * x).sum::<f64>()
            })
            .sum()
    }
}

/// Inner products of all pairs of rows.
fn gram(rows: &[f64], dim: usize) -> Vec<f64> {
    let items = rows.len() / dim;
    let mut products = vec![0.0; items * items];
    for (i, x) in rows.chunks_exact(dim).enumerate() {
        for (j, y) in rows.chunks_exact(dim).enumerate().take(i + 1) {
            let product = dot(x, y);
            products[i * items + j] = product;
            products[j * items + i] = product;
        }
    }
    products
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::direction::{across_the_mean, held_out};
    use crate::laws::normal_table;
    use crate::permute::Shuffles;
    use crate::{held_out_d, naive_direction};

    /// Few items (Gram) and many (rows), either group the smaller, and a common mean a thousand times the spread.
    const SIZES: [(usize, usize, usize); 6] =
        [(9, 5, 40), (5, 9, 40), (30, 41, 12), (41, 30, 12), (3, 2, 1), (3, 3, 2)];

    fn vectors(seed: u64, items: usize, dim: usize) -> Vec<f64> {
        let mut vectors = normal_table(seed, items, &vec![1.0; dim]);
        for (i, x) in vectors.iter_mut().enumerate() {
            *x += ((i % dim) as f64).sin() * 1000.0;
        }
        vectors
    }

    fn assert_near(got: f64, want: f64, what: &str) {
        let same = got.is_nan() && want.is_nan();
        assert!(same || (got - want).abs() <= 1e-8 * want.abs().max(1.0), "{what}: {got} for {want}");
    }

    #[test]
    fn projector_agrees_with_the_direct_way() {
        let mut differ = false;
        for (n_a, n_b, dim) in SIZES {
            let vectors = vectors(6, n_a + n_b, dim);
            let projector = Projector::new(&vectors, dim);
            assert_eq!(projector.is_gram, n_a + n_b <= 2 * dim);
            let folds = Folds::new(n_a, n_b, 5, 3, 11);
            let shuffles = Shuffles::new(n_a, n_b, 2);
            for k in 0..20 {
                let what = format!("{n_a} + {n_b} items of {dim}, shuffle {k}");
                let found = projector.separation(&shuffles.order(k), &folds);
                assert_near(found.naive, naive_direction(&vectors, dim, &shuffles.labels(k)).d_naive, &what);
                let order = shuffles.order(k);
                assert_near(found.crossfit, held_out_d(&vectors, dim, &order, &folds), &what);
                let welch = held_out(&vectors, dim, &order, &folds, &Adjustment::default(), Pooled::welch_d);
                assert_near(found.crossfit_welch, welch, &what);
                differ |= (found.crossfit - found.crossfit_welch).abs() > 1e-3;
            }
        }
        assert!(differ, "groups of other sizes have another spread");
    }

    #[test]
    fn wider_registers_give_the_same_bits() {
        for (n_a, n_b, dim) in SIZES {
            let vectors = vectors(9, n_a + n_b, dim);
            let (projector, folds) = (Projector::new(&vectors, dim), Folds::new(n_a, n_b, 5, 3, 11));
            for k in 0..20 {
                let order = Shuffles::new(n_a, n_b, 2).order(k);
                let narrow = projector.separate(&order, &folds, &Adjustment::default());
                let wide = projector.separation(&order, &folds);
                let bits = |of: Separation| [of.naive, of.crossfit, of.crossfit_welch].map(f64::to_bits);
                assert_eq!(bits(wide), bits(narrow), "{n_a} + {n_b} items of {dim}, shuffle {k}");
            }
        }
    }

    #[test]
    fn a_part_of_the_items_is_as_good_as_a_projector_of_them() {
        for (n_a, n_b, dim) in [(9, 8, 40), (30, 41, 12)] {
            let vectors = vectors(5, n_a + n_b, dim);
            let part: Vec<usize> = (0..n_a + n_b).filter(|item| item % 3 != 1).collect();
            let of_part: Vec<f64> =
                part.iter().flat_map(|&item| vectors[item * dim..(item + 1) * dim].to_vec()).collect();
            let (in_a, in_b) = (part.iter().filter(|&&i| i < n_a).count(), part.iter().filter(|&&i| i >= n_a).count());
            let (folds, order) = (Folds::new(in_a, in_b, 5, 2, 1), (0..part.len()).collect::<Vec<_>>());
            let found = Projector::new(&vectors, dim).of(&part).separation(&order, &folds);
            assert_near(found.crossfit, held_out_d(&of_part, dim, &order, &folds), "a part");
            let labels: Vec<bool> = (0..part.len()).map(|place| place < in_a).collect();
            assert_near(found.naive, naive_direction(&of_part, dim, &labels).d_naive, "a part, naive");
        }
    }

    /// What is left of vectors of one direction once covariates and the mean are taken out is rounding that goes with the labels.
    #[test]
    fn rounding_of_longer_vectors_is_no_spread() {
        let (n_a, n_b) = (20, 20);
        let order: Vec<usize> = (0..n_a + n_b).collect();
        let folds = Folds::new(n_a, n_b, 5, 3, 1);
        let louder = |item: usize| if item < n_a { 1.5 } else { 1.0 } + 0.1 * (item % 7) as f64;
        let length: Vec<f64> = order.iter().map(|&item| ((item * 37) % 23) as f64 + louder(item)).collect();
        let strata: Vec<f64> = order.iter().map(|&item| (item % 2) as f64).collect();
        let mut flattered = 0;
        for dim in [12, 64] {
            let unit = normal_table(3, 1, &vec![1.0; dim]);
            for size in [&(|_| 3.0) as &dyn Fn(usize) -> f64, &louder] {
                let whole: Vec<f64> = order.iter().flat_map(|&i| unit.iter().map(move |u| size(i) * u)).collect();
                for taken in [vec![], vec![length.clone()], vec![strata.clone(), length.clone()]] {
                    let covariates = Covariates::new(n_a + n_b, &taken);
                    let left = across_the_mean(&covariates.residuals(&whole, dim), dim);
                    let adjustment = covariates.adjustment(&order, &folds);
                    let d = |of: Projector| of.separation_beside(&order, &folds, &adjustment);
                    let found = d(Projector::above(&left, dim, NO_SPREAD * longest(&whole, dim)));
                    let none = Separation { naive: 0.0, crossfit: 0.0, crossfit_welch: 0.0 };
                    assert_eq!(found, none, "{dim} dimensions, {} covariates", taken.len());
                    flattered += usize::from(d(Projector::new(&left, dim)).crossfit > 0.5);
                }
            }
        }
        assert!(flattered > 0, "or nothing had to be done");
    }

    #[test]
    fn degenerate_vectors_do_not_flatter() {
        let order = [0, 1, 2, 3, 4];
        let folds = Folds::new(3, 2, 5, 2, 0);
        for vectors in [[0.1, 0.7, 0.3].repeat(5), vec![0.0; 15]] {
            let found = Projector::new(&vectors, 3).separation(&order, &folds);
            assert_eq!((found.naive, found.crossfit), (0.0, 0.0));
        }
        let mut vectors = normal_table(7, 5, &[1.0; 3]);
        assert!(Projector::new(&vectors[..6], 3).separation(&[0, 1], &Folds::new(1, 1, 5, 2, 0)).crossfit.is_nan());
        vectors[4] = f64::NAN;
        let found = Projector::new(&vectors, 3).separation(&order, &folds);
        assert!(found.naive.is_nan() && found.crossfit.is_nan());
    }
}
