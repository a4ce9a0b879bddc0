//! What each kernel reaches on a CUDA device, beside what the device's own copy and matrix product reach in the same run.
//!
//! Prints a JSON object a line: the median microseconds of a call, and GB/s or TFLOP/s with their share of the ceiling. Calls are
//! recorded many at a time and played back, so that launching them from the host is not what is measured.
//!
//! `scripts/gpu-bench.sh` runs it; `DEVICE=N` is another device than the first. With `ceilings` it measures those alone.

use std::time::Instant;

use candle_core::{DType, Device, Error, Result, Tensor};
use half::bf16;
use headtemper_kernels::{
    AttentionSpan, HeadSteps, HeadsOf, Matrix, Norm, Recording, Spans, StateSpan, add_rms_norm, attend, attended_heads,
    delta_rule, head_stats, linear, open_cuda, silu_mul, softcap,
};

/// Calls of a recording.
const CALLS: usize = 20;
/// How often it is played.
const PLAYS: usize = 15;

/// Median seconds of one call.
fn seconds(device: &Device, call: impl FnMut() -> Result<()>) -> Result<f64> {
    seconds_of(device, CALLS, call)
}

/// Median seconds of one call of a recording of so many.
fn seconds_of(device: &Device, calls: usize, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let recording = Recording::of(device, &mut || (0..calls).try_for_each(|_| call()))?;
    let mut times = Vec::with_capacity(PLAYS);
    for _ in 0..PLAYS {
        device.synchronize()?;
        let start = Instant::now();
        recording.play()?;
        device.synchronize()?;
        times.push(start.elapsed().as_secs_f64() / calls as f64);
    }
    times.sort_by(f64::total_cmp);
    Ok(times[PLAYS / 2])
}

/// Median seconds of one call that cannot be recorded; long enough that asking for it does not count.
fn seconds_alone(device: &Device, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = Vec::with_capacity(PLAYS);
    for _ in 0..=PLAYS {
        device.synchronize()?;
        let start = Instant::now();
        call()?;
        device.synchronize()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.remove(0); // the first warms up
    times.sort_by(f64::total_cmp);
    Ok(times[PLAYS / 2])
}

fn random(shape: &[usize], dtype: DType, device: &Device) -> Result<Tensor> {
    Tensor::randn(0f32, 1f32, shape, device)?.to_dtype(dtype)
}

/// What the settings of `open_cuda` save where every operation is asked for by itself: microseconds of one small addition, with
/// a look at a result after every 300 as after a decode step, on candle's own device and then on ours.
fn settings(number: usize) -> Result<()> {
    let step = |device: &Device| -> Result<f64> {
        let (x, y) = (Tensor::ones((256, 1024), DType::BF16, device)?, Tensor::ones((256, 1024), DType::BF16, device)?);
        let additions = || -> Result<()> {
            for _ in 0..300 {
                (&x + &y)?;
            }
            x.narrow(0, 0, 1)?.to_vec2::<bf16>().map(drop)
        };
        Ok(seconds_alone(device, additions)? / 300.0)
    };
    // Theirs first: what ours sets of the memory pool stays with the process.
    let theirs = step(&Device::new_cuda_with_stream(number)?)?;
    let ours = step(&open_cuda(number)?)?;
    for (whose, time) in [("candle's", theirs), ("ours", ours)] {
        say("start-up settings", &format!("{whose}, an addition asked for"), time, "k/s", 1e-3 / time, time / theirs);
    }
    Ok(())
}

/// What a launch costs in a recording as long as a decode step, and what it costs more to take memory for its result and to
/// give it back: every operation of candle's does, and both are nodes of the graph.
fn nodes(device: &Device) -> Result<()> {
    let x = Tensor::zeros((8, 256), DType::F32, device)?;
    let to = Tensor::zeros((8, 512), DType::F32, device)?;
    let alone = seconds_of(device, 500, || to.slice_set(&x, 1, 256))?;
    let with_memory = seconds_of(device, 500, || softcap(&x, 30.0).map(drop))?;
    for (what, time) in [("nothing taken", alone), ("its result taken and given back", with_memory)] {
        say("recorded launch", what, time, "k/s", 1e-3 / time, time / alone);
    }
    Ok(())
}

/// Bytes a second that a copy reads and writes, and operations a second of a large product in bf16.
struct Ceiling {
    copy: f64,
    product: f64,
}

impl Ceiling {
    fn of(device: &Device) -> Result<Self> {
        let large = Tensor::zeros(1usize << 29, DType::BF16, device)?; // 1 GiB
        let copy = 2.0 * 2.0 * large.elem_count() as f64 / seconds(device, || large.copy().map(drop))?;
        drop(large);
        let n = 8192usize;
        let (a, b) = (random(&[n, n], DType::BF16, device)?, random(&[n, n], DType::BF16, device)?.t()?);
        let product = 2.0 * (n as f64).powi(3) / seconds(device, || a.matmul(&b).map(drop))?;
        Ok(Self { copy, product })
    }

    fn moved(&self, kernel: &str, shape: &str, bytes: usize, seconds: f64) {
        let rate = bytes as f64 / seconds;
        say(kernel, shape, seconds, "GB/s", rate / 1e9, rate / self.copy);
    }

    fn computed(&self, kernel: &str, shape: &str, operations: f64, seconds: f64) {
        let rate = operations / seconds;
        say(kernel, shape, seconds, "TFLOP/s", rate / 1e12, rate / self.product);
    }
}

#[expect(clippy::print_stdout, reason = "what a benchmark is for")]
fn say(kernel: &str, shape: &str, seconds: f64, unit: &str, rate: f64, share: f64) {
    println!(
        r#"{{"kernel":"{kernel}","shape":"{shape}","us":{:.2},"{unit}":{rate:.1},"of_ceiling":{share:.3}}}"#,
        seconds * 1e6
    );
}

/// Qwen3-0.6B, SmolLM2 and Gemma 4's two kinds of layers.
const HEADS: [(&str, usize, usize, usize); 4] =
    [("qwen3-0.6b", 16, 8, 128), ("smollm2-135m", 9, 3, 64), ("gemma4 sliding", 8, 1, 256), ("gemma4 full", 8, 1, 512)];

fn decode_attention(device: &Device, ceiling: &Ceiling) -> Result<()> {
    let dtype = DType::BF16;
    for (name, heads, kv, dim) in HEADS {
        for (rows, context) in [(1usize, 1024usize), (64, 128), (64, 512), (64, 1024), (256, 512), (1024, 512)] {
            let span = |row| AttentionSpan { first: row, len: 1, start: context - 1, cache: row * context };
            let spans: Spans<AttentionSpan> = (0..rows).map(span).collect();
            let q = random(&[rows, heads, dim], dtype, device)?;
            let (k, v) = (
                random(&[rows * context, kv, dim], dtype, device)?,
                random(&[rows * context, kv, dim], dtype, device)?,
            );
            let lambda = Tensor::ones((rows, heads), DType::F32, device)?;
            let time = seconds(device, || attend(&q, &k, &v, &spans, 0.1, None, Some(&lambda)).map(drop))?;
            let bytes = 2 * (2 * rows * context * kv * dim + 2 * rows * heads * dim);
            ceiling.moved("decode attention", &format!("{name}, {rows} rows at {context}"), bytes, time);
        }
    }
    Ok(())
}

fn prefill_attention(device: &Device, ceiling: &Ceiling) -> Result<()> {
    let dtype = DType::BF16;
    for (name, heads, kv, dim) in HEADS {
        for (rows, len) in [(32usize, 128usize), (16, 1000), (2, 4096)] {
            let span = |row| AttentionSpan { first: row * len, len, start: 0, cache: row * len };
            let spans: Spans<AttentionSpan> = (0..rows).map(span).collect();
            let q = random(&[rows * len, heads, dim], dtype, device)?;
            let (k, v) =
                (random(&[rows * len, kv, dim], dtype, device)?, random(&[rows * len, kv, dim], dtype, device)?);
            let time = seconds_alone(device, || attend(&q, &k, &v, &spans, 0.1, None, None).map(drop))?;
            let operations = 4.0 * (rows * heads * dim) as f64 * (len * (len + 1) / 2) as f64;
            ceiling.computed("prefill attention", &format!("{name}, {rows} x {len}"), operations, time);
        }
    }
    Ok(())
}

fn delta(device: &Device, ceiling: &Ceiling) -> Result<()> {
    let (heads, dim, dtype) = (16usize, 128usize, DType::BF16);
    for (rows, len) in [(64usize, 1usize), (256, 1), (512, 1), (1024, 1), (16, 1000)] {
        let n = rows * len;
        let spans: Spans<StateSpan> =
            (0..rows).map(|row| StateSpan { first: row * len, len, start: 7, slot: row }).collect();
        let part = |scale: f64| random(&[n, heads, dim], dtype, device)? * scale;
        let (q, k, v) = (part(0.05)?, part(0.05)?, part(1.0)?);
        let g = Tensor::full(-0.05f32, (n, heads), device)?;
        let beta = Tensor::full(0.5f32, (n, heads), device)?;
        let state = Tensor::zeros((rows, heads, dim, dim), DType::F32, device)?;
        let time = seconds(device, || delta_rule(&q, &k, &v, &g, &beta, &state, &spans).map(drop))?;
        let shape = format!("qwen3.5-0.8b, {rows} x {len}");
        if len == 1 {
            ceiling.moved("delta rule step", &shape, 2 * 4 * rows * heads * dim * dim, time);
        } else {
            ceiling.computed("delta rule prefill", &shape, 7.0 * (n * heads * dim * dim) as f64, time);
        }
    }
    Ok(())
}

fn rows(device: &Device, ceiling: &Ceiling) -> Result<()> {
    let dtype = DType::BF16;
    for n in [100usize, 256, 8192] {
        let (d, inner, heads, dim) = (1024usize, 3072usize, 8usize, 128usize);
        let (x, y, weight) =
            (random(&[n, d], dtype, device)?, random(&[n, d], dtype, device)?, Tensor::ones(d, dtype, device)?);
        let time = seconds(device, || add_rms_norm(&x, &y, &weight, 1e-6).map(drop))?;
        ceiling.moved("add and norm", &format!("{n} x {d}"), 2 * 4 * n * d, time);
        let gate_up = random(&[n, 2 * inner], dtype, device)?;
        let time = seconds(device, || silu_mul(&gate_up).map(drop))?;
        ceiling.moved("silu x mul", &format!("{n} x {inner}"), 2 * 3 * n * inner, time);
        let fused = random(&[n, 4 * heads * dim], dtype, device)?;
        let cache = || Tensor::zeros((n, heads, dim), dtype, device);
        let (keys, values, angles) = (cache()?, cache()?, random(&[n, dim / 2], dtype, device)?);
        let norm = Tensor::ones(dim, dtype, device)?;
        let steps = HeadSteps { norm: Some(Norm { weight: &norm, eps: 1e-6 }), angles: Some((&angles, &angles)) };
        let part = |from: usize, count: usize| fused.narrow(1, from * dim, count * dim);
        let (q, k, v) = (part(0, 2 * heads)?, part(2 * heads, heads)?, part(3 * heads, heads)?);
        let view = |x, count, steps| HeadsOf { x, count, dim, steps };
        let (q, k, v) = (view(&q, 2 * heads, steps), view(&k, heads, steps), view(&v, heads, HeadSteps::default()));
        let spans: Spans<AttentionSpan> =
            (0..n).map(|i| AttentionSpan { first: i, len: 1, start: 0, cache: i }).collect();
        let time = seconds(device, || attended_heads(q, k, v, (&keys, &values), &spans).map(drop))?;
        let shape = format!("{n} x {} x {dim}", 4 * heads);
        ceiling.moved("norm, rope, cache write of q, k, v", &shape, 2 * 2 * n * 4 * heads * dim, time);
        let weight = Matrix::of(&random(&[2 * inner, d], dtype, device)?)?;
        let time = seconds(device, || linear(&x, &weight).map(drop))?;
        ceiling.computed(
            "product gate|up",
            &format!("{n} x {d} x {}", 2 * inner),
            2.0 * (n * d * 2 * inner) as f64,
            time,
        );
    }
    Ok(())
}

/// Norms and means of Qwen3-0.6B's heads over the last 32 tokens of each text.
fn statistics(device: &Device, ceiling: &Ceiling) -> Result<()> {
    let (rows, len, heads, dim, last) = (8usize, 1000usize, 16usize, 128usize, 32usize);
    let z = random(&[rows * len, heads, dim], DType::BF16, device)?;
    let ranges: Spans<std::ops::Range<usize>> = (1..=rows).map(|row| row * len - last..row * len).collect();
    let time = seconds(device, || head_stats(&z, &ranges, true).map(drop))?;
    ceiling.moved(
        "head statistics",
        &format!("{rows} x {last} x {heads} x {dim}"),
        2 * 2 * rows * last * heads * dim,
        time,
    );
    Ok(())
}

fn main() -> Result<()> {
    let number = match std::env::var("DEVICE") {
        Ok(number) => number.parse().map_err(|_| Error::Msg(format!("DEVICE is '{number}', but must be a number")))?,
        Err(_) => 0,
    };
    let ceilings_alone = std::env::args().nth(1).is_some_and(|part| part == "ceilings");
    if !ceilings_alone {
        settings(number)?;
    }
    let device = open_cuda(number)?;
    let ceiling = Ceiling::of(&device)?;
    say("ceiling: copy", "1 GiB", 2f64.powi(31) / ceiling.copy, "GB/s", ceiling.copy / 1e9, 1.0);
    say("ceiling: product", "8192 cubed, bf16", 0.0, "TFLOP/s", ceiling.product / 1e12, 1.0);
    if ceilings_alone {
        return Ok(());
    }
    nodes(&device)?;
    rows(&device, &ceiling)?;
    statistics(&device, &ceiling)?;
    decode_attention(&device, &ceiling)?;
    prefill_attention(&device, &ceiling)?;
    delta(&device, &ceiling)
}
