//! Logits in f32 on the GPU.

use candle_core::{DType, Result, Tensor};

use crate::{Matrix, linear};

/// [`logits`](crate::logits).
pub(crate) fn logits(hidden: &Tensor, weight: &Matrix) -> Result<Tensor> {
    #[cfg(feature = "cuda")]
    if hidden.device().is_cuda() && hidden.dtype() == weight.held().dtype() {
        return card::product(hidden, &weight.to_tensor()?);
    }
    linear(hidden, weight)?.to_dtype(DType::F32)
}

/// On a card: cuBLAS directly, because candle only requests results in the type of the inputs.
#[cfg(feature = "cuda")]
mod card {
    use std::ffi::{c_int, c_void};

    use candle_core::{
        DType, Device, Result, Tensor, bail,
        cuda_backend::{
            WrapErr,
            cudarc::cublas::{
                result::gemm_ex,
                sys::{
                    cublasComputeType_t::CUBLAS_COMPUTE_32F,
                    cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT_TENSOR_OP,
                    cublasOperation_t::{CUBLAS_OP_N, CUBLAS_OP_T},
                    cudaDataType_t::{CUDA_R_16BF, CUDA_R_16F, CUDA_R_32F},
                },
            },
        },
    };

    use crate::gpu::{address, alike, room_of};

    /// `x` `[m, k]` times the transpose of `weight` `[n, k]`, f32 `[m, n]`.
    pub(super) fn product(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
        let name = "logits";
        let ((m, k), (n, width)) = (x.dims2()?, weight.dims2()?);
        alike(name, &[x, weight])?;
        if k != width {
            bail!("{name}: activations have {k} features, the weight has {width}");
        }
        let kind = match x.dtype() {
            DType::F32 => CUDA_R_32F,
            DType::BF16 => CUDA_R_16BF,
            DType::F16 => CUDA_R_16F,
            other => bail!("{name}: activations are f32, bf16 or f16, not {other:?}"),
        };
        let Device::Cuda(device) = x.device() else { bail!("{name}: cuBLAS works on CUDA devices alone") };
        let (x, out) = (x.contiguous()?, room_of(&[m, n], DType::F32, x.device())?);
        if m == 0 || n == 0 {
            return Ok(out);
        }
        let (of_x, of_weight, to) = (address(name, &x)?, address(name, weight)?, address(name, &out)?);
        let (one, zero) = (1f32, 0f32);
        let [m, n, k] = [m, n, k].map(|size| size as c_int);
        let cublas = device.cublas_handle();
        // SAFETY: the addresses are of `[m, k]`, `[n, k]` and `[m, n]` values of these types, which cuBLAS, being column-major,
        // takes for `[k, m]`, `[k, n]` and `[n, m]`; nobody else uses the result, and the handle works on the device's one
        // stream.
        unsafe {
            gemm_ex(
                *cublas.handle(),
                CUBLAS_OP_T,
                CUBLAS_OP_N,
                n,
                m,
                k,
                (&raw const one).cast::<c_void>(),
                of_weight as *const c_void,
                kind,
                k,
                of_x as *const c_void,
                kind,
                k,
                (&raw const zero).cast::<c_void>(),
                to as *mut c_void,
                CUDA_R_32F,
                n,
                CUBLAS_COMPUTE_32F,
                CUBLAS_GEMM_DEFAULT_TENSOR_OP,
            )
        }
        .w()?;
        Ok(out)
    }
}
