//! Kernels that work on rows and heads.

use candle_core::{D, Result};

use super::{DEVICE, TYPES, both, close, flat, random};
use crate::{
    AttentionSpan, HeadSteps, Spans, add_rms_norm_reference, gelu_mul_reference, gpu, heads_into_reference,
    heads_reference, rms_norm_reference, silu_mul_reference,
};

#[test]
fn norms_are_their_oracles() -> Result<()> {
    for dtype in TYPES {
        for (rows, width) in [(1, 1), (3, 7), (5, 64), (2, 576), (7, 1000), (4, 1024), (2, 4096), (0, 8)] {
            let [x, y, weight] = [(&[rows, width][..], 1), (&[rows, width], 2), (&[width], 3)]
                .map(|(shape, seed)| both(&random(shape, seed), dtype));
            let ((x, x32), (y, y32), (weight, weight32)) = (x?, y?, weight?);
            let what = format!("{rows} x {width}");
            if rows == 0 {
                assert_eq!(gpu::rms_norm(&x, &weight, 1e-5)?.elem_count(), 0);
                continue;
            }
            let oracle = rms_norm_reference(&x32, &weight32, 1e-5)?;
            close(&gpu::rms_norm(&x, &weight, 1e-5)?, &oracle, &format!("norm {what}"));
            let (stream, normed) = gpu::add_rms_norm(&x, &y, &weight, 1e-5)?;
            let sum = (&x32 + &y32)?.to_dtype(dtype)?;
            assert_eq!(flat(&stream), flat(&sum), "{what}: the sum is exact, rounded once");
            let (_, oracle) = add_rms_norm_reference(&x32, &y32, &weight32, 1e-5)?;
            close(&normed, &oracle, &format!("sum and norm {what}"));
            // The same row alone, to the bit.
            let alone = gpu::rms_norm(&x.narrow(0, rows - 1, 1)?, &weight, 1e-5)?;
            assert_eq!(flat(&alone), flat(&gpu::rms_norm(&x, &weight, 1e-5)?.narrow(0, rows - 1, 1)?));
        }
    }
    Ok(())
}

#[test]
fn gated_activations_are_their_oracles() -> Result<()> {
    for dtype in TYPES {
        for (rows, width) in [(1, 1), (3, 7), (2, 64), (3, 1000), (33, 1536)] {
            let (x, x32) = both(&(random(&[rows, 2 * width], 4) * 6.0)?, dtype)?;
            let what = format!("{rows} x {width}");
            close(&gpu::gate_mul(&x, false)?, &silu_mul_reference(&x32)?, &format!("silu {what}"));
            close(&gpu::gate_mul(&x, true)?, &gelu_mul_reference(&x32)?, &format!("gelu {what}"));
        }
    }
    Ok(())
}

#[test]
fn heads_are_their_oracle_wherever_they_lie() -> Result<()> {
    for dtype in TYPES {
        for (heads, dim, rotary) in [(1, 2, 2), (3, 8, 8), (2, 64, 16), (3, 128, 128), (1, 512, 256)] {
            let (n, width) = (5, heads * dim + 24);
            let (fused, fused32) = both(&random(&[n, width], 5), dtype)?;
            let (weight, weight32) = both(&random(&[dim], 6), dtype)?;
            let ((cos, cos32), (sin, sin32)) =
                (both(&random(&[n, rotary / 2], 7), dtype)?, both(&random(&[n, rotary / 2], 8), dtype)?);
            // Some columns of a fused projection, behind others.
            let (x, x32) = (fused.narrow(D::Minus1, 16, heads * dim)?, fused32.narrow(D::Minus1, 16, heads * dim)?);
            for (norm, turn) in [(false, false), (true, false), (false, true), (true, true)] {
                let steps = HeadSteps { norm: norm.then_some((&weight, 1e-6)), angles: turn.then_some((&cos, &sin)) };
                let oracle =
                    HeadSteps { norm: norm.then_some((&weight32, 1e-6)), angles: turn.then_some((&cos32, &sin32)) };
                let what = format!("{heads} heads of {dim}, norm {norm}, turned {turn}");
                let own = heads_reference(&x32, (heads, dim), oracle)?;
                close(&gpu::heads(&x, (heads, dim), steps)?, &own, &what);
                // Two sequences and a token of none between them.
                let spans: Spans<AttentionSpan> = vec![
                    AttentionSpan { first: 0, len: 3, start: 2, cache: 9 },
                    AttentionSpan { first: 4, len: 1, start: 7, cache: 0 },
                ]
                .into();
                let (cache, cache32) = both(&random(&[20, heads, dim], 9), dtype)?;
                gpu::heads_into(&x, (heads, dim), steps, &cache, &spans)?;
                heads_into_reference(&x32, (heads, dim), oracle, &cache32, &spans)?;
                close(&cache, &cache32, &format!("{what}, into a cache"));
            }
        }
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused() -> Result<()> {
    let on = |x: candle_core::Tensor| x.to_device(&DEVICE);
    let (x, weight) = (on(random(&[2, 8], 1))?, on(random(&[7], 2))?);
    let error = gpu::rms_norm(&x, &weight, 1e-6).unwrap_err().to_string();
    assert!(error.contains("rows of 8 and a weight [7] do not fit"), "{error}");
    let other = on(random(&[8], 2).to_dtype(candle_core::DType::BF16)?)?;
    let error = gpu::rms_norm(&x, &other, 1e-6).unwrap_err().to_string();
    assert!(error.contains("F32") && error.contains("BF16"), "{error}");
    let error = gpu::gate_mul(&x.narrow(1, 0, 7)?, false).unwrap_err().to_string();
    assert!(error.contains("even width, not 7"), "{error}");
    let spans: Spans<AttentionSpan> = vec![AttentionSpan { first: 0, len: 2, start: 3, cache: 0 }].into();
    let error = gpu::heads_into(&x, (1, 8), HeadSteps::default(), &on(random(&[4, 1, 8], 1))?, &spans).unwrap_err();
    assert!(error.to_string().contains("reaches outside 2 tokens or 4 cache rows"), "{error}");
    Ok(())
}
