//! Linear layers on weights as the file holds them, f32 arithmetic.

use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::{
    Level, Shared,
    dot::{Element, dots},
    simd::{Simd, dispatch},
};

/// `x Wᵀ` in f32 on weights stored as f32, bf16 or f16.
///
/// # Shapes
/// `x` `[m, k]` f32, `weight` `[n, k]` as the checkpoint has it (PyTorch's order); result `[m, n]` f32. On the CPU the
/// stored weight is widened in registers, never in memory, and may be some columns of a wider one (`narrow(1, ..)`).
///
/// # Errors
/// If the shapes do not fit, or on a dtype that is none of these.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if x.device().is_cpu() {
        x.contiguous()?.apply_op2_no_bwd(weight, &Linear(Level::best()))
    } else {
        linear_reference(x, weight)
    }
}

/// The oracle of [`linear`] in plain candle ops: widens the whole weight.
///
/// # Errors
/// If the shapes do not fit.
pub fn linear_reference(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    x.matmul(&weight.to_dtype(x.dtype())?.t()?)
}

struct Linear(Level);

impl CustomOp2 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(&self, x: &CpuStorage, lx: &Layout, w: &CpuStorage, lw: &Layout) -> Result<(CpuStorage, Shape)> {
        let ((m, k), (n, wk)) = (lx.shape().dims2()?, lw.shape().dims2()?);
        if k != wk {
            bail!("linear: activations have {k} features, the weight has {wk}");
        }
        let (Some((x0, x1)), &[stride, 1]) = (lx.contiguous_offsets(), lw.stride()) else {
            bail!("linear: activations, and the rows of the weight, must be contiguous");
        };
        let x = &x.as_slice::<f32>()?[x0..x1];
        let first = lw.start_offset();
        let used = first..first + if n == 0 { 0 } else { (n - 1) * stride + k };
        let out = match w {
            CpuStorage::F32(w) => run(self.0, x, &w[used], stride, (m, n, k)),
            CpuStorage::BF16(w) => run(self.0, x, &w[used], stride, (m, n, k)),
            CpuStorage::F16(w) => run(self.0, x, &w[used], stride, (m, n, k)),
            _ => bail!("linear: weights are f32, bf16 or f16, not {:?}", dtype_of(w)),
        };
        Ok((CpuStorage::F32(out), Shape::from((m, n))))
    }
}

fn dtype_of(storage: &CpuStorage) -> DType {
    use candle_core::backend::BackendStorage;
    storage.dtype()
}

/// Weight bytes a task walks: they stay in the second-level cache while every tile of activations passes over them.
const TASK_BYTES: usize = 256 * 1024;
/// Multiply-adds below which threads cost more than they bring.
const SERIAL: usize = 64 * 1024;

/// Row `r` of the weight begins at `w[r * stride]`.
fn run<W: Element>(level: Level, x: &[f32], w: &[W], stride: usize, (m, n, k): (usize, usize, usize)) -> Vec<f32> {
    let mut out = vec![0f32; m * n];
    if m == 0 || n == 0 {
        return out;
    }
    let rows = (TASK_BYTES / (k * size_of::<W>()).max(1)).clamp(12, 768) / 12 * 12; // whole tiles of every level
    let rows = rows.min(n.div_ceil(rayon::current_num_threads()).next_multiple_of(12));
    let shared = Shared(out.as_mut_ptr());
    let task = |chunk: usize| {
        let (first, last) = (chunk * rows, ((chunk + 1) * rows).min(n));
        // SAFETY: the rows `first..last` of the weight lie inside `w`, `x` holds m * k values, and this task alone
        // writes the columns `first..last` of `out`.
        unsafe {
            let w = w.as_ptr().add(first * stride);
            let out = shared.get().add(first);
            block(level, (m, last - first, k), x.as_ptr(), w, stride, out, n);
        }
    };
    let chunks = n.div_ceil(rows);
    if m * n * k < SERIAL {
        (0..chunks).for_each(task);
    } else {
        (0..chunks).into_par_iter().for_each(task);
    }
    out
}

dispatch! {
    /// `out[c * out_stride + r] = w_r · x_c` for all rows; `w_r` begins at `w + r * stride`.
    unsafe fn block<W: Element>(
        size: (usize, usize, usize), x: *const f32, w: *const W, stride: usize, out: *mut f32, out_stride: usize,
    ) = block_generic;
}

/// Walks the weight block once for every tile of activation rows, which stays in the first-level cache.
#[inline(always)]
unsafe fn block_generic<S: Simd, W: Element>(
    (m, n, k): (usize, usize, usize),
    x: *const f32,
    w: *const W,
    stride: usize,
    out: *mut f32,
    out_stride: usize,
) {
    /// The tile for `$m` remaining activation rows, wide in weight rows where there are few.
    macro_rules! rows {
        ($c:expr, $r:literal, $m:literal) => {{
            let mut r = 0;
            let xs = std::array::from_fn(|i| x.add(($c + i) * k));
            while r + $r <= n {
                let d = dots::<S, W, $r, $m>(k, w.add(r * stride), stride, xs);
                for i in 0..$r {
                    for j in 0..$m {
                        *out.add(($c + j) * out_stride + r + i) = d[i][j];
                    }
                }
                r += $r;
            }
            while r < n {
                let d = dots::<S, W, 1, $m>(k, w.add(r * stride), stride, xs);
                for j in 0..$m {
                    *out.add(($c + j) * out_stride + r) = d[0][j];
                }
                r += 1;
            }
            $c += $m;
        }};
    }
    // SAFETY: rows r < n of the weight, rows c < m of the activations, and out as the caller laid it out.
    unsafe {
        let mut c = 0;
        if S::TILE == (4, 6) {
            while c + 6 <= m {
                rows!(c, 4, 6);
            }
            if c + 4 <= m {
                rows!(c, 4, 4);
            }
            if c + 2 <= m {
                rows!(c, 6, 2);
            }
        } else if S::TILE == (3, 4) {
            while c + 4 <= m {
                rows!(c, 3, 4);
            }
            if c + 2 <= m {
                rows!(c, 4, 2);
            }
        } else {
            while c + 2 <= m {
                rows!(c, 2, 2);
            }
        }
        while c < m {
            rows!(c, 4, 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;
    use proptest::prelude::*;

    /// Largest difference to candle's own matmul, relative to the size of the terms: both round, in another order.
    /// Measured worst case over the shapes below: 2.1e-6 (portable, no FMA, 2026-11-21).
    const TOLERANCE: f64 = 1e-5;

    fn inputs(m: usize, n: usize, k: usize, dtype: DType) -> Result<(Tensor, Tensor)> {
        let values = |count: usize, seed: u32| -> Vec<f32> {
            (0..count as u32)
                .map(|i| ((i ^ seed).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0)
                .collect()
        };
        let x = Tensor::from_vec(values(m * k, 7), (m, k), &Device::Cpu)?;
        Ok((x, Tensor::from_vec(values(n * k, 99), (n, k), &Device::Cpu)?.to_dtype(dtype)?))
    }

    fn check(m: usize, n: usize, k: usize, dtype: DType) -> Result<()> {
        let (x, w) = inputs(m, n, k, dtype)?;
        let oracle = linear_reference(&x, &w)?;
        for level in Level::available() {
            let fast = x.apply_op2_no_bwd(&w, &Linear(level))?;
            assert_eq!(fast.dims(), oracle.dims());
            if m * n > 0 {
                let worst =
                    f64::from((fast - &oracle)?.abs()?.max_all()?.to_scalar::<f32>()?) / (k as f64).sqrt().max(1.0);
                println!("linear {level:?} {m}x{n}x{k} {dtype:?}: {worst:e} of {TOLERANCE:e}");
                assert!(worst < TOLERANCE, "{level:?} {m}x{n}x{k} {dtype:?}: {worst:e}");
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_level_is_the_oracle_on_odd_shapes(m in 0usize..20, n in 1usize..70, k in 1usize..100, which in 0usize..3) {
            check(m, n, k, [DType::F32, DType::BF16, DType::F16][which]).unwrap();
        }
    }

    #[test]
    fn every_level_is_the_oracle_on_the_models_shapes() -> Result<()> {
        for (m, n, k) in [(1, 960, 576), (33, 3072, 576), (7, 576, 1536), (0, 8, 8)] {
            check(m, n, k, DType::BF16)?;
        }
        Ok(())
    }

    #[test]
    fn a_row_is_the_same_bits_in_any_batch() -> Result<()> {
        let (x, w) = inputs(23, 50, 72, DType::BF16)?;
        for level in Level::available() {
            let all = x.apply_op2_no_bwd(&w, &Linear(level))?.to_vec2::<f32>()?;
            for (row, expected) in all.iter().enumerate() {
                let alone = x.narrow(0, row, 1)?.contiguous()?.apply_op2_no_bwd(&w, &Linear(level))?;
                assert_eq!(&alone.to_vec2::<f32>()?[0], expected, "{level:?} row {row}");
            }
        }
        Ok(())
    }

    #[test]
    fn some_columns_of_a_weight_serve_as_they_lie() -> Result<()> {
        let (x, w) = inputs(7, 30, 24, DType::BF16)?;
        let columns = w.narrow(1, 8, 16)?;
        let x = x.narrow(1, 8, 16)?.contiguous()?;
        for level in Level::available() {
            let apart = x.apply_op2_no_bwd(&columns.contiguous()?, &Linear(level))?.to_vec2::<f32>()?;
            assert_eq!(x.apply_op2_no_bwd(&columns, &Linear(level))?.to_vec2::<f32>()?, apart);
        }
        let message = linear(&x, &inputs(1, 16, 30, DType::F32)?.1.t()?).unwrap_err().to_string();
        assert!(message.contains("must be contiguous"), "{message}");
        Ok(())
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() -> Result<()> {
        let (x, _) = inputs(2, 3, 4, DType::F32)?;
        let (_, w) = inputs(2, 3, 5, DType::F32)?;
        assert!(linear(&x, &w).unwrap_err().to_string().contains("4 features, the weight has 5"));
        Ok(())
    }
}
