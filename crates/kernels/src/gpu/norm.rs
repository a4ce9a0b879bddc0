//! RMS norms on the GPU.

use candle_core::{D, Result, Tensor, bail};

use super::{Grid, Kernel, address, address_of, alike, form, kernel, launch, room};

const NORM: Kernel = kernel!(NORM, "norm");

/// `NormArgs` of `cuda/norm.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Args {
    x: u64,
    y: u64,
    weight: u64,
    sum: u64,
    out: u64,
    width: i32,
    eps: f32,
}

/// [`rms_norm`](crate::rms_norm).
pub(crate) fn rms_norm(x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    Ok(norm(x, None, weight, eps)?.1)
}

/// [`add_rms_norm`](crate::add_rms_norm).
pub(crate) fn add_rms_norm(x: &Tensor, y: &Tensor, weight: &Tensor, eps: f32) -> Result<(Tensor, Tensor)> {
    let (sum, out) = norm(x, Some(y), weight, eps)?;
    Ok((sum.expect("there was something to add"), out))
}

fn norm(x: &Tensor, y: Option<&Tensor>, weight: &Tensor, eps: f32) -> Result<(Option<Tensor>, Tensor)> {
    let name = "rms_norm";
    let width = x.dim(D::Minus1)?;
    if weight.dims() != [width] {
        bail!("{name}: rows of {width} and a weight {:?} do not fit", weight.shape());
    }
    alike(name, &[x, y.unwrap_or(x), weight])?;
    if let Some(y) = y.filter(|y| y.shape() != x.shape()) {
        bail!("{name}: {:?} and {:?} differ", x.shape(), y.shape());
    }
    let x = x.contiguous()?;
    let y = y.map(Tensor::contiguous).transpose()?;
    let out = room(x.dims(), &x)?;
    let sum = y.as_ref().map(|_| room(x.dims(), &x)).transpose()?;
    let args = Args {
        x: address(name, &x)?,
        y: address_of(name, y.as_ref())?,
        weight: address(name, weight)?,
        sum: address_of(name, sum.as_ref())?,
        out: address(name, &out)?,
        width: width as i32,
        eps,
    };
    let threads = (width / 8).next_multiple_of(32).clamp(32, 256) as u32;
    let grid = Grid::row(x.elem_count() / width.max(1), threads).shared(4 * threads as usize / 32);
    // SAFETY: `Args` is the kernel's struct, and each row has its own block.
    unsafe { launch(x.device(), &NORM, form(name, x.dtype())?, grid, &args)? };
    Ok((sum, out))
}
