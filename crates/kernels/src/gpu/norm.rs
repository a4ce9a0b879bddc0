//! RMS norms on the GPU.

use candle_core::{D, Result, Tensor, bail};

use super::{Grid, Kernel, address, address_of, alike, form, kernel, launch, packed, room};
use crate::{Join, Norm};

const NORM: Kernel = kernel!(NORM, "norm");

/// `NormArgs` of `cuda/norm.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    x: u64,
    y: u64,
    before: u64,
    weight: u64,
    sum: u64,
    out: u64,
    width: i32,
    eps: f32,
    before_eps: f32,
    scale: f32,
    wide: i32,
}

/// [`rms_norm`](crate::rms_norm).
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let norm = Join { before: None, scale: 1.0, next: Some(Norm { weight, eps }) };
    Ok(norm_rows(x, None, &norm)?.1.expect("a norm was asked for"))
}

/// [`join`](crate::join).
pub(crate) fn join(x: &Tensor, y: &Tensor, how: &Join<'_>) -> Result<(Tensor, Option<Tensor>)> {
    let (sum, normed) = norm_rows(x, Some(y), how)?;
    Ok((sum.expect("there was something to add"), normed))
}

fn norm_rows(x: &Tensor, y: Option<&Tensor>, how: &Join<'_>) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let name = "rms_norm";
    let width = x.dim(D::Minus1)?;
    for Norm { weight, .. } in how.before.iter().chain(&how.next) {
        if weight.dims() != [width] {
            bail!("{name}: rows of {width} and a weight {:?} do not fit", weight.shape());
        }
        alike(name, &[x, weight])?;
    }
    if let Some(y) = y {
        alike(name, &[x, y])?;
        if y.shape() != x.shape() {
            bail!("{name}: {:?} and {:?} differ", x.shape(), y.shape());
        }
    }
    let x = x.contiguous()?;
    let y = y.map(Tensor::contiguous).transpose()?;
    let sum = y.as_ref().map(|_| room(x.dims(), &x)).transpose()?;
    let out = how.next.map(|_| room(x.dims(), &x)).transpose()?;
    let weight_of = |norm: Option<Norm<'_>>| address_of(name, norm.map(|norm| norm.weight));
    let mut args = Args {
        x: address(name, &x)?,
        y: address_of(name, y.as_ref())?,
        before: weight_of(how.before)?,
        weight: weight_of(how.next)?,
        sum: address_of(name, sum.as_ref())?,
        out: address_of(name, out.as_ref())?,
        width: width as i32,
        eps: how.next.map_or(0.0, |norm| norm.eps),
        before_eps: how.before.map_or(0.0, |norm| norm.eps),
        scale: how.scale as f32,
        wide: 0,
    };
    let size = x.dtype().size_in_bytes();
    let places = [args.x, args.y, args.before, args.weight, args.sum, args.out].map(|at| (at, size));
    args.wide = packed(16 / size, &places, &[width]).into();
    let threads = (width / 8).next_multiple_of(32).clamp(32, 256) as u32;
    let grid = Grid::row(x.elem_count() / width.max(1), threads).shared(4 * threads as usize / 32);
    // SAFETY: `Args` is the kernel's struct, and each row has its own block.
    unsafe { launch(x.device(), &NORM, form(name, x.dtype())?, grid, &args)? };
    Ok((sum, out))
}
