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

/// The shares of data sets whose p is at most 0.05, by the pooled spread and by Welch's.
fn shares(of: impl Fn(u64) -> [f64; 2]) -> [f64; 2] {
    let all: Vec<[f64; 2]> = (0..SETS).map(of).collect();
    [0, 1].map(|which| all.iter().filter(|p| p[which] <= 0.05).count() as f64 / SETS as f64)
}

#[test]
fn louder_is_no_matter_of_spread() {
    let [pooled, welch] = shares(|set| {
        let values: Vec<f64> = vectors(40_000 + set).chunks_exact(DIM).map(|x| x[1]).collect();
        let (columns, shuffles) = (Columns::new(&values, 1), Shuffles::new(N_A, N_B, set));
        let of = |labels: &[bool]| [columns.cohen_d(labels)[0], columns.welch_d(labels)[0]];
        let labels: Vec<bool> = (0..N_A + N_B).map(|place| place < N_A).collect();
        let null: Vec<[f64; 2]> = (0..SHUFFLES).map(|k| of(&shuffles.labels(k))).collect();
        let observed = of(&labels);
        [0, 1].map(|w| p_value(observed[w], &null.iter().map(|d| d[w]).collect::<Vec<_>>(), Tail::TwoSided))
    });
    println!("p of d at most 0.05: pooled {pooled}, Welch {welch}");
    assert!(pooled > 0.1, "the pooled spread is not what this test takes it for: {pooled}");
    assert!(welch < MOST, "{welch}");
}

#[test]
fn elsewhere_is_no_matter_of_spread() {
    let folds = Folds::new(N_A, N_B, 5, 4, 3);
    let order: Vec<usize> = (0..N_A + N_B).collect();
    let [pooled, welch] = shares(|set| {
        let projector = Projector::new(&vectors(50_000 + set), DIM);
        let shuffles = Shuffles::new(N_A, N_B, set);
        let of = |order: &[usize]| {
            let found = projector.separation(order, &folds);
            [found.crossfit, found.crossfit_welch]
        };
        let null: Vec<[f64; 2]> = (0..SHUFFLES).map(|k| of(&shuffles.order(k))).collect();
        let observed = of(&order);
        [0, 1].map(|w| p_value(observed[w], &null.iter().map(|d| d[w]).collect::<Vec<_>>(), Tail::Greater))
    });
    println!("p of the held-out d at most 0.05: pooled {pooled}, Welch {welch}");
    assert!(pooled > 0.1, "the pooled spread is not what this test takes it for: {pooled}");
    assert!(welch < MOST, "{welch}");
}
