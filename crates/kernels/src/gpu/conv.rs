//! The short causal convolution on the GPU.

use candle_core::{DType, Result, Tensor, bail};

use super::{Grid, Held, Kernel, address, address_of, form, kernel, launch, room, wide};
use crate::{
    Spans, StateSpan,
    conv::{Size, causal_conv_reference},
    place::Place,
    state::check_apart,
};

/// For any kernel size and alignment.
const CONV: Kernel = kernel!(CONV, "conv");
/// For kernels of four taps where everything is a multiple of four; `STEPS` if also no span has more than one token.
const TILES: Kernel = kernel!(CONV, "conv_tiles");
const STEPS: Kernel = kernel!(CONV, "conv_steps");
/// The taps of those kernels.
const TAPS: usize = 4;
const NAME: &str = "causal_conv";

/// Tokens per block, `CONV_TILE` of `cuda/conv.cu`.
const TILE: usize = 32;
/// Spans per block of steps, `CONV_SPANS` of `cuda/conv.cu`.
const STEP_SPANS: usize = 4;
/// Threads per block, with four channels each.
const THREADS: usize = 128;

/// `ConvArgs` of `cuda/conv.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    x: u64,
    weight: u64,
    state: u64,
    spans: u64,
    out: u64,
    token: i64,
    n: i32,
    span_count: i32,
    channels: i32,
    kernel: i32,
    state_f32: i32,
}

/// [`causal_conv`](crate::causal_conv). The state is f32 or has the type of `x`; for kernels of more than 33 taps the reference
/// runs instead.
pub(crate) fn causal_conv(x: &Tensor, weight: &Tensor, state: &Tensor, spans: &Spans<StateSpan>) -> Result<Tensor> {
    let Size { n, channels, kernel, .. } = Size::of(x, weight, state, spans)?;
    let place = Place::of(NAME, x.layout(), (n, 1, channels))?;
    if ![DType::F32, x.dtype()].contains(&state.dtype()) || !state.device().same_device(x.device()) {
        let (x, state) = ((x.dtype(), x.device().location()), (state.dtype(), state.device().location()));
        bail!("{NAME}: a state {state:?} beside activations {x:?}; it is f32 or as they are, on their device");
    }
    check_apart(NAME, state, &[x, weight])?;
    let weight = weight.to_dtype(DType::F32)?.contiguous()?;
    if kernel > TILE + 1 {
        let held = state.to_dtype(DType::F32)?.copy()?;
        let out = causal_conv_reference(&x.to_dtype(DType::F32)?, &weight, &held, spans.still("causal_conv")?)?;
        state.slice_set(&held.to_dtype(state.dtype())?, 0, 0)?;
        return out.to_dtype(x.dtype());
    }
    let out = room(&[n, channels], x)?;
    if out.elem_count() == 0 {
        return Ok(out);
    }
    let table = if spans.is_empty() { None } else { Some(spans.table(x.device())?) };
    let (token, size) = (place.strides().0, x.dtype().size_in_bytes());
    let [x_at, weight_at, state_at, out_at] =
        [Held::of(x).address()?, address(NAME, &weight)?, address(NAME, state)?, address(NAME, &out)?];
    let places = [(x_at, size), (weight_at, 4), (state_at, state.dtype().size_in_bytes()), (out_at, size)];
    let args = Args {
        x: x_at,
        weight: weight_at,
        state: state_at,
        spans: address_of(NAME, table)?,
        out: out_at,
        token: token as i64,
        n: n as i32,
        span_count: spans.len() as i32,
        channels: channels as i32,
        kernel: kernel as i32,
        state_f32: (state.dtype() == DType::F32).into(),
    };
    let fours = kernel == TAPS && wide(&places, &[token, channels]);
    let (kernel, rows) = if fours && spans.iter().all(|span| span.len <= 1) {
        (&STEPS, spans.len().max(1).div_ceil(STEP_SPANS))
    } else {
        (if fours { &TILES } else { &CONV }, n / TILE + spans.len().max(1))
    };
    let grid =
        Grid { blocks: [channels.div_ceil(4 * THREADS) as u32, rows as u32, 1], threads: THREADS as u32, shared: 0 };
    // SAFETY: `Args` is the kernel's struct; spans were checked to have their own tokens and slots inside the tensors.
    unsafe { launch(x.device(), kernel, form(NAME, x.dtype())?, grid, &args)? };
    Ok(out)
}
