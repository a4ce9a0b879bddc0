//! The gates of a delta net and of attention, and sums, on the GPU.

use candle_core::{DType, Error, Result, Tensor, bail};

use super::{Grid, Held, Kernel, address, address_of, alike, form, kernel, launch, room, wide};
use crate::{
    gate::{gated_norm_reference, sigmoid_gate_reference},
    lambda,
    place::Place,
};

const DELTA_GATES: Kernel = kernel!(GATE, "delta_gates");
const GATED_NORM: Kernel = kernel!(GATE, "gated_norm");
const SIGMOID_GATE: Kernel = kernel!(GATE, "sigmoid_gate");
const ADD: Kernel = kernel!(GATE, "add");

/// Warps per block in kernels with one head per warp.
const WARPS: usize = 4;
/// Threads per block in the other kernels.
const THREADS: usize = 256;

/// `DeltaGatesArgs` of `cuda/gate.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct DeltaGates {
    b: u64,
    a: u64,
    decay: u64,
    bias: u64,
    beta: u64,
    g: u64,
    b_token: i64,
    a_token: i64,
    n: i32,
    heads: i32,
}

/// [`delta_gates`](crate::delta_gates).
pub(crate) fn delta_gates(b: &Tensor, a: &Tensor, decay: &Tensor, bias: &Tensor) -> Result<(Tensor, Tensor)> {
    let (name, (n, heads)) = ("delta_gates", b.dims2()?);
    alike(name, &[b, a])?;
    let place = |t: &Tensor| Place::of(name, t.layout(), (n, 1, heads));
    let (b_token, a_token) = (place(b)?.strides().0, place(a)?.strides().0);
    for vector in [decay, bias] {
        Place::of(name, vector.unsqueeze(0)?.layout(), (1, 1, heads))?;
        if vector.dtype() != DType::F32 || !vector.device().same_device(b.device()) {
            bail!("{name}: the decay and the bias are f32 where b and a are, not {:?}", vector.dtype());
        }
    }
    let (beta, g) = (room(&[n, heads], decay)?, room(&[n, heads], decay)?);
    if n * heads == 0 {
        return Ok((beta, g));
    }
    let args = DeltaGates {
        b: Held::of(b).address()?,
        a: Held::of(a).address()?,
        decay: address(name, decay)?,
        bias: address(name, bias)?,
        beta: address(name, &beta)?,
        g: address(name, &g)?,
        b_token: b_token as i64,
        a_token: a_token as i64,
        n: n as i32,
        heads: heads as i32,
    };
    let grid = Grid::row((n * heads).div_ceil(THREADS), THREADS as u32);
    // SAFETY: `DeltaGates` is the kernel's struct; every thread writes its own values.
    unsafe { launch(b.device(), &DELTA_GATES, form(name, b.dtype())?, grid, &args)? };
    Ok((beta, g))
}

/// `GatedArgs` of `cuda/gate.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gated {
    x: u64,
    gate: u64,
    weight: u64,
    lambda: u64,
    out: u64,
    x_token: i64,
    x_head: i64,
    gate_token: i64,
    gate_head: i64,
    n: i32,
    heads: i32,
    dim: i32,
    wide: i32,
    eps: f32,
}

impl Gated {
    /// The addresses and strides of heads and gates, and the result; `weight` is that of a norm.
    fn new(name: &str, x: &Tensor, gate: &Tensor, weight: Option<&Tensor>, out: &Tensor) -> Result<Self> {
        let size @ (n, heads, dim) = x.dims3()?;
        let strides = |t: &Tensor| Ok::<_, Error>(Place::of(name, t.layout(), size)?.strides());
        let ((x_token, x_head), (gate_token, gate_head)) = (strides(x)?, strides(gate)?);
        let bytes = x.dtype().size_in_bytes();
        let [x_at, gate_at, out_at] = [Held::of(x).address()?, Held::of(gate).address()?, address(name, out)?];
        let weight_at = address_of(name, weight)?;
        let places = [(x_at, bytes), (gate_at, bytes), (weight_at, 4), (out_at, bytes)];
        Ok(Self {
            x: x_at,
            gate: gate_at,
            weight: weight_at,
            lambda: 0,
            out: out_at,
            x_token: x_token as i64,
            x_head: x_head as i64,
            gate_token: gate_token as i64,
            gate_head: gate_head as i64,
            n: n as i32,
            heads: heads as i32,
            dim: dim as i32,
            wide: wide(&places, &[dim, x_token, x_head, gate_token, gate_head]).into(),
            eps: 0.0,
        })
    }
}

/// [`gated_norm`](crate::gated_norm). If `x` and `gate` have different types, the reference runs instead.
pub(crate) fn gated_norm(
    x: &Tensor,
    gate: &Tensor,
    weight: &Tensor,
    eps: f32,
    lambda: Option<&Tensor>,
) -> Result<Tensor> {
    let (name, size @ (n, heads, dim)) = ("gated_norm", x.dims3()?);
    Place::of(name, gate.layout(), size)?;
    if weight.dims() != [dim] || !weight.is_contiguous() {
        bail!("{name}: the weight must be contiguous [{dim}], not {:?}", weight.shape());
    }
    if let Some(lambda) = lambda {
        lambda::check(name, lambda, n, heads)?;
    }
    if x.dtype() != gate.dtype() {
        return gated_norm_reference(x, gate, weight, eps, lambda);
    }
    alike(name, &[x, gate])?;
    let weight = weight.to_dtype(DType::F32)?;
    alike(name, &[&weight, lambda.unwrap_or(&weight)])?;
    let out = room(&[n, heads, dim], x)?;
    if out.elem_count() == 0 {
        return Ok(out);
    }
    let args = Gated { lambda: address_of(name, lambda)?, eps, ..Gated::new(name, x, gate, Some(&weight), &out)? };
    let grid = Grid::row((n * heads).div_ceil(WARPS), 32 * WARPS as u32);
    // SAFETY: `Gated` is the kernel's struct, and each head has its own place in the result.
    unsafe { launch(x.device(), &GATED_NORM, form(name, x.dtype())?, grid, &args)? };
    Ok(out)
}

/// [`sigmoid_gate`](crate::sigmoid_gate). If `x` and `gate` have different types, the reference runs instead.
pub(crate) fn sigmoid_gate(x: &Tensor, gate: &Tensor) -> Result<Tensor> {
    let (name, size @ (n, heads, dim)) = ("sigmoid_gate", x.dims3()?);
    Place::of(name, gate.layout(), size)?;
    if x.dtype() != gate.dtype() {
        return sigmoid_gate_reference(x, gate);
    }
    alike(name, &[x, gate])?;
    let out = room(&[n, heads, dim], x)?;
    if out.elem_count() == 0 {
        return Ok(out);
    }
    let args = Gated::new(name, x, gate, None, &out)?;
    let grid = Grid::row((n * heads * dim.div_ceil(4)).div_ceil(THREADS), THREADS as u32);
    // SAFETY: `Gated` is the kernel's struct; every thread writes its own values.
    unsafe { launch(x.device(), &SIGMOID_GATE, form(name, x.dtype())?, grid, &args)? };
    Ok(out)
}

/// `AddArgs` of `cuda/gate.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Add {
    x: u64,
    y: u64,
    out: u64,
    count: i64,
    wide: i32,
}

/// [`add`](crate::add).
pub(crate) fn add(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let name = "add";
    if x.shape() != y.shape() {
        bail!("{name}: {:?} and {:?} differ", x.shape(), y.shape());
    }
    alike(name, &[x, y])?;
    let (x, y) = (x.contiguous()?, y.contiguous()?);
    let out = room(x.dims(), &x)?;
    let count = out.elem_count();
    if count == 0 {
        return Ok(out);
    }
    let [x_at, y_at, out_at] = [address(name, &x)?, address(name, &y)?, address(name, &out)?];
    let places = [x_at, y_at, out_at].map(|at| (at, x.dtype().size_in_bytes()));
    let args = Add { x: x_at, y: y_at, out: out_at, count: count as i64, wide: wide(&places, &[count]).into() };
    let grid = Grid::row(count.div_ceil(4 * THREADS), THREADS as u32);
    // SAFETY: `Add` is the kernel's struct; every thread writes its own values.
    unsafe { launch(x.device(), &ADD, form(name, x.dtype())?, grid, &args)? };
    Ok(out)
}
