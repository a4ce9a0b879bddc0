//! Each kernel against its oracle in plain candle ops, on the shapes of SmolLM2-135M, Gemma 4 E2B and Qwen3.5.

use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use headtemper_kernels::{
    AttentionSpan, BaseRows, HeadSteps, HeadsOf, Matrix, Norm, Spans, StateSpan, add_rms_norm, attend,
    attend_reference, attended_heads, attended_heads_reference, causal_conv, causal_conv_reference, delta_gates,
    delta_gates_reference, delta_rule, delta_rule_reference, gated_norm, gated_norm_reference, gelu_mul,
    gelu_mul_reference, head_stats, head_stats_reference, linear, linear_reference, range_means, range_means_reference,
    rms_norm, score_head, sigmoid_gate, sigmoid_gate_reference, silu_mul, silu_mul_reference, softcap,
    softcap_reference,
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
                let w = Matrix::of(&random(&[n, k], dtype)).expect("it fits");
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
        let span = Spans::from(vec![AttentionSpan { first: 0, len, start, cache: 0 }]);
        let (q, k, v) =
            (random(&[len, 9, 64], DType::F32), random(&[256, 3, 64], DType::F32), random(&[256, 3, 64], DType::F32));
        let lambda = random(&[len, 9], DType::F32);
        for (what, lambda) in [("ours", None), ("ours_lambda", Some(&lambda))] {
            group.bench_function(BenchmarkId::new(what, name), |b| {
                b.iter(|| attend(&q, &k, &v, &span, 0.125, None, lambda).expect("shapes fit"));
            });
        }
        group.bench_function(BenchmarkId::new("candle", name), |b| {
            b.iter(|| attend_reference(&q, &k, &v, &span, 0.125, None, None).expect("shapes fit"));
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
    let mut group = c.benchmark_group("gelu_mul");
    let x = random(&[64, 2 * 12288], DType::F32);
    group.bench_function("ours", |b| b.iter(|| gelu_mul(&x).expect("shapes fit")));
    group.bench_function("candle", |b| b.iter(|| gelu_mul_reference(&x).expect("shapes fit")));
    group.finish();
}

/// The norms of SmolLM2-135M, and the heads of Qwen3-0.6B between the projection and attention.
fn norms_and_heads(c: &mut Criterion) {
    for n in [1usize, 16, 256] {
        let (x, y, weight) = (random(&[n, 576], DType::F32), random(&[n, 576], DType::F32), random(&[576], DType::F32));
        let mut group = c.benchmark_group("rms_norm");
        group.bench_function(BenchmarkId::new("ours", n), |b| b.iter(|| rms_norm(&x, &weight, 1e-5).expect("fits")));
        group.bench_function(BenchmarkId::new("candle", n), |b| {
            b.iter(|| candle_nn::ops::rms_norm(&x, &weight, 1e-5).expect("fits"));
        });
        group.finish();
        let mut group = c.benchmark_group("add_rms_norm");
        group.bench_function(BenchmarkId::new("ours", n), |b| {
            b.iter(|| add_rms_norm(&x, &y, &weight, 1e-5).expect("fits"));
        });
        group.bench_function(BenchmarkId::new("candle", n), |b| {
            b.iter(|| {
                let sum = (&x + &y).expect("fits");
                candle_nn::ops::rms_norm(&sum, &weight, 1e-5).expect("fits")
            });
        });
        group.finish();
        let (fused, cache) = (random(&[n, 4096], DType::F32), || random(&[n, 8, 128], DType::F32));
        let part = |from, heads: usize| fused.narrow(1, from, heads * 128).expect("within the projection");
        let (q, k, v) = (part(0, 16), part(2048, 8), part(3072, 8));
        let (weight, angle, keys, values) =
            (random(&[128], DType::F32), random(&[n, 64], DType::F32), cache(), cache());
        let steps = HeadSteps { norm: Some(Norm { weight: &weight, eps: 1e-6 }), angles: Some((&angle, &angle)) };
        let view = |x, count| HeadsOf { x, count, dim: 128, steps };
        let (q, k, v) = (view(&q, 16), view(&k, 8), HeadsOf { steps: HeadSteps::default(), ..view(&v, 8) });
        let span = Spans::from(vec![AttentionSpan { first: 0, len: n, start: 0, cache: 0 }]);
        let mut group = c.benchmark_group("attended_heads");
        group.bench_function(BenchmarkId::new("ours", n), |b| {
            b.iter(|| attended_heads(q, k, v, (&keys, &values), &span).expect("fits"));
        });
        group.bench_function(BenchmarkId::new("candle", n), |b| {
            b.iter(|| attended_heads_reference(q, k, v, (&keys, &values), &span).expect("fits"));
        });
        group.finish();
        let (b_a, decay) = (random(&[n, 32], DType::F32), random(&[16], DType::F32));
        let [b_part, a_part] = [0, 16].map(|from| b_a.narrow(1, from, 16).expect("within the projection"));
        let mut group = c.benchmark_group("delta_gates");
        group.bench_function(BenchmarkId::new("ours", n), |b| {
            b.iter(|| delta_gates(&b_part, &a_part, &decay, &decay).expect("fits"));
        });
        group.bench_function(BenchmarkId::new("candle", n), |b| {
            b.iter(|| delta_gates_reference(&b_part, &a_part, &decay, &decay).expect("fits"));
        });
        group.finish();
    }
}

/// The gates of Qwen3.5-0.8B as views into their fused projections.
fn gates(c: &mut Criterion) {
    let (x, fused) = (random(&[256, 8, 256], DType::F32), random(&[256, 10, 512], DType::F32));
    let gate = fused.narrow(1, 0, 8).and_then(|t| t.narrow(2, 256, 256)).expect("within the projection");
    let mut group = c.benchmark_group("sigmoid_gate");
    group.bench_function("ours", |b| b.iter(|| sigmoid_gate(&x, &gate).expect("shapes fit")));
    group.bench_function("candle", |b| b.iter(|| sigmoid_gate_reference(&x, &gate).expect("shapes fit")));
    group.finish();
    let (x, fused) = (random(&[256, 16, 128], DType::F32), random(&[256, 8224], DType::F32));
    let gate = fused.narrow(1, 6144, 2048).expect("within the projection");
    let (weight, lambda) = (random(&[128], DType::F32), random(&[256, 16], DType::F32));
    let mut group = c.benchmark_group("gated_norm");
    for (name, lambda) in [("ours", None), ("ours_lambda", Some(&lambda))] {
        group.bench_function(name, |b| b.iter(|| gated_norm(&x, &gate, &weight, 1e-6, lambda).expect("shapes fit")));
    }
    group.bench_function("candle", |b| {
        b.iter(|| gated_norm_reference(&x, &gate, &weight, 1e-6, None).expect("shapes fit"));
    });
    group.finish();
}

fn sliding(c: &mut Criterion) {
    let mut group = c.benchmark_group("attend_window_512");
    for (name, start, len) in [("prefill_1024", 0, 1024), ("decode_at_1024", 1023, 1)] {
        let span = Spans::from(vec![AttentionSpan { first: 0, len, start, cache: 0 }]);
        let q = random(&[len, 8, 256], DType::F32);
        let (k, v) = (random(&[1024, 1, 256], DType::F32), random(&[1024, 1, 256], DType::F32));
        for (what, window) in [("ours", Some(512)), ("ours_full", None)] {
            group.bench_function(BenchmarkId::new(what, name), |b| {
                b.iter(|| attend(&q, &k, &v, &span, 0.0625, window, None).expect("shapes fit"));
            });
        }
        group.bench_function(BenchmarkId::new("candle", name), |b| {
            b.iter(|| attend_reference(&q, &k, &v, &span, 0.0625, Some(512), None).expect("shapes fit"));
        });
    }
    group.finish();
}

/// What a capture reads of z over 20 responses of 32 tokens, 16 heads of 128, and Gemma's cap on 16 rows of logits.
fn statistics(c: &mut Criterion) {
    let z = random(&[640, 16, 128], DType::F32);
    let rows = z.flatten_from(1).expect("heads side by side");
    let ranges: Vec<_> = (0..20).map(|item| 32 * item..32 * (item + 1)).collect();
    let spans = Spans::from(ranges.clone());
    let mut group = c.benchmark_group("head_stats");
    group.bench_function("ours", |b| b.iter(|| head_stats(&z, &spans, true).expect("ranges fit")));
    group.bench_function("candle", |b| b.iter(|| head_stats_reference(&z, &ranges, true).expect("ranges fit")));
    group.finish();
    let mut group = c.benchmark_group("range_means");
    group.bench_function("ours", |b| b.iter(|| range_means(&rows, &spans).expect("ranges fit")));
    group.bench_function("candle", |b| b.iter(|| range_means_reference(&rows, &ranges).expect("ranges fit")));
    group.finish();
    let logits = random(&[16, 262_144], DType::F32);
    let mut group = c.benchmark_group("softcap");
    group.sample_size(20);
    group.bench_function("ours", |b| b.iter(|| softcap(&logits, 30.0).expect("f32")));
    group.bench_function("candle", |b| b.iter(|| softcap_reference(&logits, 30.0).expect("f32")));
    group.finish();
}

/// The head of SmolLM2-135M: alone, with log-softmax in candle ops, and streamed; also with one base row per 16 rows.
fn head(c: &mut Criterion) {
    let weight = random(&[49152, 576], DType::F32);
    for dtype in [DType::F32, DType::BF16] {
        let weight = weight.to_dtype(dtype).and_then(|weight| Matrix::of(&weight)).expect("a weight's dtype");
        let mut group = c.benchmark_group(format!("head_{}", dtype.as_str()));
        group.sample_size(10);
        for m in [1usize, 64, 512] {
            let (hidden, targets) = (random(&[m, 576], DType::F32), vec![7; m]);
            let base = hidden.narrow(0, 0, m.div_ceil(16)).expect("some of the rows");
            let of: Vec<usize> = (0..m).map(|row| row / 16).collect();
            let score = |hidden: &Tensor, base| {
                score_head(hidden, &weight, &targets[..hidden.dims()[0]], None, base).expect("shapes fit")
            };
            let sums: Vec<f64> = score(&base, None).iter().map(|score| score.log_sum_exp).collect();
            let rows = BaseRows { hidden: &base, log_sum_exp: &sums, of: &of };
            group.bench_function(BenchmarkId::new("linear_alone", m), |b| {
                b.iter(|| linear(&hidden, &weight).expect("shapes fit"));
            });
            group.bench_function(BenchmarkId::new("ours", m), |b| b.iter(|| score(&hidden, None)));
            group.bench_function(BenchmarkId::new("ours_base", m), |b| b.iter(|| score(&hidden, Some(rows))));
            let index = Tensor::new(targets.as_slice(), &Device::Cpu).and_then(|t| t.unsqueeze(1)).expect("m targets");
            let candle = || -> candle_core::Result<_> {
                let logits = linear(&hidden, &weight)?;
                let logits = logits.broadcast_sub(&logits.max_keepdim(1)?)?;
                let log_p = logits.broadcast_sub(&logits.exp()?.sum_keepdim(1)?.log()?)?;
                Ok((log_p.gather(&index, 1)?, log_p.argmax(1)?))
            };
            group.bench_function(BenchmarkId::new("linear_and_candle", m), |b| {
                b.iter(|| candle().expect("shapes fit"));
            });
        }
        group.finish();
    }
}

/// `slots` sequences of `len` tokens each, which continue from their states.
fn spans(slots: usize, len: usize) -> Spans<StateSpan> {
    (0..slots).map(|slot| StateSpan { first: slot * len, len, start: 8, slot }).collect()
}

fn convolution(c: &mut Criterion) {
    let mut group = c.benchmark_group("causal_conv");
    for (name, slots, len) in [("prefill_256", 1, 256), ("decode_16", 16, 1)] {
        let (x, weight) = (random(&[slots * len, 6144], DType::F32), random(&[6144, 4], DType::F32));
        let (state, spans) = (random(&[slots, 3, 6144], DType::F32), spans(slots, len));
        group.bench_function(BenchmarkId::new("ours", name), |b| {
            b.iter(|| causal_conv(&x, &weight, &state, &spans).expect("shapes fit"));
        });
        group.bench_function(BenchmarkId::new("candle", name), |b| {
            b.iter(|| causal_conv_reference(&x, &weight, &state, &spans).expect("shapes fit"));
        });
    }
    group.finish();
}

fn delta(c: &mut Criterion) {
    let mut group = c.benchmark_group("delta_rule");
    for (name, slots, len) in [("prefill_256", 1, 256), ("decode_1", 1, 1), ("decode_16", 16, 1)] {
        let n = slots * len;
        let heads = |scale: f64| (random(&[n, 16, 128], DType::F32) * scale).expect("shapes fit");
        let (q, k, v) = (heads(0.01), heads(0.15), heads(1.0)); // keys of length about 1
        let g = random(&[n, 16], DType::F32).affine(0.5, -0.5).expect("shapes fit");
        let beta = random(&[n, 16], DType::F32).affine(0.5, 0.5).expect("shapes fit");
        let (state, spans) = (random(&[slots, 16, 128, 128], DType::F32), spans(slots, len));
        group.bench_function(BenchmarkId::new("ours", name), |b| {
            b.iter(|| delta_rule(&q, &k, &v, &g, &beta, &state, &spans).expect("shapes fit"));
        });
        group.bench_function(BenchmarkId::new("candle_chunked", name), |b| {
            b.iter(|| delta_rule_reference(&q, &k, &v, &g, &beta, &state, &spans).expect("shapes fit"));
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    linears,
    attention,
    sliding,
    activation,
    norms_and_heads,
    gates,
    convolution,
    delta,
    statistics,
    head
);
criterion_main!(benches);
