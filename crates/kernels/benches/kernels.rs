//! Each kernel beside its oracle in plain candle ops, on the shapes of SmolLM2-135M.

use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use headtemper_kernels::{
    AttentionSpan, attend, attend_reference, linear, linear_reference, silu_mul, silu_mul_reference,
};

fn random(shape: &[usize], dtype: DType) -> Tensor {
    Tensor::rand(-1f32, 1.0, shape, &Device::Cpu).and_then(|t| t.to_dtype(dtype)).expect("small tensors fit")
}

fn linears(c: &mut Criterion) {
    for (n, k, name) in [(3072, 576, "gate_up"), (576, 1536, "down")] {
        let mut group = c.benchmark_group(format!("linear_{name}"));
        for m in [1usize, 8, 32, 256] {
            group.throughput(Throughput::Elements((2 * m * n * k) as u64)); // floating-point operations
            let x = random(&[m, k], DType::F32);
            for dtype in [DType::F32, DType::BF16] {
                let w = random(&[n, k], dtype);
                let id = BenchmarkId::new(format!("ours_{}", dtype.as_str()), m);
                group.bench_function(id, |b| b.iter(|| linear(&x, &w).expect("shapes fit")));
            }
            let w = random(&[n, k], DType::F32);
            let id = BenchmarkId::new("candle_f32", m);
            group.bench_function(id, |b| b.iter(|| linear_reference(&x, &w).expect("shapes fit")));
        }
        group.finish();
    }
}

fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attend");
    for (name, start, len) in [("prefill_256", 0, 256), ("decode_at_256", 255, 1)] {
        let span = [AttentionSpan { first: 0, len, start, cache: 0 }];
        let (q, k, v) =
            (random(&[len, 9, 64], DType::F32), random(&[256, 3, 64], DType::F32), random(&[256, 3, 64], DType::F32));
        group.bench_function(BenchmarkId::new("ours", name), |b| {
            b.iter(|| attend(&q, &k, &v, &span, 0.125, None).expect("shapes fit"));
        });
        group.bench_function(BenchmarkId::new("candle", name), |b| {
            b.iter(|| attend_reference(&q, &k, &v, &span, 0.125, None).expect("shapes fit"));
        });
    }
    group.finish();
}

fn activation(c: &mut Criterion) {
    let mut group = c.benchmark_group("silu_mul");
    let x = random(&[256, 3072], DType::F32);
    group.bench_function("ours", |b| b.iter(|| silu_mul(&x).expect("shapes fit")));
    group.bench_function("candle", |b| b.iter(|| silu_mul_reference(&x).expect("shapes fit")));
    group.finish();
}

criterion_group!(benches, linears, attention, activation);
criterion_main!(benches);
