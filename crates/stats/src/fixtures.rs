//! Our numbers against those of numpy and scipy, made by `fixtures/make_fixtures.py`.

use serde::Deserialize;

use crate::{
    Covariates, Folds, Halves, Projector, Shuffles, SignFlips, benjamini_hochberg, bootstrap_d, centred_cosine,
    cohen_d, cramers_v, hedges_g, held_out_d, mean, naive_direction, paired_shares, paired_t, pearson, quantile, ranks,
    sign_flip_test, spearman, units::alone, variance, welch_t,
};

/// Relative, even for a p-value of 1e-67. Measured worst: 7.4e-12, for a d between groups whose mean is 10^4 sds.
const TOLERANCE: f64 = 1e-9;

#[derive(Deserialize)]
struct Fixtures {
    two_groups: Vec<TwoGroups>,
    quantiles: Vec<Quantiles>,
    discoveries: Vec<Discoveries>,
    directions: Vec<Directions>,
    power: Vec<Power>,
    cross_fits: Vec<CrossFit>,
    rank_correlations: Vec<RankCorrelation>,
    adjusted: Vec<Adjusted>,
    bootstraps: Vec<Bootstrap>,
    associations: Vec<Association>,
    paired: Vec<Paired>,
    paired_shares: Vec<PairedShares>,
    shuffles: Vec<Shuffle>,
}

#[derive(Deserialize)]
struct TwoGroups {
    a: Vec<f64>,
    b: Vec<f64>,
    mean_a: f64,
    variance_a: f64,
    cohen_d: f64,
    hedges_g: f64,
    t: f64,
    df: f64,
    p: f64,
}

#[derive(Deserialize)]
struct Quantiles {
    sorted: Vec<f64>,
    at: Vec<f64>,
    wanted: Vec<f64>,
}

#[derive(Deserialize)]
struct Discoveries {
    p: Vec<f64>,
    q: Vec<f64>,
}

#[derive(Deserialize)]
struct Directions {
    vectors: Vec<f64>,
    dim: usize,
    labels: Vec<bool>,
    d_naive: f64,
    cos_means: f64,
    norm: f64,
    relative_norm: f64,
}

#[derive(Deserialize)]
struct Power {
    d: f64,
    n: usize,
    #[serde(rename = "power")]
    found: f64,
}

#[derive(Deserialize)]
struct CrossFit {
    vectors: Vec<f64>,
    dim: usize,
    n_a: usize,
    n_b: usize,
    folds: usize,
    repeats: usize,
    seed: u64,
    d: f64,
    cos_centred: f64,
}

#[derive(Deserialize)]
struct RankCorrelation {
    x: Vec<f64>,
    y: Vec<f64>,
    ranks: Vec<f64>,
    pearson: f64,
    spearman: f64,
}

#[derive(Deserialize)]
struct Adjusted {
    table: Vec<f64>,
    columns: usize,
    covariates: Vec<Vec<f64>>,
    residuals: Vec<f64>,
}

#[derive(Deserialize)]
struct Association {
    categories: Vec<usize>,
    labels: Vec<bool>,
    v: f64,
}

#[derive(Deserialize)]
struct Bootstrap {
    values: Vec<f64>,
    labels: Vec<bool>,
    count: usize,
    seed: u64,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct Paired {
    d: Vec<f64>,
    mean: f64,
    low: f64,
    high: f64,
    p: f64,
}

#[derive(Deserialize)]
struct PairedShares {
    gained: usize,
    lost: usize,
    n: usize,
    mean: f64,
    low: f64,
    high: f64,
}

#[derive(Deserialize)]
struct Shuffle {
    n_a: usize,
    n_b: usize,
    seed: u64,
    k: u64,
    labels: Vec<bool>,
}

/// Power of the two-sided t-test at .05: statsmodels' numbers, by d and items per group.
pub(crate) fn power() -> Vec<(f64, usize, f64)> {
    fixtures().power.into_iter().map(|case| (case.d, case.n, case.found)).collect()
}

fn fixtures() -> Fixtures {
    serde_json::from_str(include_str!("../fixtures/fixtures.json")).expect("fixtures.json as the script writes it")
}

fn assert_close(what: &str, got: f64, want: f64) {
    let error = (got - want).abs() / want.abs().max(f64::MIN_POSITIVE);
    println!("{what}: {got:e}, off by {error:e}");
    assert!(got == want || error <= TOLERANCE, "{what}: {got:e} for {want:e}, off by {error:e}");
}

#[test]
fn two_groups_as_scipy() {
    for case in fixtures().two_groups {
        let welch = welch_t(&case.a, &case.b);
        assert_close("mean", mean(&case.a), case.mean_a);
        assert_close("variance", variance(&case.a), case.variance_a);
        assert_close("cohen_d", cohen_d(&case.a, &case.b), case.cohen_d);
        assert_close("hedges_g", hedges_g(&case.a, &case.b), case.hedges_g);
        assert_close("t", welch.t, case.t);
        assert_close("df", welch.df, case.df);
        assert_close("p", welch.p, case.p);
    }
}

#[test]
fn quantiles_as_numpy() {
    for case in fixtures().quantiles {
        for (&q, want) in case.at.iter().zip(case.wanted) {
            assert_close("quantile", quantile(&case.sorted, q), want);
        }
    }
}

#[test]
fn q_values_as_scipy() {
    for case in fixtures().discoveries {
        for (got, want) in benjamini_hochberg(&case.p).into_iter().zip(case.q) {
            assert_close("q", got, want);
        }
    }
}

#[test]
fn directions_as_numpy() {
    for case in fixtures().directions {
        let direction = naive_direction(&case.vectors, case.dim, &case.labels);
        assert_close("d_naive", direction.d_naive, case.d_naive);
        assert_close("cos_means", direction.cos_means, case.cos_means);
        assert_close("norm", direction.norm, case.norm);
        assert_close("relative_norm", direction.relative_norm, case.relative_norm);
        // Group a's items at the first places, as the folds have them.
        let mut order: Vec<usize> = (0..case.labels.len()).collect();
        order.sort_by_key(|&item| !case.labels[item]);
        let projector = Projector::new(&case.vectors, case.dim);
        let n_a = case.labels.iter().filter(|&&label| label).count();
        let folds = Folds::new(n_a, case.labels.len() - n_a, 5, 1, 0);
        assert_close("projector", projector.separation(&order, &folds).naive, case.d_naive);
    }
}

#[test]
fn cross_fits_as_their_definition_in_numpy() {
    for case in fixtures().cross_fits {
        let folds = Folds::new(case.n_a, case.n_b, case.folds, case.repeats, case.seed);
        let order: Vec<usize> = (0..case.n_a + case.n_b).collect();
        assert_close("cross-fit d", held_out_d(&case.vectors, case.dim, &order, &folds), case.d);
        let halves = Halves::new(case.n_a, case.n_b, case.repeats, case.seed);
        let cosine = centred_cosine(&case.vectors, case.dim, &order, &halves);
        assert_close("centred cosine", cosine, case.cos_centred);
        let fast = Projector::new(&case.vectors, case.dim).separation(&order, &folds);
        assert_close("cross-fit d of the projector", fast.crossfit, case.d);
    }
}

#[test]
fn rank_correlations_as_scipy() {
    for case in fixtures().rank_correlations {
        assert_eq!(ranks(&case.x), case.ranks);
        assert_close("pearson", pearson(&case.x, &case.y), case.pearson);
        assert_close("spearman", spearman(&case.x, &case.y), case.spearman);
    }
}

#[test]
fn residuals_as_least_squares_in_numpy() {
    for case in fixtures().adjusted {
        let items = case.table.len() / case.columns;
        let found = Covariates::new(items, &case.covariates).residuals(&case.table, case.columns);
        found.iter().zip(&case.residuals).for_each(|(got, want)| assert_close("residual", *got, *want));
    }
}

#[test]
fn associations_as_scipy() {
    for case in fixtures().associations {
        assert_close("Cramér's V", cramers_v(&case.categories, &case.labels), case.v);
    }
}

#[test]
fn bootstrap_intervals_as_written_in_python() {
    for case in fixtures().bootstraps {
        let found = bootstrap_d(&case.values, 1, &case.labels, &alone(case.labels.len()), case.count, case.seed)[0];
        assert_close("low", found.low, case.low);
        assert_close("high", found.high, case.high);
    }
}

#[test]
fn paired_differences_as_scipy() {
    for case in fixtures().paired {
        let interval = paired_t(&case.d);
        assert_close("mean", interval.mean, case.mean);
        assert_close("low", interval.low, case.low);
        assert_close("high", interval.high, case.high);
        let flips = SignFlips::new(case.d.len(), 1 << case.d.len(), 0);
        assert!(flips.exact());
        assert_close("p", sign_flip_test(&case.d, 1, &flips).p[0], case.p);
    }
}

#[test]
fn paired_shares_as_their_definition() {
    for case in fixtures().paired_shares {
        let interval = paired_shares(case.gained, case.lost, case.n);
        assert_close("mean", interval.mean, case.mean);
        assert_close("low", interval.low, case.low);
        assert_close("high", interval.high, case.high);
    }
}

#[test]
fn shuffles_as_written_in_python() {
    for case in fixtures().shuffles {
        assert_eq!(Shuffles::new(case.n_a, case.n_b, case.seed).labels(case.k), case.labels);
    }
}
