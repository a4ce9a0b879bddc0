//! Weights drawn from a seeded generator: a model of real size without its checkpoint.

use candle_core::{Device, Result, Tensor};
use rayon::prelude::*;

/// A generator of weights. Every value is a function of the seed, the tensor's name and its place, so that neither the
/// order of loading nor the number of threads matters, and a table need not exist for its rows to be read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Random {
    seed: u64,
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Writes the rows of a matrix: uniform values with variance `1 / columns`, so that outputs have the same scale as
    /// inputs.
    pub(super) fn rows(self, name: &str, columns: usize) -> impl Fn(usize, &mut [f32]) {
        let (key, bound) = (self.key(name), (3.0 / columns as f32).sqrt());
        move |row, out| {
            for (value, i) in out.iter_mut().zip((row * columns) as u64..) {
                *value = bound * uniform(key, i);
            }
        }
    }

    /// Some rows of a matrix.
    pub(crate) fn gather(self, name: &str, rows: &[u32], columns: usize) -> Vec<f32> {
        let (draw, mut out) = (self.rows(name, columns), vec![0f32; rows.len() * columns]);
        out.par_chunks_exact_mut(columns).zip(rows).for_each(|(out, &row)| draw(row as usize, out));
        out
    }

    /// A small matrix as a tensor of its own, f32.
    pub(super) fn matrix(self, name: &str, rows: usize, columns: usize, device: &Device) -> Result<Tensor> {
        let all: Vec<u32> = (0..rows as u32).collect();
        Tensor::from_vec(self.gather(name, &all, columns), (rows, columns), device)
    }

    /// Values within 0.1 of `typical`.
    pub(crate) fn vector(self, name: &str, width: usize, typical: f32, device: &Device) -> Result<Tensor> {
        let key = self.key(name);
        let values: Vec<f32> = (0..width).map(|i| typical + 0.1 * uniform(key, i as u64)).collect();
        Tensor::from_vec(values, width, device)
    }

    /// FNV-1a of the name, mixed with the seed.
    fn key(self, name: &str) -> u64 {
        let hash = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        mix(hash ^ mix(self.seed))
    }
}

/// A value in `[-1, 1)`.
fn uniform(key: u64, index: u64) -> f32 {
    (mix(key.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15))) >> 40) as f32 / 8_388_608.0 - 1.0
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_variance_they_should_and_depend_on_seed_and_name() -> Result<()> {
        let draw = |seed, name| Random::new(seed).matrix(name, 200, 64, &Device::Cpu)?.flatten_all()?.to_vec1::<f32>();
        let values = draw(1, "a")?;
        let mean: f32 = values.iter().sum::<f32>() / values.len() as f32;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        assert!(mean.abs() < 0.005 && (variance * 64.0 - 1.0).abs() < 0.05, "{mean} {variance}");
        assert_eq!(values, draw(1, "a")?);
        assert!(values != draw(2, "a")? && values != draw(1, "b")?);
        Ok(())
    }

    #[test]
    fn rows_are_those_of_the_matrix() -> Result<()> {
        let random = Random::new(7);
        let whole = random.matrix("t", 9, 5, &Device::Cpu)?.to_vec2::<f32>()?;
        assert_eq!(random.gather("t", &[8, 0], 5), [&whole[8][..], &whole[0][..]].concat());
        Ok(())
    }
}
