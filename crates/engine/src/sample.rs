//! From logits to a token.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use serde::{Deserialize, Serialize};

use crate::{EngineError, Result};

/// How the next token is chosen. The default is greedy.
///
/// Applied in the order of transformers (`generation/utils.py`): penalties, temperature, top-k, top-p, min-p.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// 0 is greedy: the largest logit after penalties.
    pub temperature: f32,
    /// Keep the k largest; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set whose probabilities reach p; 1 keeps all.
    pub top_p: f32,
    /// Keep what has at least this share of the largest probability; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of every token in prompt and answer; 1 is off (Keskar 2019).
    pub repetition_penalty: f32,
    /// Subtracted once from the logit of every token already generated; 0 is off.
    pub presence_penalty: f32,
    /// Seed of the noise.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            presence_penalty: 0.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Refuses settings without meaning.
    ///
    /// # Errors
    /// Names the setting and what would have been allowed.
    pub fn check(&self) -> Result<()> {
        let rule = |ok: bool, name: &'static str, found: f32, allowed: &'static str| {
            if ok { Ok(()) } else { Err(EngineError::Setting { name, found: found.to_string(), allowed }) }
        };
        let t = self.temperature;
        rule(t.is_finite() && t >= 0.0, "temperature", t, "0 (greedy) or above")?;
        rule(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", self.top_p, "above 0 and at most 1")?;
        rule((0.0..=1.0).contains(&self.min_p), "min_p", self.min_p, "from 0 to 1")?;
        let r = self.repetition_penalty;
        rule(r.is_finite() && r > 0.0, "repetition_penalty", r, "above 0 (1 is off)")?;
        rule(self.presence_penalty.is_finite(), "presence_penalty", self.presence_penalty, "a finite number")?;
        // Greedy decoding takes the largest: a cut would be accepted and do nothing.
        let greedy = t == 0.0;
        rule(!greedy || self.top_k == 0, "top_k", self.top_k as f32, "0 where the temperature is 0 (greedy)")?;
        rule(!greedy || self.top_p == 1.0, "top_p", self.top_p, "1 where the temperature is 0 (greedy)")?;
        rule(!greedy || self.min_p == 0.0, "min_p", self.min_p, "0 where the temperature is 0 (greedy)")
    }

    /// The next token. `noise` names the draw: item and step, so that it depends on neither batch nor λ.
    pub(crate) fn next(&self, logits: &mut [f32], prompt: &[u32], generated: &[u32], noise: Noise) -> u32 {
        self.penalise(logits, prompt, generated);
        if self.temperature == 0.0 {
            return argmax(logits);
        }
        let mut kept: Vec<(u32, f32)> =
            logits.iter().enumerate().map(|(id, &l)| (id as u32, l / self.temperature)).collect();
        kept.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if self.top_k > 0 {
            kept.truncate(self.top_k);
        }
        let top = kept[0].1;
        let total: f64 = kept.iter().map(|&(_, l)| f64::from(l - top).exp()).sum();
        let mut probabilities: Vec<f64> = kept.iter().map(|&(_, l)| f64::from(l - top).exp() / total).collect();
        if self.top_p < 1.0 {
            let mut sum = 0.0;
            let reached = probabilities.iter().position(|p| {
                sum += p;
                sum >= f64::from(self.top_p)
            });
            probabilities.truncate(reached.map_or(probabilities.len(), |last| last + 1));
        }
        let floor = f64::from(self.min_p) * probabilities[0];
        probabilities.truncate(probabilities.iter().take_while(|&&p| p >= floor).count());
        let mut left = noise.uniform(self.seed) * probabilities.iter().sum::<f64>();
        let chosen = probabilities.iter().position(|p| {
            left -= p;
            left < 0.0
        });
        kept[chosen.unwrap_or(probabilities.len() - 1)].0
    }

    fn penalise(&self, logits: &mut [f32], prompt: &[u32], generated: &[u32]) {
        let mut seen: Vec<u32> = generated.to_vec();
        seen.sort_unstable();
        seen.dedup();
        if self.presence_penalty != 0.0 {
            for &id in &seen {
                logits[id as usize] -= self.presence_penalty;
            }
        }
        if self.repetition_penalty != 1.0 {
            seen.extend(prompt);
            seen.sort_unstable();
            seen.dedup();
            for &id in &seen {
                let logit = &mut logits[id as usize];
                *logit = if *logit > 0.0 { *logit / self.repetition_penalty } else { *logit * self.repetition_penalty };
            }
        }
    }
}

/// The address of one draw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Noise {
    /// Names the item, the same under every plan.
    pub(crate) item: u64,
    /// Tokens generated so far.
    pub(crate) step: u64,
}

impl Noise {
    /// A uniform number in `[0, 1)`: ChaCha8 keyed by the seed, in the item's stream, at the step's position.
    fn uniform(self, seed: u64) -> f64 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(self.item);
        rng.set_word_pos(u128::from(self.step) * 2);
        (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The first of the largest.
pub(crate) fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, &logit) in logits.iter().enumerate() {
        if logit > logits[best] {
            best = id;
        }
    }
    best as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 0.0, -1.0];

    fn shares(sampling: &Sampling) -> [f64; 5] {
        let mut counts = [0.0; 5];
        for step in 0..20_000 {
            counts[sampling.next(&mut LOGITS.clone(), &[], &[], Noise { item: 9, step }) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn draws_follow_the_softmax_and_each_cut_keeps_what_it_should() {
        let hot = Sampling { temperature: 1.0, ..Sampling::default() };
        let total: f64 = LOGITS.iter().map(|&l| f64::from(l).exp()).sum();
        for (share, logit) in shares(&hot).iter().zip(LOGITS) {
            let expected = f64::from(logit).exp() / total;
            assert!((share - expected).abs() < 0.015, "{share} is not {expected}");
        }
        let kept = |s: Sampling| shares(&s).map(|share| share > 0.0);
        assert_eq!(kept(Sampling { top_k: 2, ..hot.clone() }), [false, true, true, false, false]);
        assert_eq!(kept(Sampling { top_p: 0.6, ..hot.clone() }), [false, true, false, false, false]);
        assert_eq!(kept(Sampling { top_p: 0.7, ..hot.clone() }), [false, true, true, false, false]);
        assert_eq!(kept(Sampling { min_p: 0.1, ..hot }), [true, true, true, false, false]);
    }

    #[test]
    fn a_draw_depends_on_its_address_alone() {
        let at = |item, step, seed| Noise { item, step }.uniform(seed);
        assert_eq!(at(1, 2, 3), at(1, 2, 3));
        assert!(at(1, 2, 3) != at(2, 2, 3) && at(1, 2, 3) != at(1, 3, 3) && at(1, 2, 3) != at(1, 2, 4));
    }

    #[test]
    fn penalties_work_as_documented() {
        let noise = Noise { item: 0, step: 0 };
        let presence = Sampling { presence_penalty: 1.5, ..Sampling::default() };
        assert_eq!(presence.next(&mut LOGITS.clone(), &[1], &[], noise), 1, "the prompt is not generated text");
        assert_eq!(presence.next(&mut LOGITS.clone(), &[], &[1, 1], noise), 2, "once, however often it stands there");
        let mut logits = LOGITS;
        Sampling { repetition_penalty: 2.0, ..Sampling::default() }.next(&mut logits, &[1, 4], &[], noise);
        assert_eq!(logits, [1.0, 1.5, 2.0, 0.0, -2.0]);
    }

    #[test]
    fn settings_without_meaning_are_refused() {
        for wrong in [
            Sampling { temperature: -1.0, ..Sampling::default() },
            Sampling { temperature: f32::NAN, ..Sampling::default() },
            Sampling { top_p: 0.0, ..Sampling::default() },
            Sampling { top_k: 5, ..Sampling::default() },
            Sampling { min_p: 1.5, ..Sampling::default() },
            Sampling { repetition_penalty: 0.0, ..Sampling::default() },
        ] {
            assert!(wrong.check().unwrap_err().to_string().contains("must be"));
        }
    }
}
