//! What attribution by direction takes: `cargo bench -p headtemper-stats --bench direction`.
//!
//! One head under 1,000 shuffled labels, cross-fitted over five folds that are dealt five times, as `temper attribute` does for every
//! head: once with more items than twice the head's dimensions, and once with fewer.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use headtemper_stats::{Folds, Projector, Random, Shuffles};

const SHUFFLES: u64 = 1000;

fn directions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("direction");
    group.sample_size(10);
    for (n_a, n_b, dim) in [(103, 87, 64), (100, 90, 128)] {
        let mut random = Random::new(1, 0);
        let vectors: Vec<f64> = (0..(n_a + n_b) * dim).map(|_| random.uniform() - 0.5).collect();
        let (folds, shuffles) = (Folds::new(n_a, n_b, 5, 5, 0), Shuffles::new(n_a, n_b, 0));
        let orders: Vec<Vec<usize>> = (0..SHUFFLES).map(|k| shuffles.order(k)).collect();
        group.bench_function(format!("{} items x {dim}, 5 x 5 folds, {SHUFFLES} shuffles", n_a + n_b), |bencher| {
            bencher.iter(|| {
                let ready = Projector::new(&vectors, dim);
                orders.iter().map(|order| black_box(ready.separation(order, &folds)).crossfit).sum::<f64>()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, directions);
criterion_main!(benches);
