//! From the logits of one row to a token, for a vocabulary of Qwen3's size: greedy, sampled, and under each cut.

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use headtemper_engine::{Noise, Sampling, TextTokens};

const VOCAB: u32 = 151_936;

/// Logits spread like a model's: most tokens lie far below a few.
fn logits() -> Vec<f32> {
    let uniform = |i: u32| (f64::from(i.wrapping_mul(2_654_435_761)) + 0.5) / 2f64.powi(32);
    (0..VOCAB).map(|i| (-2.0 * uniform(i).ln().abs() + 14.0 * uniform(i ^ 0x5555).powi(400)) as f32).collect()
}

fn sample(c: &mut Criterion) {
    let logits = logits();
    let hot = Sampling { temperature: 1.0, ..Sampling::default() };
    let mut group = c.benchmark_group("sample");
    for (name, sampling) in [
        ("greedy", Sampling::default()),
        ("softmax", hot.clone()),
        ("top_k_50", Sampling { top_k: 50, ..hot.clone() }),
        ("top_p_0.95", Sampling { top_p: 0.95, ..hot.clone() }),
        ("top_k_20_top_p_0.95", Sampling { top_k: 20, top_p: 0.95, ..hot.clone() }),
        ("min_p_0.05", Sampling { min_p: 0.05, ..hot }),
    ] {
        let mut step = 0;
        group.bench_function(name, |b| {
            b.iter_batched_ref(
                || {
                    step += 1;
                    (logits.clone(), Noise { item: 1, step })
                },
                |(logits, noise)| sampling.next(logits, &TextTokens::default(), *noise),
                BatchSize::LargeInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, sample);
criterion_main!(benches);
