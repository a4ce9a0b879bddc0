//! Gated activations and soft-capped logits, on the GPU.

use candle_core::{D, DType, Result, Tensor, bail};

use super::{Grid, Held, Kernel, address, alike, form, kernel, launch, packed, room, wide};
use crate::place::Place;

const GATE_MUL: Kernel = kernel!(ACTIVATION, "gate_mul");
const SOFTCAP: Kernel = kernel!(ACTIVATION, only "softcap");

/// `GateMulArgs` of `cuda/activation.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    gate: u64,
    up: u64,
    out: u64,
    rows: i64,
    gate_step: i64,
    up_step: i64,
    width: i32,
    gelu: i32,
    wide: i32,
}

/// Threads per block of `gate_mul`.
const THREADS: u32 = 128;

/// Rows that get their own blocks; with more rows, a block takes several.
const ROWS: i64 = 2048;

fn name_of(gelu: bool) -> &'static str {
    if gelu { "gelu_mul" } else { "silu_mul" }
}

/// [`silu_mul`](crate::silu_mul), or [`gelu_mul`](crate::gelu_mul) if `gelu` is set.
pub(crate) fn gate_mul(x: &Tensor, gelu: bool) -> Result<Tensor> {
    let (name, both) = (name_of(gelu), x.dim(D::Minus1)?);
    if both % 2 != 0 {
        bail!("{name}: gate and up side by side make an even width, not {both}");
    }
    let x = x.contiguous()?;
    let mut shape = x.dims().to_vec();
    *shape.last_mut().expect("it has a last dimension") = both / 2;
    let out = room(&shape, &x)?;
    let gate = address(name, &x)?;
    let up = gate + (both / 2 * x.dtype().size_in_bytes()) as u64;
    gated([(gate, both), (up, both)], both / 2, gelu, &out)?;
    Ok(out)
}

/// [`gelu_mul_with`](crate::gelu_mul_with).
pub(crate) fn gelu_mul_with(gate: &Tensor, up: &Tensor) -> Result<Tensor> {
    let (name, (rows, width)) = ("gelu_mul", gate.dims2()?);
    alike(name, &[gate, up])?;
    let [of_gate, of_up] = [gate, up].map(|x| Place::of(name, x.layout(), (rows, 1, width)));
    let (gate_step, up_step) = (of_gate?.strides().0, of_up?.strides().0);
    let out = room(&[rows, width], gate)?;
    let places = [(Held::of(gate).address()?, gate_step), (Held::of(up).address()?, up_step)];
    gated(places, width, true, &out)?;
    Ok(out)
}

/// Gate and up are given by the address of their first value and the number of values from one row to the next.
fn gated([(gate, gate_step), (up, up_step)]: [(u64, usize); 2], width: usize, gelu: bool, out: &Tensor) -> Result<()> {
    let (name, size, count) = (name_of(gelu), out.dtype().size_in_bytes(), out.elem_count());
    let (pack, to) = (16 / size, address(name, out)?);
    let wide = packed(pack, &[(gate, size), (up, size), (to, size)], &[gate_step, up_step, width]);
    let args = Args {
        gate,
        up,
        out: to,
        rows: (count / width.max(1)) as i64,
        gate_step: gate_step as i64,
        up_step: up_step as i64,
        width: width as i32,
        gelu: gelu.into(),
        wide: wide.into(),
    };
    let across = (if wide { width / pack } else { width }).div_ceil(THREADS as usize);
    let grid = Grid { blocks: [across as u32, args.rows.min(ROWS) as u32, 1], threads: THREADS, shared: 0 };
    // SAFETY: `Args` is the kernel's struct; every thread writes its own values.
    unsafe { launch(out.device(), &GATE_MUL, form(name, out.dtype())?, grid, &args) }
}

/// `SoftcapArgs` of `cuda/activation.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct SoftcapArgs {
    x: u64,
    out: u64,
    count: i64,
    cap: f32,
    wide: i32,
}

/// [`softcap`](crate::softcap).
pub(crate) fn softcap(x: &Tensor, cap: f32) -> Result<Tensor> {
    let name = "softcap";
    if x.dtype() != DType::F32 {
        bail!("{name}: logits are f32, not {:?}", x.dtype());
    }
    let x = x.contiguous()?;
    let (out, count) = (room(x.dims(), &x)?, x.elem_count());
    let (from, to) = (address(name, &x)?, address(name, &out)?);
    let args =
        SoftcapArgs { x: from, out: to, count: count as i64, cap, wide: wide(&[(from, 4), (to, 4)], &[]).into() };
    // SAFETY: `SoftcapArgs` is the kernel's struct; every thread writes its own values.
    unsafe { launch(x.device(), &SOFTCAP, 0, Grid::row(count.div_ceil(4 * 256), 256), &args)? };
    Ok(out)
}
