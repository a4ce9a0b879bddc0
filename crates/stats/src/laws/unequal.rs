//! Cohorts of other sizes and other spreads, whose means are the same: what shuffled labels say of them.

use super::normal_table;
use crate::{Columns, Folds, Projector, Shuffles, Tail, p_value};

const SETS: u64 = 400;
const SHUFFLES: u64 = 199;
const N_A: usize = 12;
const N_B: usize = 48;
/// Three standard errors above 0.05.
const MOST: f64 = 0.083;
const DIM: usize = 12;

/// Vectors around one mean; those of the smaller cohort spread twice as far.
fn vectors(seed: u64) -> Vec<f64> {
    let mut vectors = normal_table(seed, N_A + N_B, &[1.0; DIM]);
    vectors[..N_A * DIM].iter_mut().for_each(|x| *x *= 2.0);
    vectors.chunks_exact_mut(DIM).for_each(|x| x[0] += 20.0);
    vectors
}

/// The shares of data sets whose p is at most 0.05, by the pooled spread and by Welch's. `measure` makes a data set ready, and gives the two
/// d of the items in an order, of which the first belong to the smaller cohort.
fn shares<D: Fn(&[usize]) -> [f64; 2]>(seed: u64, tail: Tail, measure: impl Fn(Vec<f64>) -> D) -> [f64; 2] {
    let p = |set: u64| {
        let (d, shuffles) = (measure(vectors(seed + set)), Shuffles::new(N_A, N_B, set));
        let observed = d(&(0..N_A + N_B).collect::<Vec<_>>());
        let null: Vec<[f64; 2]> = (0..SHUFFLES).map(|k| d(&shuffles.order(k))).collect();
        [0, 1].map(|which| p_value(observed[which], &null.iter().map(|d| d[which]).collect::<Vec<_>>(), tail))
    };
    let all: Vec<[f64; 2]> = (0..SETS).map(p).collect();
    [0, 1].map(|which| all.iter().filter(|p| p[which] <= 0.05).count() as f64 / SETS as f64)
}

fn assert_only_welch_holds([pooled, welch]: [f64; 2]) {
    println!("p of d at most 0.05: pooled {pooled}, Welch {welch}");
    assert!(pooled > 0.1, "the pooled spread is not what this test takes it for: {pooled}");
    assert!(welch < MOST, "{welch}");
}

#[test]
fn louder_is_no_matter_of_spread() {
    assert_only_welch_holds(shares(40_000, Tail::TwoSided, |vectors| {
        let columns = Columns::new(&vectors.chunks_exact(DIM).map(|x| x[1]).collect::<Vec<_>>(), 1);
        move |order: &[usize]| {
            let mut labels = [false; N_A + N_B];
            order[..N_A].iter().for_each(|&item| labels[item] = true);
            [columns.cohen_d(&labels)[0], columns.welch_d(&labels)[0]]
        }
    }));
}

#[test]
fn elsewhere_is_no_matter_of_spread() {
    let folds = Folds::new(N_A, N_B, 5, 4, 3);
    assert_only_welch_holds(shares(50_000, Tail::Greater, |vectors| {
        let (projector, folds) = (Projector::new(&vectors, DIM), &folds);
        move |order: &[usize]| {
            let found = projector.separation(order, folds);
            [found.crossfit, found.crossfit_welch]
        }
    }));
}
