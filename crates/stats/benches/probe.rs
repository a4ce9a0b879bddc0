//! What probes take: `cargo bench -p headtemper-stats --bench probe`.
//!
//! Few items of many features, as when a researcher labels a hundred answers: five folds under 1,000 shuffled labelings. Many
//! items, as when a judge labels ten thousand: one fit. `scripts/bench_probe.py` times scikit-learn beside both.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use headtemper_stats::{ClassWeight, CrossValidation, Fits, Logistic, Random, Target, auc, stratified_folds};

/// Features of 32 directions with noise on each, and labels that go with the first.
fn data(items: usize, features: usize) -> (Vec<f64>, Vec<bool>) {
    let mut random = Random::new(1, 0);
    let mut draw = |count: usize| (0..count).map(|_| random.uniform() - 0.5).collect::<Vec<f64>>();
    let (directions, noise) = (draw(32 * features), draw(items));
    let mut x = draw(items * features);
    let mut labels = Vec::with_capacity(items);
    for (row, noise) in x.chunks_exact_mut(features).zip(noise) {
        let along = draw(32);
        labels.push(along[0] + noise > 0.0);
        for (along, direction) in along.iter().zip(directions.chunks_exact(features)) {
            row.iter_mut().zip(direction).for_each(|(x, d)| *x += along * d);
        }
    }
    (x, labels)
}

/// The AUC under shuffled labels.
fn shuffled(ready: &CrossValidation<'_>, labels: &[bool], count: usize) -> Vec<f64> {
    let fits = Fits { weight: ClassWeight::None, c: &[1.0] };
    let of = |p: &[Vec<f64>], labels: &[bool]| auc(&p[0], labels);
    ready.shuffled((labels, None), (count, 0), fits, &|| (), of).expect("every labeling can be fitted")
}

fn probes(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("probe");
    group.sample_size(10);
    let (x, labels) = data(100, 2048);
    let folds = stratified_folds(&labels, 5, Some(0)).expect("both classes fill five folds");
    group.bench_function("100 items x 2048, 5 folds, 1000 shuffles", |bencher| {
        bencher.iter(|| {
            let ready = CrossValidation::new(&x, 2048, &folds).expect("finite features");
            black_box(shuffled(&ready, &labels, 1000))
        });
    });
    let (x, labels) = data(3000, 576);
    let folds = stratified_folds(&labels, 5, Some(0)).expect("both classes fill five folds");
    let ready = CrossValidation::new(&x, 576, &folds).expect("finite features");
    group.bench_function("3000 items x 576, 5 folds, 20 shuffles", |bencher| {
        bencher.iter(|| black_box(shuffled(&ready, &labels, 20)));
    });
    for (items, features) in [(5000, 64), (10_000, 1536), (2000, 2400)] {
        let (x, labels) = data(items, features);
        let weights = vec![1.0; items];
        group.bench_function(format!("one fit, {items} items x {features}"), |bencher| {
            let target = Target { labels: &labels, weights: &weights, c: 1.0 };
            bencher.iter(|| black_box(Logistic::fit(&x, features, target).expect("it can be fitted")));
        });
    }
    group.finish();
}

criterion_group!(benches, probes);
criterion_main!(benches);
