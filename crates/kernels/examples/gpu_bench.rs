//! What each kernel reaches on a CUDA device, against what the device's own copy and matrix product reach in the same run.
//!
//! Prints one JSON object per line: the median microseconds of a call, and GB/s or TFLOP/s with their share of the ceiling. Calls are
//! recorded many at a time and played back, so that launch overhead from the host is not measured.
//!
//! `scripts/gpu-bench.sh` runs it; `DEVICE=N` selects another device than the first. With `ceilings` it measures only the ceilings;
//! with `tiny` everything is a 64th of the size, which only shows that it runs.

use std::time::Instant;

use candle_core::{DType, Device, Error, Result, Tensor};
use half::bf16;
use headtemper_kernels::{
    AttentionSpan, BaseRows, Choice, DecodeRow, DecodeRows, DecodeSize, DeltaNet, Draw, HeadSteps, HeadsOf, Matrix,
    Norm, Penalties, Recording, Spans, StateSpan, TextTokens, add_rms_norm, attend, attended_heads, causal_conv,
    choose, delta_gates, delta_net, delta_net_in_steps, delta_rule, gated_norm, gelu_mul, head_stats, linear, logits,
    open_cuda, score_head, sigmoid_gate, silu_mul,
};

/// Calls per recording.
const CALLS: usize = 20;
/// How often a recording is played.
const PLAYS: usize = 15;

/// A device and its ceilings: bytes per second that a copy reads and writes, and operations per second of a large product
/// in bf16.
struct Bench {
    device: Device,
    tiny: bool,
    copy: f64,
    product: f64,
}

impl Bench {
    /// Measures the ceilings.
    fn new(device: Device, tiny: bool) -> Result<Self> {
        let mut bench = Self { device, tiny, copy: 0.0, product: 0.0 };
        let large = Tensor::zeros(bench.few(1 << 29), DType::BF16, &bench.device)?; // 1 GiB
        // Launched directly, not recorded: a copy in a recording reached only two thirds of it.
        let copies = || (0..4).try_for_each(|_| large.copy().map(drop));
        bench.copy = 4.0 * 2.0 * 2.0 * large.elem_count() as f64 / bench.seconds_alone(copies)?;
        drop(large);
        let n = bench.few(8192);
        let (a, b) = (bench.random(&[n, n], DType::BF16)?, bench.random(&[n, n], DType::BF16)?.t()?);
        bench.product = 2.0 * (n as f64).powi(3) / bench.seconds(|| a.matmul(&b).map(drop))?;
        say("ceiling: copy", "1 GiB", 2f64.powi(31) / bench.copy, "GB/s", bench.copy / 1e9, 1.0);
        say("ceiling: product", "8192 cubed, bf16", 0.0, "TFLOP/s", bench.product / 1e12, 1.0);
        Ok(bench)
    }

    /// `count`, or a 64th of it in a tiny run.
    fn few(&self, count: usize) -> usize {
        if self.tiny { count.div_ceil(64) } else { count }
    }

    /// Median seconds of one call.
    fn seconds(&self, call: impl FnMut() -> Result<()>) -> Result<f64> {
        self.seconds_of(CALLS, call)
    }

    /// Median seconds of one call, in a recording of `calls` calls.
    fn seconds_of(&self, calls: usize, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
        let calls = self.few(calls);
        let recording = Recording::of(&self.device, &mut || (0..calls).try_for_each(|_| call()))??;
        Ok(median(&self.device, self.few(PLAYS), || recording.play())? / calls as f64)
    }

    /// Median seconds of one call that cannot be recorded; it must be long enough that launching it does not count.
    fn seconds_alone(&self, mut call: impl FnMut() -> Result<()>) -> Result<f64> {
        call()?; // warm-up
        median(&self.device, self.few(PLAYS), call)
    }

    fn random(&self, shape: &[usize], dtype: DType) -> Result<Tensor> {
        Tensor::randn(0f32, 1f32, shape, &self.device)?.to_dtype(dtype)
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

/// Median seconds of some work that is run `times` times.
fn median(device: &Device, times: usize, mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let once = |_| {
        device.synchronize()?;
        let start = Instant::now();
        work()?;
        device.synchronize()?;
        Ok(start.elapsed().as_secs_f64())
    };
    let mut times = (0..times).map(once).collect::<Result<Vec<_>>>()?;
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

/// What the settings of `open_cuda` save when every operation is launched separately: microseconds of one small addition, with
/// a result read after every 300 as after a decode step, on candle's own device and then on ours.
fn settings(number: usize) -> Result<()> {
    let step = |device: &Device| -> Result<f64> {
        let (x, y) = (Tensor::ones((256, 1024), DType::BF16, device)?, Tensor::ones((256, 1024), DType::BF16, device)?);
        let additions = || -> Result<()> {
            for _ in 0..300 {
                (&x + &y)?;
            }
            x.narrow(0, 0, 1)?.to_vec2::<bf16>().map(drop)
        };
        additions()?; // warm-up
        Ok(median(device, PLAYS, additions)? / 300.0)
    };
    // Theirs first: our setting of the memory pool stays with the process.
    let theirs = step(&Device::new_cuda_with_stream(number)?)?;
    let ours = step(&open_cuda(number)?)?;
    for (whose, time) in [("candle's", theirs), ("ours", ours)] {
        say("start-up settings", &format!("{whose}, an addition asked for"), time, "k/s", 1e-3 / time, time / theirs);
    }
    Ok(())
}

/// The cost of a launch in a recording as long as a decode step, and the extra cost of allocating and freeing memory beside it, as
/// every operation of candle's does: both are nodes of the graph.
fn nodes(bench: &Bench) -> Result<()> {
    let x = Tensor::zeros((8, 256), DType::F32, &bench.device)?;
    let to = Tensor::zeros((8, 512), DType::F32, &bench.device)?;
    let alone = bench.seconds_of(500, || to.slice_set(&x, 1, 256))?;
    let with_memory = bench.seconds_of(500, || {
        // SAFETY: nobody reads the values.
        let _taken = unsafe { Tensor::empty((8, 512), DType::F32, &bench.device)? };
        to.slice_set(&x, 1, 256)
    })?;
    for (what, time) in [("nothing taken", alone), ("memory taken and given back", with_memory)] {
        say("recorded launch", what, time, "k/s", 1e-3 / time, time / alone);
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what a benchmark is for")]
fn say(kernel: &str, shape: &str, seconds: f64, unit: &str, rate: f64, share: f64) {
    println!(
        r#"{{"kernel":"{kernel}","shape":"{shape}","us":{:.2},"{unit}":{rate:.3e},"of_ceiling":{share:.3}}}"#,
        seconds * 1e6
    );
}

/// Qwen3-0.6B, SmolLM2 and the two kinds of layers of Gemma 4.
const HEADS: [(&str, usize, usize, usize); 4] =
    [("qwen3-0.6b", 16, 8, 128), ("smollm2-135m", 9, 3, 64), ("gemma4 sliding", 8, 1, 256), ("gemma4 full", 8, 1, 512)];

fn decode_attention(bench: &Bench) -> Result<()> {
    let dtype = DType::BF16;
    for (name, heads, kv, dim) in HEADS {
        let shapes =
            [(1usize, 1024usize), (64, 128), (64, 512), (64, 1024), (100, 128), (100, 384), (256, 512), (1024, 512)];
        for (rows, context) in shapes {
            let (rows, context) = (bench.few(rows), bench.few(context));
            let span = |row| AttentionSpan { first: row, len: 1, start: context - 1, cache: row * context };
            let spans: Spans<AttentionSpan> = (0..rows).map(span).collect();
            let q = bench.random(&[rows, heads, dim], dtype)?;
            let (k, v) =
                (bench.random(&[rows * context, kv, dim], dtype)?, bench.random(&[rows * context, kv, dim], dtype)?);
            let lambda = Tensor::ones((rows, heads), DType::F32, &bench.device)?;
            let time = bench.seconds(|| attend(&q, &k, &v, &spans, 0.1, None, Some(&lambda)).map(drop))?;
            let moved = |keys: usize| 2 * (2 * rows * keys * kv * dim + 2 * rows * heads * dim);
            bench.moved("decode attention", &format!("{name}, {rows} rows at {context}"), moved(context), time);
            let window = bench.few(512);
            if name == "gemma4 sliding" && context > window {
                let time = bench.seconds(|| attend(&q, &k, &v, &spans, 0.1, Some(window), Some(&lambda)).map(drop))?;
                let shape = format!("{name}, {rows} rows, {window} of {context}");
                bench.moved("attention in a window", &shape, moved(window), time);
            }
        }
    }
    Ok(())
}

fn prefill_attention(bench: &Bench) -> Result<()> {
    let dtype = DType::BF16;
    for (name, heads, kv, dim) in HEADS {
        for (rows, len) in [(32usize, 128usize), (16, 1000), (2, 4096)] {
            let (rows, len) = (bench.few(rows), bench.few(len));
            let span = |row| AttentionSpan { first: row * len, len, start: 0, cache: row * len };
            let spans: Spans<AttentionSpan> = (0..rows).map(span).collect();
            let q = bench.random(&[rows * len, heads, dim], dtype)?;
            let (k, v) = (bench.random(&[rows * len, kv, dim], dtype)?, bench.random(&[rows * len, kv, dim], dtype)?);
            let time = bench.seconds_alone(|| attend(&q, &k, &v, &spans, 0.1, None, None).map(drop))?;
            let operations = 4.0 * (rows * heads * dim) as f64 * (len * (len + 1) / 2) as f64;
            bench.computed("prefill attention", &format!("{name}, {rows} x {len}"), operations, time);
        }
    }
    Ok(())
}

fn delta(bench: &Bench) -> Result<()> {
    let (heads, dim, dtype) = (16usize, 128usize, DType::BF16);
    for (rows, len) in [(64usize, 1usize), (256, 1), (512, 1), (1024, 1), (16, 1000)] {
        let (rows, len) = (bench.few(rows), bench.few(len));
        let n = rows * len;
        let spans: Spans<StateSpan> =
            (0..rows).map(|row| StateSpan { first: row * len, len, start: 7, slot: row }).collect();
        let part = |scale: f64| bench.random(&[n, heads, dim], dtype)? * scale;
        let (q, k, v) = (part(0.05)?, part(0.05)?, part(1.0)?);
        let g = Tensor::full(-0.05f32, (n, heads), &bench.device)?;
        let beta = Tensor::full(0.5f32, (n, heads), &bench.device)?;
        let state = Tensor::zeros((rows, heads, dim, dim), DType::F32, &bench.device)?;
        let time = bench.seconds(|| delta_rule(&q, &k, &v, &g, &beta, &state, &spans).map(drop))?;
        let shape = format!("qwen3.5-0.8b, {rows} x {len}");
        if len == 1 {
            bench.moved("delta rule step", &shape, 2 * 4 * rows * heads * dim * dim, time);
        } else {
            bench.computed("delta rule prefill", &shape, 7.0 * (n * heads * dim * dim) as f64, time);
        }
    }
    Ok(())
}

/// The operations around the rule in Qwen3.5-0.8B's delta nets, and a step of one net in one launch.
fn nets(bench: &Bench) -> Result<()> {
    let (heads, dim, taps, dtype) = (16usize, 128usize, 4usize, DType::BF16);
    let (width, channels) = (heads * dim, 3 * heads * dim);
    let (decay, bias, norm) =
        (bench.random(&[heads], DType::F32)?, bench.random(&[heads], DType::F32)?, bench.random(&[dim], DType::F32)?);
    let key_norm = bench.random(&[dim], dtype)?;
    let taps_of = bench.random(&[channels, taps], DType::F32)?;
    for (rows, len) in [(100usize, 1usize), (256, 1), (1024, 1), (8, 1000)] {
        let (rows, len) = (bench.few(rows), bench.few(len));
        let n = rows * len;
        let spans: Spans<StateSpan> =
            (0..rows).map(|row| StateSpan { first: row * len, len, start: 7, slot: row }).collect();
        // One fused projection, as in the model: queries, keys, values, gate, b and a.
        let all = bench.random(&[n, channels + width + 2 * heads], dtype)?;
        let part = |from: usize, features: usize| all.narrow(1, from, features);
        let (qkv, gate) = (part(0, channels)?, part(channels, width)?);
        let (b, a) = (part(channels + width, heads)?, part(channels + width + heads, heads)?);
        let held = Tensor::zeros((rows, taps - 1, channels), dtype, &bench.device)?;
        let time = bench.seconds(|| causal_conv(&qkv, &taps_of, &held, &spans).map(drop))?;
        let moved = 2 * (2 * n + 2 * rows * (taps - 1)) * channels;
        bench.moved("causal convolution", &format!("{rows} x {len} x {channels}"), moved, time);
        let time = bench.seconds(|| delta_gates(&b, &a, &decay, &bias).map(drop))?;
        bench.moved("gates of the rule", &format!("{n} x {heads}"), (2 * 2 + 2 * 4) * n * heads, time);
        let o = bench.random(&[n, heads, dim], dtype)?;
        let time = bench.seconds(|| gated_norm(&o, &gate, &norm, 1e-6, None).map(drop))?;
        bench.moved("gated norm", &format!("{n} x {heads} x {dim}"), 2 * 3 * n * width, time);
        let time = bench.seconds(|| sigmoid_gate(&o, &gate).map(drop))?;
        bench.moved("sigmoid gate", &format!("{n} x {heads} x {dim}"), 2 * 3 * n * width, time);
        if len > 1 {
            continue;
        }
        let state = Tensor::zeros((rows, heads, dim, dim), DType::F32, &bench.device)?;
        let of_key = Norm { weight: &key_norm, eps: 1e-6 };
        let net = DeltaNet {
            qkv: &qkv,
            b: &b,
            a: &a,
            gate: &gate,
            decay: &decay,
            bias: &bias,
            q_norm: of_key,
            k_norm: of_key,
            norm: Norm { weight: &norm, eps: 1e-6 },
            key_heads: heads,
        };
        let moved = 2 * 4 * rows * heads * dim * dim;
        let time = bench.seconds(|| delta_net(&net, &state, &spans, None).map(drop))?;
        bench.moved("delta net step", &format!("qwen3.5-0.8b, {rows} x 1"), moved, time);
        let time = bench.seconds(|| delta_net_in_steps(&net, &state, &spans, None).map(drop))?;
        bench.moved("the same in its kernels", &format!("qwen3.5-0.8b, {rows} x 1"), moved, time);
    }
    Ok(())
}

/// What follows the last layer: logits of Qwen3-0.6B, the choice of tokens, and scores, which include the logits.
fn head(bench: &Bench) -> Result<()> {
    let (d, vocab, dtype) = (bench.few(1024), bench.few(151_936), DType::BF16);
    let weight = Matrix::of(&(bench.random(&[vocab, d], dtype)? * 0.02)?)?;
    for rows in [100, 256].map(|rows| bench.few(rows)) {
        let hidden = bench.random(&[rows, d], dtype)?;
        let (operations, shape) = (2.0 * (rows * d * vocab) as f64, format!("{rows} x {d} x {vocab}"));
        let time = bench.seconds(|| logits(&hidden, &weight).map(drop))?;
        bench.computed("logits in f32", &shape, operations, time);
        let all = logits(&hidden, &weight)?;
        let drawn = Draw { temperature: 0.7, top_p: 0.9, ..Draw::default() };
        let text = TextTokens::of(&(0..bench.few(500) as u32).collect::<Vec<_>>());
        let penalties = Some(Penalties { repetition: 1.1, presence: 0.0, text: &text });
        for (what, penalties, draw) in [
            ("greedy", None, Draw::default()),
            ("temperature, top-p", None, drawn),
            ("greedy, penalties", penalties, Draw::default()),
        ] {
            let choices: Vec<Choice<'_>> =
                (0..rows as u64).map(|stream| Choice { penalties, draw: Draw { stream, ..draw } }).collect();
            let (shape, read) = (format!("{what}, {rows} x {vocab}"), 4 * rows * vocab);
            let time = bench.seconds_alone(|| choose(&all, &choices).map(drop))?;
            bench.moved("choice of a token, asked for", &shape, read, time);
            // As at the end of a played-back decode step; no row may finish and become idle.
            let room = 2 * CALLS * (PLAYS + 1);
            let row = |(slot, choice)| DecodeRow {
                id: 0,
                position: 0,
                lambda: 0,
                slot,
                left: room,
                stops: Vec::new(),
                choice,
            };
            // With room for one token that joins the text.
            let text = penalties.map_or(0, |of| of.text.tokens().count() + 1);
            let size = DecodeSize { rows, stops: 1, text, room, capacity: 1 };
            let step = DecodeRows::new(size, &bench.device)?;
            step.set(&choices.into_iter().enumerate().map(row).collect::<Vec<_>>())?;
            let time = bench.seconds(|| step.advance(&all))?;
            bench.moved("choice of a token, end of a step", &shape, read, time);
        }
        let targets = vec![7u32; rows];
        let time = bench.seconds_alone(|| score_head(&hidden, &weight, &targets, None, None).map(drop))?;
        bench.computed("log-probabilities", &shape, operations, time);
        // Each row against its own base row, as when a head is tempered.
        let scores = score_head(&hidden, &weight, &targets, None, None)?;
        let log_sum_exp: Vec<f64> = scores.iter().map(|score| score.log_sum_exp).collect();
        let of: Vec<usize> = (0..rows).collect();
        let base = BaseRows { hidden: &hidden, log_sum_exp: &log_sum_exp, of: &of };
        let time = bench.seconds_alone(|| score_head(&hidden, &weight, &targets, None, Some(base)).map(drop))?;
        bench.computed("log-probabilities and KL", &shape, 2.0 * operations, time);
    }
    Ok(())
}

fn rows(bench: &Bench) -> Result<()> {
    let dtype = DType::BF16;
    for n in [100, 256, 8192].map(|rows| bench.few(rows)) {
        let (d, inner, heads, dim) = (bench.few(1024), bench.few(3072), 8, 128);
        let (x, y, weight) =
            (bench.random(&[n, d], dtype)?, bench.random(&[n, d], dtype)?, Tensor::ones(d, dtype, &bench.device)?);
        let time = bench.seconds(|| add_rms_norm(&x, &y, &weight, 1e-6).map(drop))?;
        bench.moved("add and norm", &format!("{n} x {d}"), 2 * 4 * n * d, time);
        let gate_up = bench.random(&[n, 2 * inner], dtype)?;
        let time = bench.seconds(|| silu_mul(&gate_up).map(drop))?;
        bench.moved("silu x mul", &format!("{n} x {inner}"), 2 * 3 * n * inner, time);
        let time = bench.seconds(|| gelu_mul(&gate_up).map(drop))?;
        bench.moved("gelu x mul", &format!("{n} x {inner}"), 2 * 3 * n * inner, time);
        let fused = bench.random(&[n, 4 * heads * dim], dtype)?;
        let cache = || Tensor::zeros((n, heads, dim), dtype, &bench.device);
        let (keys, values, angles) = (cache()?, cache()?, bench.random(&[n, dim / 2], dtype)?);
        let norm = Tensor::ones(dim, dtype, &bench.device)?;
        let steps = HeadSteps { norm: Some(Norm { weight: &norm, eps: 1e-6 }), angles: Some((&angles, &angles)) };
        let part = |from: usize, count: usize| fused.narrow(1, from * dim, count * dim);
        let (q, k, v) = (part(0, 2 * heads)?, part(2 * heads, heads)?, part(3 * heads, heads)?);
        let view = |x, count, steps| HeadsOf { x, count, dim, steps };
        let (q, k, v) = (view(&q, 2 * heads, steps), view(&k, heads, steps), view(&v, heads, HeadSteps::default()));
        let spans: Spans<AttentionSpan> =
            (0..n).map(|i| AttentionSpan { first: i, len: 1, start: 0, cache: i }).collect();
        let time = bench.seconds(|| attended_heads(q, k, v, (&keys, &values), &spans).map(drop))?;
        let shape = format!("{n} x {} x {dim}", 4 * heads);
        bench.moved("norm, rope, cache write of q, k, v", &shape, 2 * 2 * n * 4 * heads * dim, time);
        let positions = Tensor::zeros(n, DType::U32, &bench.device)?;
        let frequencies = Tensor::ones(dim / 2, DType::F32, &bench.device)?;
        let time = bench.seconds(|| headtemper_kernels::angles(&positions, &frequencies, dtype).map(drop))?;
        bench.moved("angles of rotation", &format!("{n} x {}", dim / 2), 2 * 2 * n * dim / 2, time);
        // The four products of a layer.
        let (q, kv) = (2 * heads * dim, heads * dim);
        for (name, from, to) in [("q|k|v", d, q + 2 * kv), ("o", q, d), ("gate|up", d, 2 * inner), ("down", inner, d)] {
            let (x, weight) = (bench.random(&[n, from], dtype)?, Matrix::of(&bench.random(&[to, from], dtype)?)?);
            let time = bench.seconds(|| linear(&x, &weight).map(drop))?;
            let operations = 2.0 * (n * from * to) as f64;
            bench.computed(&format!("product {name}"), &format!("{n} x {from} x {to}"), operations, time);
        }
    }
    Ok(())
}

/// Norms and means of Qwen3-0.6B's heads over the last 32 tokens of each text.
fn statistics(bench: &Bench) -> Result<()> {
    let (rows, len, heads, dim, last) = (bench.few(8), bench.few(1000), 16, 128, bench.few(32));
    let z = bench.random(&[rows * len, heads, dim], DType::BF16)?;
    let ranges: Spans<std::ops::Range<usize>> = (1..=rows).map(|row| row * len - last..row * len).collect();
    let time = bench.seconds(|| head_stats(&z, &ranges, true).map(drop))?;
    bench.moved(
        "head statistics",
        &format!("{rows} x {last} x {heads} x {dim}"),
        2 * 2 * rows * last * heads * dim,
        time,
    );
    Ok(())
}

/// A section of the output, and the function that measures it.
type Part = (&'static str, fn(&Bench) -> Result<()>);

fn main() -> Result<()> {
    let number = match std::env::var("DEVICE") {
        Ok(number) => number.parse().map_err(|_| Error::Msg(format!("DEVICE is '{number}', but must be a number")))?,
        Err(_) => 0,
    };
    let part = std::env::args().nth(1);
    let only = |name: &str| part.as_deref() == Some(name);
    if part.is_none() {
        settings(number)?;
    }
    let bench = &Bench::new(open_cuda(number)?, only("tiny"))?;
    if only("ceilings") {
        return Ok(());
    }
    // A failure in one of them must not stop the others.
    let parts: [Part; 8] = [
        ("recordings", nodes),
        ("rows", rows),
        ("statistics", statistics),
        ("attention of decode steps", decode_attention),
        ("attention of prompts", prefill_attention),
        ("the delta rule", delta),
        ("delta nets", nets),
        ("the head", head),
    ];
    let failed = |(name, part): (&str, fn(&Bench) -> Result<()>)| Some(format!("{name}: {}", part(bench).err()?));
    let failed: Vec<String> = parts.into_iter().filter_map(failed).collect();
    if failed.is_empty() { Ok(()) } else { Err(Error::Msg(failed.join("; "))) }
}
