//! More rows than a grid has blocks in y.

use std::ops::Range;

use candle_core::{DType, Result, Tensor};

use super::{DEVICE, flat, on, random};
use crate::{
    AttentionSpan, Draw, HeadSteps, HeadsOf, Join, Norm, Spans, StateSpan,
    gpu::{self, Grid, kernel, launch},
};

/// A card takes at most 65,535 blocks in y and z.
const MANY: usize = 65_537;
const WIDTH: usize = 8;

/// Asserts that the last of many rows is what it is alone, bit for bit.
fn last_as_alone(what: &str, of: impl Fn(Range<usize>) -> Result<Tensor>) -> Result<()> {
    let (all, alone) = (of(0..MANY)?, of(MANY - 1..MANY)?);
    let last = flat(&all.narrow(0, MANY - 1, 1)?);
    assert_eq!(last, flat(&alone), "{what}");
    assert!(last.iter().any(|&value| value != 0.0), "{what}: zeros show nothing");
    Ok(())
}

#[test]
fn kernels_take_more_rows_than_a_grid_has_in_y() -> Result<()> {
    let (x, weight) = (on(&random(&[MANY, 2 * WIDTH], 1))?, on(&random(&[WIDTH], 2))?);
    let half = on(&random(&[MANY, WIDTH], 3))?;
    let rows = |x: &Tensor, range: &Range<usize>| x.narrow(0, range.start, range.len());
    let norm = Norm { weight: &weight, eps: 1e-5 };
    last_as_alone("norm", |range| gpu::rms_norm(&rows(&half, &range)?, &weight, 1e-5))?;
    last_as_alone("sum and norm", |range| {
        let how = Join { before: None, scale: 1.0, next: Some(norm) };
        let x = rows(&half, &range)?;
        Ok(gpu::join(&x, &x, &how)?.1.expect("a norm was asked for"))
    })?;
    last_as_alone("gated activation", |range| gpu::gate_mul(&rows(&x, &range)?, false))?;
    last_as_alone("heads", |range| {
        let steps = HeadSteps { norm: Some(norm), ..HeadSteps::default() };
        let [out] = gpu::heads([HeadsOf { x: &rows(&x, &range)?, count: 2, dim: WIDTH, steps }])?;
        Ok(out)
    })?;
    last_as_alone("ranges", |range| {
        let ranges: Vec<_> = range.map(|row| row..row + 1).collect();
        gpu::range_means(&half, &ranges.into())
    })?;
    last_as_alone("convolution", |range| {
        let one = |(first, slot): (usize, usize)| StateSpan { first, len: 1, start: 0, slot };
        let x = rows(&half, &range)?;
        let state = Tensor::ones((range.len(), 3, WIDTH), DType::F32, &DEVICE)?;
        let spans: Vec<_> = (0..range.len()).zip(0..).map(one).collect();
        gpu::causal_conv(&x, &on(&random(&[WIDTH, 4], 4))?, &state, &spans.into())
    })?;
    Ok(())
}

#[test]
fn attention_takes_as_many_sequences() -> Result<()> {
    let [q, k, v] = [(2, 5), (1, 6), (1, 7)].map(|(heads, seed)| on(&random(&[MANY, heads, WIDTH], seed)));
    let (q, k, v) = (q?, k?, v?);
    last_as_alone("attention", |range| {
        let one = |(first, cache)| AttentionSpan { first, len: 1, start: 0, cache };
        let spans: Spans<_> = (0..).zip(range.clone()).map(one).collect::<Vec<_>>().into();
        gpu::attend(&q.narrow(0, range.start, range.len())?, &k, &v, &spans, 0.5, None, None)
    })?;
    Ok(())
}

#[test]
fn draws_take_as_many_rows() -> Result<()> {
    let logits = on(&random(&[MANY, 5], 8))?;
    let draw = |row: usize| Draw { key: [9; 8], stream: row as u64, step: 3, temperature: 1.5, ..Draw::default() };
    let choose = |range: Range<usize>| {
        let draws: Vec<_> = range.clone().map(|row| draw(row).into()).collect();
        gpu::choose(&logits.narrow(0, range.start, range.len())?, &draws)
    };
    assert_eq!(choose(0..MANY)?.last(), choose(MANY - 1..MANY)?.last());
    Ok(())
}

/// A launch would read beyond a smaller struct, and leave the end of a larger one out.
#[test]
fn a_struct_of_another_size_is_refused() {
    let grid = Grid { blocks: [1; 3], threads: 32, shared: 0 };
    // SAFETY: it is refused before anything reads the arguments.
    let error =
        unsafe { launch(&DEVICE, &kernel!(ACTIVATION, only "softcap"), 0, grid, &0_u64) }.unwrap_err().to_string();
    assert!(error.contains("softcap: takes ") && error.contains("not a struct of 8 bytes"), "{error}");
}

#[test]
fn a_grid_that_no_card_takes_is_refused() {
    for blocks in [[1, MANY as u32, 1], [1, 1, MANY as u32], [1 << 31, 1, 1]] {
        let grid = Grid { blocks, threads: 32, shared: 0 };
        // SAFETY: it is refused before anything reads the arguments.
        let error =
            unsafe { launch(&DEVICE, &kernel!(ACTIVATION, only "softcap"), 0, grid, &0_u64) }.unwrap_err().to_string();
        assert!(error.contains("blocks are more than a card takes in one launch"), "{error}");
    }
}
