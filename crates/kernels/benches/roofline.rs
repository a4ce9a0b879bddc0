//! How close the kernels come to the machine's limits: bytes and floating-point operations per second, against what plain reading
//! and plain multiply-adds reach in the same run, on the threads of the pool (`RAYON_NUM_THREADS`).
//!
//! Weights are read from memory and not from a cache: each call takes the next of many copies.

use std::{hint::black_box, time::Duration};

use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput};
use headtemper_kernels::{
    AttentionSpan, Held, Matrix, MatrixBuilder, Products, Spans, StateSpan, attend, delta_rule, linear,
    linear_reference,
};
use rayon::prelude::*;

/// More bytes than any cache holds.
const MEMORY: usize = 256 << 20;

fn random(shape: &[usize]) -> Tensor {
    Tensor::rand(-1f32, 1.0, shape, &Device::Cpu).expect("small tensors fit")
}

/// A weight whose values do not matter.
fn weight(held: Held, products: Products, n: usize, k: usize) -> Matrix {
    let matrix = MatrixBuilder::new(held, n, k, &Device::Cpu).expect("it fits");
    let mut matrix = matrix.with_products(products);
    matrix
        .fill(n, |r, row| row.iter_mut().enumerate().for_each(|(i, v)| *v = ((r * 31 + i) % 17) as f32 - 8.0))
        .expect("its rows");
    matrix.finish().expect("all rows are filled")
}

/// The machine's limits: reading memory, and multiply-adds in registers, on all threads of the pool.
fn machine(c: &mut Criterion) {
    let mut group = c.benchmark_group("machine");
    group.sample_size(10).measurement_time(Duration::from_secs(2));
    // In huge pages, like weights.
    let mut memory = memmap2::MmapMut::map_anon(MEMORY).expect("it fits");
    #[cfg(target_os = "linux")]
    memory.advise(memmap2::Advice::HugePage).expect("advice");
    memory.fill(1);
    let (memory, _) = memory.as_chunks::<64>();
    let share = memory.len() / rayon::current_num_threads() / 4;
    group.throughput(Throughput::Bytes(MEMORY as u64));
    group.bench_function("read", |b| {
        b.iter(|| {
            memory.par_chunks(share).for_each(|part| _ = black_box(folded(part)));
        });
    });
    for Peak { name, operations, run } in peaks() {
        let threads = rayon::current_num_threads();
        group.throughput(Throughput::Elements(operations * threads as u64));
        group.bench_function(name, |b| b.iter(|| (0..threads).into_par_iter().for_each(|_| run())));
    }
    group.finish();
}

/// Reads every byte once, in vectors.
fn folded(part: &[[u8; 64]]) -> [u8; 64] {
    let mut all = [0; 64];
    for line in part {
        for (a, b) in all.iter_mut().zip(line) {
            *a ^= b;
        }
    }
    all
}

/// A loop of independent multiply-adds.
struct Peak {
    name: &'static str,
    /// Floating-point operations per call.
    operations: u64,
    run: fn(),
}

/// The loops for the instruction sets of this machine.
fn peaks() -> Vec<Peak> {
    /// Steps per call.
    const STEPS: u64 = 4_000_000;
    #[allow(unused_mut, reason = "there are none elsewhere")]
    let mut all = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{
            __m512bh, __m512i, _mm256_fmadd_ps, _mm256_set1_ps, _mm512_dpbf16_ps, _mm512_fmadd_ps, _mm512_set1_epi32,
            _mm512_set1_ps,
        };
        #[target_feature(enable = "avx2,fma")]
        fn avx2() {
            let (x, mut sums) = (_mm256_set1_ps(black_box(1e-9)), [_mm256_set1_ps(0.0); 10]);
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = _mm256_fmadd_ps(x, x, *sum);
                }
            }
            black_box(sums);
        }
        #[target_feature(enable = "avx512f")]
        fn avx512() {
            let (x, mut sums) = (_mm512_set1_ps(black_box(1e-9)), [_mm512_set1_ps(0.0); 10]);
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = _mm512_fmadd_ps(x, x, *sum);
                }
            }
            black_box(sums);
        }
        #[target_feature(enable = "avx512f,avx512bf16")]
        fn bf16() {
            // SAFETY: a vector of bf16 has the same bits as the integer vector.
            let x = unsafe { std::mem::transmute::<__m512i, __m512bh>(_mm512_set1_epi32(black_box(0x3080_3080))) };
            let mut sums = [_mm512_set1_ps(0.0); 10];
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = _mm512_dpbf16_ps(*sum, x, x);
                }
            }
            black_box(sums);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the machine has the instructions.
            all.push(Peak { name: "multiply_add_avx2", operations: STEPS * 10 * 16, run: || unsafe { avx2() } });
        }
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: as above.
            all.push(Peak { name: "multiply_add_avx512", operations: STEPS * 10 * 32, run: || unsafe { avx512() } });
        }
        if is_x86_feature_detected!("avx512bf16") {
            // SAFETY: as above.
            all.push(Peak { name: "multiply_add_bf16_pairs", operations: STEPS * 10 * 64, run: || unsafe { bf16() } });
        }
    }
    all
}

fn linears(c: &mut Criterion) {
    for (n, k, name) in [(3072, 576, "smollm2_gate_up"), (576, 1536, "smollm2_down"), (6144, 1024, "qwen3_gate_up")] {
        let mut group = c.benchmark_group(format!("linear_{name}"));
        group.sample_size(10).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
        let forms = [
            ("f32", Held::F32, Products::F32),
            ("bf16", Held::Bf16, Products::F32),
            ("f16", Held::F16, Products::F32),
            ("bf16_products_bf16", Held::Bf16, Products::Bf16),
        ];
        for (form, held, products) in forms {
            let copies = MEMORY / held.bytes(n * k) + 1;
            let one = weight(held, products, n, k);
            // Copies of the values, not clones, which would share them.
            let mut weights = vec![one];
            weights.extend((1..copies).map(|_| weight(held, products, n, k)));
            for m in [1usize, 2, 4, 8, 16, 32, 128, 512] {
                let x = random(&[m, k]);
                let throughput =
                    Throughput::ElementsAndBytes { elements: (2 * m * n * k) as u64, bytes: held.bytes(n * k) as u64 };
                let mut next = weights.iter().cycle();
                group.throughput(throughput).bench_function(BenchmarkId::new(form, m), |b| {
                    b.iter(|| linear(&x, next.next().expect("an endless cycle")).expect("shapes fit"));
                });
            }
        }
        let plain: Vec<Tensor> = (0..=MEMORY / (n * k * 4)).map(|_| random(&[n, k])).collect();
        for m in [1usize, 8, 128, 512] {
            let (x, mut next) = (random(&[m, k]), plain.iter().cycle());
            let throughput =
                Throughput::ElementsAndBytes { elements: (2 * m * n * k) as u64, bytes: (4 * n * k) as u64 };
            group.throughput(throughput).bench_function(BenchmarkId::new("candle_f32", m), |b| {
                b.iter(|| linear_reference(&x, next.next().expect("an endless cycle")).expect("shapes fit"));
            });
        }
        group.finish();
    }
}

/// Multiply-adds of scores and values count as two operations each, over the keys that a token sees.
fn attention(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    group.sample_size(10).measurement_time(Duration::from_secs(1));
    for (name, heads, kv, dim) in [("smollm2", 9usize, 3usize, 64usize), ("qwen3", 16, 8, 128), ("gemma4", 8, 1, 256)] {
        for (what, rows, start, len) in [("prefill_512", 1usize, 0usize, 512usize), ("decode_16_at_1024", 16, 1023, 1)]
        {
            let context = start + len;
            let spans: Spans<AttentionSpan> =
                (0..rows).map(|row| AttentionSpan { first: row * len, len, start, cache: row * context }).collect();
            let (q, k) = (random(&[rows * len, heads, dim]), random(&[rows * context, kv, dim]));
            let v = random(&[rows * context, kv, dim]);
            let seen: usize = (start + 1..=context).sum::<usize>() * rows;
            let throughput = Throughput::ElementsAndBytes {
                elements: (4 * seen * heads * dim) as u64,
                bytes: (2 * 4 * rows * context * kv * dim) as u64,
            };
            group.throughput(throughput).bench_function(BenchmarkId::new(name, what), |b| {
                b.iter(|| attend(&q, &k, &v, &spans, 0.125, None, None).expect("shapes fit"));
            });
        }
    }
    group.finish();
}

/// Three passes over the state per token: seven operations per element.
fn delta(c: &mut Criterion) {
    let mut group = c.benchmark_group("delta_rule_qwen3_5");
    group.sample_size(10).measurement_time(Duration::from_secs(1));
    let (heads, dim) = (16usize, 128usize);
    for (what, rows, len) in [("prefill_256", 1usize, 256usize), ("decode_1", 1, 1), ("decode_16", 16, 1)] {
        let n = rows * len;
        let spans: Spans<StateSpan> =
            (0..rows).map(|row| StateSpan { first: row * len, len, start: 7, slot: row }).collect();
        let (q, k, v) = (random(&[n, heads, dim]), random(&[n, heads, dim]), random(&[n, heads, dim]));
        let g = random(&[n, heads]).affine(0.05, -0.06).expect("a decay");
        let (beta, state) = (random(&[n, heads]), Tensor::zeros((rows, heads, dim, dim), DType::F32, &Device::Cpu));
        let state = state.expect("it fits");
        let (q, k) = ((q * 0.05).expect("scaled"), (k * 0.05).expect("scaled"));
        let throughput = Throughput::ElementsAndBytes {
            elements: (7 * n * heads * dim * dim) as u64,
            bytes: (2 * 4 * rows * heads * dim * dim) as u64,
        };
        group.throughput(throughput).bench_function(what, |b| {
            b.iter(|| delta_rule(&q, &k, &v, &g, &beta, &state, &spans).expect("shapes fit"));
        });
    }
    group.finish();
}

fn main() {
    // On a thread of the pool, as in the program.
    rayon::scope(|_| {
        let mut criterion = Criterion::default().configure_from_args();
        for run in [machine, linears, attention, delta] {
            run(&mut criterion);
        }
        criterion.final_summary();
    });
}
