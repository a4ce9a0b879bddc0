//! Rotary position embeddings.

use candle_core::{DType, Device, Result, Tensor};
use headtemper_kernels::angles;

/// Frequencies of a rotary embedding `[dim / 2]`: half-split ("NEOX") layout, dimension `i` rotates with `i + dim / 2`
/// (transformers `rotate_half`).
pub(crate) struct Rope {
    frequencies: Tensor,
    dtype: DType,
}

/// The angles of the packed tokens' positions, shared by all layers of a forward pass.
pub(crate) struct Angles {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// All `dim` dimensions rotate, `theta^(-2i / dim)` (transformers `LlamaRotaryEmbedding`).
    pub(crate) fn new(theta: f64, dim: usize, dtype: DType, device: &Device) -> Result<Self> {
        Self::proportional(theta, dim, dim / 2, dtype, device)
    }

    /// Of the `dim / 2` frequencies, the first `turning` are those of [`Rope::new`], the others 0 (transformers
    /// `_compute_proportional_rope_parameters`).
    pub(crate) fn proportional(theta: f64, dim: usize, turning: usize, dtype: DType, device: &Device) -> Result<Self> {
        let frequency = |i: usize| if i < turning { frequency(theta, 2 * i, dim) } else { 0.0 };
        let frequencies: Vec<f32> = (0..dim / 2).map(frequency).collect();
        Ok(Self { frequencies: Tensor::from_vec(frequencies, dim / 2, device)?, dtype })
    }

    /// The angles at `positions` `[n]` u32.
    pub(crate) fn at(&self, positions: &Tensor) -> Result<Angles> {
        let (cos, sin) = angles(positions, &self.frequencies, self.dtype)?; // [n, dim / 2]
        Ok(Angles { cos, sin })
    }
}

/// `theta^(-i / dim)`, rounded to f32 where torch rounds: exponent, power and reciprocal. One unit in the last place of a
/// frequency is 2e-3 radians at position 32,000.
fn frequency(theta: f64, i: usize, dim: usize) -> f32 {
    let exponent = i as f32 / dim as f32;
    1.0 / (theta.powf(f64::from(exponent)) as f32)
}

impl Angles {
    /// Cosines and sines, `[n, dim / 2]` each. The first `dim` dimensions of a head rotate, the others pass through.
    pub(crate) fn parts(&self) -> (&Tensor, &Tensor) {
        (&self.cos, &self.sin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::HeadView;

    fn turned(rope: &Rope, dim: usize) -> Result<Vec<f32>> {
        let x = Tensor::arange(1f32, dim as f32 + 1.0, &Device::Cpu)?.reshape((1, 1, dim))?;
        let angles = rope.at(&Tensor::new(&[5u32], &Device::Cpu)?)?;
        HeadView::of(x)?.turned(&angles).tensor()?.flatten_all()?.to_vec1()
    }

    /// Bits that torch 2.13 gives for `1.0 / theta ** (arange(0, dim, 2).float() / dim)`, at some of the indices.
    #[test]
    fn frequencies_are_rounded_where_torch_rounds() {
        for (theta, dim, bits) in [
            (1e4, 64, [0x3f3f_f911, 0x3e08_8d77, 0x3cc2_434f, 0x3ae9_1528, 0x390b_d472]),
            (1e6, 128, [0x3f4e_4bad, 0x3e61_f835, 0x3d77_8513, 0x3c0d_e12d, 0x3aa2_a6f7]),
            (1e7, 64, [0x3f1a_b32b, 0x3cf1_1177, 0x3abb_d3ed, 0x3781_2dab, 0x3431_af44]),
            (1.3e5, 64, [0x3f31_2f9a, 0x3d9b_d4d3, 0x3c09_0cea, 0x399f_db9a, 0x373a_75ef]),
            (1e5, 64, [0x3f32_a506, 0x3da5_0956, 0x3c18_7705, 0x39bf_74d7, 0x3770_6b6d]),
        ] {
            let ours = [1, 7, 13, 22, 31].map(|i| frequency(theta, 2 * i, dim).to_bits());
            assert_eq!(ours, bits, "theta {theta}, width {dim}");
        }
    }

    #[test]
    fn partial_embeddings_turn_the_first_dimensions_only() -> Result<()> {
        let y = turned(&Rope::new(1e4, 4, DType::F32, &Device::Cpu)?, 8)?;
        assert_eq!(y[4..], [5., 6., 7., 8.]);
        // dimension 0 rotates with 2, by 5 radians
        assert!((y[0] - (5f32.cos() - 3. * 5f32.sin())).abs() < 1e-5, "{y:?}");
        Ok(())
    }

    #[test]
    fn proportional_embeddings_turn_pairs_across_the_whole_head() -> Result<()> {
        let y = turned(&Rope::proportional(1e6, 8, 1, DType::F32, &Device::Cpu)?, 8)?;
        // dimension 0 rotates with 4; the other frequencies are 0
        assert!((y[0] - (5f32.cos() - 5. * 5f32.sin())).abs() < 1e-5, "{y:?}");
        assert_eq!((&y[1..4], &y[5..]), (&[2., 3., 4.][..], &[6., 7., 8.][..]));
        Ok(())
    }
}
