//! Sign flips of the differences of many arms.

use criterion::{Criterion, criterion_group, criterion_main};
use headtemper_stats::{Random, SignFlips, sign_flip_test};

fn sign_flips(criterion: &mut Criterion) {
    let (items, columns) = (2000, 200);
    let mut random = Random::new(1, 0);
    let values: Vec<f64> =
        (0..items * columns).map(|_| (random.bits() >> 40) as f64 / (1u64 << 23) as f64 - 1.0).collect();
    let flips = SignFlips::new(items, 499, 0);
    criterion.bench_function("sign_flip_test/2000 x 200, 499 flips", |bench| {
        bench.iter(|| sign_flip_test(&values, columns, &flips));
    });
}

criterion_group!(benches, sign_flips);
criterion_main!(benches);
