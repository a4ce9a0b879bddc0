//! The noise of sampling: a fixed number for every seed, item, step and token, in whatever order they are drawn.
//!
//! A draw is the Gumbel-max form of sampling from a softmax: the token with the largest `logit / temperature + G`, where
//! `G = -ln(-ln u)` and `u` is uniform in (0, 1), independent for every token. Arms that share the noise are coupled:
//! they draw the same token with probability `sum_i 1 / sum_j max(p_j / p_i, q_j / q_i)`, which is at least
//! `(1 - TV) / (1 + TV)` for total variation TV (arXiv 2408.07978). They draw different tokens only where the change of the
//! logits outweighs what the noise favours.
//!
//! On the CPU logits are f32 whatever the weights are held in, and the same for any batch, thread count and order; so
//! are the draws. On a GPU in half precision the last bits of a row's logits, and so its draws, may depend on its batch;
//! the noise itself does not.

use std::f32::consts::LN_2;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// The address of one draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Noise {
    /// Names the item; the same under every plan.
    pub item: u64,
    /// Tokens generated so far.
    pub step: u64,
}

/// Tokens whose noise is made together: what rand_chacha generates in one go.
pub(crate) const BLOCK: usize = 64;

/// An upper bound on the noise: `-ln(-ln(1 - 2^-65))` is 45.05.
const MOST: f32 = 45.1;

/// Many times what rounding to f32 can take from a score within [`MOST`] of the best.
const SLACK: f32 = 1e-3;

/// The noise of all tokens at one address: ChaCha8 keyed by the seed, in the item's stream. The token with id `i` owns
/// the word at `step * 2^32 + i`, and for the bits after the first 32 the word at `2^67 + step * 2^32 + i`.
struct Field {
    rng: ChaCha8Rng,
    step: u64,
}

/// The key of ChaCha8 that a seed gives.
pub(crate) fn key(seed: u64) -> [u32; 8] {
    let bytes = ChaCha8Rng::seed_from_u64(seed).get_seed();
    let word = |i: usize| u32::from_le_bytes(bytes[4 * i..][..4].try_into().expect("four bytes"));
    std::array::from_fn(word)
}

impl Field {
    fn at(noise: Noise, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(noise.item);
        Self { rng, step: noise.step }
    }

    fn seek(&mut self, half: u128, id: usize) {
        self.rng.set_word_pos(half << 67 | u128::from(self.step) << 32 | id as u128);
    }

    /// The first 32 bits of the tokens `first..first + BLOCK`.
    fn words(&mut self, first: usize) -> [u32; BLOCK] {
        let mut bytes = [0; 4 * BLOCK];
        self.seek(0, first);
        self.rng.fill_bytes(&mut bytes);
        let mut words = [0; BLOCK];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_le_bytes(bytes.try_into().expect("four bytes"));
        }
        words
    }

    /// The noise of one token whose first bits are known: 64 bits of `1 - u`, at the middle of their interval.
    fn gumbel(&mut self, id: usize, word: u32) -> f64 {
        self.seek(1, id);
        let bits = u64::from(word) << 32 | u64::from(self.rng.next_u32());
        let v = (bits as f64 + 0.5) / 2f64.powi(64);
        -(-(-v).ln_1p()).ln()
    }
}

/// An upper bound on the noise of a token with these first bits, rarely more than 0.1 above it where the noise is large.
fn bound(word: u32) -> f32 {
    // G <= -ln v, and the bits of a float, read as a number, are at most 2^23 (log2 of it + 127).
    let v = (word >> 8) as i32 as f32; // in units of 2^-24; exact
    (24.0 + 127.0 - v.to_bits() as i32 as f32 / (1 << 23) as f32) * LN_2
}

/// The largest of some numbers, found in parallel lanes because a plain fold waits for every comparison.
pub(crate) fn largest(values: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    let chunks = values.chunks_exact(16);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane = if value > *lane { value } else { *lane };
        }
    }
    lanes.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

/// Draws from the softmax of `logits / temperature`: the token with the largest score. Those at -∞ are left out.
///
/// Scores are f64. If a token's first bits show that it cannot win, no logarithm is computed. If no noise could lift a
/// block of tokens to the best so far, no noise is made for it.
pub(crate) fn draw(logits: &[f32], temperature: f32, noise: Noise, seed: u64) -> u32 {
    let mut field = Field::at(noise, seed);
    let top = largest(logits);
    let (scale, t) = (1.0 / temperature, f64::from(temperature));
    let score =
        |field: &mut Field, id: usize, word: u32| (f64::from(logits[id]) - f64::from(top)) / t + field.gumbel(id, word);
    // Start with the likeliest token: few others reach its score.
    let mut best = logits.iter().position(|&logit| logit == top).unwrap_or(0);
    let word = field.words(best / BLOCK * BLOCK)[best % BLOCK];
    let mut best_score = score(&mut field, best, word);
    for (block, logits) in logits.chunks(BLOCK).enumerate() {
        let first = block * BLOCK;
        let to_beat = |score: f64| score as f32 - SLACK;
        if (largest(logits) - top) * scale + MOST < to_beat(best_score) {
            continue;
        }
        let words = field.words(first);
        let mut bounds = [f32::NEG_INFINITY; BLOCK];
        for ((bound_of, &logit), &word) in bounds.iter_mut().zip(logits).zip(&words) {
            *bound_of = (logit - top) * scale + bound(word);
        }
        if largest(&bounds) < to_beat(best_score) {
            continue;
        }
        for (i, &bound) in bounds[..logits.len()].iter().enumerate() {
            let id = first + i;
            if bound < to_beat(best_score) || id == best {
                continue;
            }
            let score = score(&mut field, id, words[i]);
            if score > best_score {
                (best, best_score) = (id, score);
            }
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The noise of a token, computed directly from its address.
    fn gumbel(noise: Noise, seed: u64, id: usize) -> f64 {
        let mut field = Field::at(noise, seed);
        field.seek(0, id);
        let word = field.rng.next_u32();
        assert!(f64::from(bound(word)) + f64::from(SLACK) > field.gumbel(id, word));
        field.gumbel(id, word)
    }

    #[test]
    fn noise_depends_on_its_address_alone() {
        let at = |item, step, seed, id| gumbel(Noise { item, step }, seed, id);
        assert_eq!(at(1, 2, 3, 70), at(1, 2, 3, 70));
        let others = [at(2, 2, 3, 70), at(1, 3, 3, 70), at(1, 2, 4, 70), at(1, 2, 3, 71)];
        assert!(others.iter().all(|&other| other != at(1, 2, 3, 70)));
        let mut field = Field::at(Noise { item: 1, step: 2 }, 3);
        let word = field.words(64)[6];
        assert_eq!(field.gumbel(70, word), at(1, 2, 3, 70), "in a block or alone");
    }

    #[test]
    fn no_noise_passes_its_bounds() {
        let mut field = Field::at(Noise { item: 0, step: 0 }, 0);
        for word in [0, 1, 255, 256, 257, 1 << 16, (1 << 24) - 1, 1 << 31, u32::MAX] {
            let noise = field.gumbel(5, word);
            assert!(noise <= f64::from(bound(word) + SLACK) && noise < f64::from(MOST), "{word}");
        }
        let most = -(-(-0.5 / 2f64.powi(64)).ln_1p()).ln();
        assert!(most < f64::from(MOST) && most > f64::from(MOST) - 0.1, "{most}");
    }

    /// Skipped tokens could not have won: a plain pass over every token gives the same draws.
    #[test]
    fn skipping_changes_no_draw() {
        let vocab = 1000;
        for seed in 0..200 {
            let mut field = Field::at(Noise { item: 99, step: 0 }, seed);
            let spread = [0.1, 3.0, 40.0][seed as usize % 3];
            let mut logits: Vec<f32> =
                (0..vocab).map(|_| spread * (field.rng.next_u32() as f32 / u32::MAX as f32 - 0.5)).collect();
            if seed % 2 == 0 {
                logits.iter_mut().skip(1).step_by(3).for_each(|logit| *logit = f32::NEG_INFINITY);
            }
            let (noise, temperature) = (Noise { item: 7, step: seed }, [1.0, 0.3, 2.5, 1e-30][seed as usize % 4]);
            let score = |id: usize| f64::from(logits[id]) / f64::from(temperature) + gumbel(noise, seed, id);
            let plain = (0..vocab).max_by(|&a, &b| score(a).total_cmp(&score(b))).unwrap();
            assert_eq!(draw(&logits, temperature, noise, seed), plain as u32, "seed {seed}");
        }
    }

    /// Two arms that share the noise agree as often as the theory of the coupling says, and far more often than
    /// arms that do not share it.
    #[test]
    fn arms_with_the_same_noise_are_coupled() {
        const DRAWS: u64 = 20_000;
        let a: Vec<f32> = (0..300u32).map(|i| (i.wrapping_mul(7919) % 101) as f32 / 20.0).collect();
        let b: Vec<f32> = a.iter().enumerate().map(|(i, l)| l + 0.4 * ((i * 31 % 7) as f32 / 3.0 - 1.0)).collect();
        let softmax = |logits: &[f32]| {
            let total: f64 = logits.iter().map(|&l| f64::from(l).exp()).sum();
            logits.iter().map(|&l| f64::from(l).exp() / total).collect::<Vec<_>>()
        };
        let (p, q) = (softmax(&a), softmax(&b));
        let share = |other_item: u64| {
            let same = |&step: &u64| {
                draw(&a, 1.0, Noise { item: 1, step }, 0) == draw(&b, 1.0, Noise { item: other_item, step }, 0)
            };
            (0..DRAWS).filter(same).count() as f64 / DRAWS as f64
        };
        let ratios = |i: usize| p.iter().zip(&q).map(|(pj, qj)| (pj / p[i]).max(qj / q[i])).sum::<f64>();
        let exact: f64 = (0..p.len()).map(|i| 1.0 / ratios(i)).sum();
        let apart: f64 = p.iter().zip(&q).map(|(p, q)| p * q).sum();
        let tv: f64 = p.iter().zip(&q).map(|(p, q)| (p - q).abs()).sum::<f64>() / 2.0;
        let sigma = |share: f64| (share * (1.0 - share) / DRAWS as f64).sqrt();
        let (coupled, independent) = (share(1), share(2));
        assert!((coupled - exact).abs() < 4.0 * sigma(exact), "{coupled} is not {exact}");
        assert!((independent - apart).abs() < 4.0 * sigma(apart), "{independent} is not {apart}");
        assert!(exact >= (1.0 - tv) / (1.0 + tv) && coupled > 10.0 * independent, "{coupled} {independent} {tv}");
    }
}
