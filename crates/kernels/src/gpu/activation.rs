//! Gated activations, and the cap of logits, on the GPU.

use candle_core::{D, DType, Result, Tensor, bail};

use super::{Grid, Kernel, address, form, kernel, launch, room, wide};

const GATE_MUL: Kernel = kernel!(ACTIVATION, "gate_mul");
const SOFTCAP: Kernel = kernel!(ACTIVATION, only "softcap");

/// `GateMulArgs` of `cuda/activation.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    x: u64,
    out: u64,
    rows: i64,
    width: i32,
    gelu: i32,
}

/// [`silu_mul`](crate::silu_mul), or with `gelu` [`gelu_mul`](crate::gelu_mul).
pub(crate) fn gate_mul(x: &Tensor, gelu: bool) -> Result<Tensor> {
    let name = if gelu { "gelu_mul" } else { "silu_mul" };
    let both = x.dim(D::Minus1)?;
    if both % 2 != 0 {
        bail!("{name}: gate and up side by side make an even width, not {both}");
    }
    let x = x.contiguous()?;
    let mut shape = x.dims().to_vec();
    *shape.last_mut().expect("it has a last dimension") = both / 2;
    let out = room(&shape, &x)?;
    let (width, count) = (both / 2, out.elem_count());
    let rows = count / width.max(1);
    let args = Args {
        x: address(name, &x)?,
        out: address(name, &out)?,
        rows: rows as i64,
        width: width as i32,
        gelu: gelu.into(),
    };
    let pack = 16 / x.dtype().size_in_bytes();
    let packs = if width % pack == 0 { count / pack } else { count };
    // SAFETY: `Args` is the kernel's struct; every thread writes values of its own.
    unsafe { launch(x.device(), &GATE_MUL, form(name, x.dtype())?, Grid::row(packs.div_ceil(256), 256), &args)? };
    Ok(out)
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
    // SAFETY: `SoftcapArgs` is the kernel's struct; every thread writes values of its own.
    unsafe { launch(x.device(), &SOFTCAP, 0, Grid::row(count.div_ceil(4 * 256), 256), &args)? };
    Ok(out)
}
