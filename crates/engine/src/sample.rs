//! From logits to a token.

use headtemper_model::{Choice, Draw, Penalties, TextTokens};
use serde::{Deserialize, Serialize};

use crate::{
    EngineError, Noise, Result,
    noise::{draw, key, largest},
};

/// How the next token is chosen. The default is greedy.
///
/// The settings apply in the order of transformers (`generation/utils.py`): penalties, temperature, top-k, top-p, min-p.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// 0 is greedy: the largest logit after penalties.
    pub temperature: f32,
    /// Keep the k largest logits; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of tokens whose probabilities sum to at least p; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens whose probability is at least this share of the largest; 0 keeps all.
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
    /// Refuses settings that make no sense.
    ///
    /// # Errors
    /// Names the setting and what would have been allowed.
    pub fn check(&self) -> Result<()> {
        let rule = |ok: bool, name: &'static str, found: f32, allowed: &'static str| {
            if ok { Ok(()) } else { Err(EngineError::Setting { name, found: found.to_string(), allowed }) }
        };
        let t = self.temperature;
        rule(t.is_finite() && t >= 0.0, "temperature", t, "0 (greedy) or above")?;
        // The reciprocal of any smaller temperature is infinite.
        rule(t == 0.0 || t >= f32::MIN_POSITIVE, "temperature", t, "0 (greedy) or at least 1.2e-38")?;
        rule(self.top_p > 0.0 && self.top_p <= 1.0, "top_p", self.top_p, "above 0 and at most 1")?;
        rule((0.0..=1.0).contains(&self.min_p), "min_p", self.min_p, "from 0 to 1")?;
        let r = self.repetition_penalty;
        rule(r.is_finite() && r > 0.0, "repetition_penalty", r, "above 0 (1 is off)")?;
        rule(self.presence_penalty.is_finite(), "presence_penalty", self.presence_penalty, "a finite number")?;
        // Greedy decoding takes the largest logit: a cut would be accepted and have no effect.
        let greedy = t == 0.0;
        rule(!greedy || self.top_k == 0, "top_k", self.top_k as f32, "0 where the temperature is 0 (greedy)")?;
        rule(!greedy || self.top_p == 1.0, "top_p", self.top_p, "1 where the temperature is 0 (greedy)")?;
        rule(!greedy || self.min_p == 0.0, "min_p", self.min_p, "0 where the temperature is 0 (greedy)")
    }

    /// The next token. `text` is prompt and answer so far, which may be left empty where nothing is penalised. `noise` names the draw
    /// by item and step, so that it depends on neither batch nor λ. Afterwards `logits` holds the penalised logits, with -∞ for tokens
    /// that a cut left out.
    pub fn next(&self, logits: &mut [f32], text: &TextTokens, noise: Noise) -> u32 {
        self.penalise(logits, text);
        if self.temperature == 0.0 {
            return argmax(logits);
        }
        self.cut(logits);
        draw(logits, self.temperature, noise, self.seed)
    }

    /// The same choice in the form that a device makes it.
    pub fn on_device<'a>(&self, text: &'a TextTokens, noise: Noise) -> Choice<'a> {
        let Self {
            temperature, top_k, top_p, min_p, repetition_penalty: repetition, presence_penalty: presence, ..
        } = *self;
        let draw = Draw { key: key(self.seed), stream: noise.item, step: noise.step, temperature, top_k, top_p, min_p };
        Choice { penalties: self.penalises().then_some(Penalties { repetition, presence, text }), draw }
    }

    /// Whether the largest logit is chosen, as it is.
    pub(crate) fn is_argmax(&self) -> bool {
        self.temperature == 0.0 && !self.penalises()
    }

    /// Whether tokens of the text are penalised.
    pub(crate) fn penalises(&self) -> bool {
        self.repetition_penalty != 1.0 || self.presence_penalty != 0.0
    }

    /// Keeps the tokens that may be drawn, and sets the others to -∞.
    fn cut(&self, logits: &mut [f32]) {
        let top = largest(logits);
        if self.top_k > 0 && self.top_k < logits.len() || self.top_p < 1.0 {
            let mut kept = if self.top_k > 0 { most_likely(logits, self.top_k) } else { Vec::new() };
            if self.top_p < 1.0 {
                kept = self.nucleus(&kept, logits, top);
            }
            logits.fill(f32::NEG_INFINITY);
            for (id, logit) in kept {
                logits[id as usize] = logit;
            }
        }
        if self.min_p > 0.0 {
            let floor = f64::from(self.min_p).ln() * f64::from(self.temperature) + f64::from(top);
            logits.iter_mut().filter(|logit| f64::from(**logit) < floor).for_each(|logit| *logit = f32::NEG_INFINITY);
        }
    }

    /// The smallest set of the likeliest tokens that reaches `top_p`, taken from `kept`, or from all tokens if that is empty.
    fn nucleus(&self, kept: &[(u32, f32)], logits: &[f32], top: f32) -> Vec<(u32, f32)> {
        let scale = 1.0 / self.temperature;
        let mass = |logit: f32| f64::from(((logit - top) * scale).exp());
        let all = kept.is_empty();
        let total: f64 = if all { sum_exp(logits, top, scale) } else { kept.iter().map(|&(_, l)| mass(l)).sum() };
        let enough = f64::from(self.top_p) * total;
        // Only the top of the distribution is sorted, as far down as needed to reach `top_p`.
        for depth in [8.0, 16.0, f32::INFINITY] {
            let floor = top - depth * self.temperature;
            let mut likely: Vec<(u32, f32)> = if all {
                (0u32..).zip(logits.iter().copied()).filter(|&(_, logit)| logit >= floor).collect()
            } else {
                kept.to_vec()
            };
            likely.sort_unstable_by(likelier);
            let mut sum = 0.0;
            let reached = likely.iter().position(|&(_, logit)| {
                sum += mass(logit);
                sum >= enough
            });
            if let Some(last) = reached {
                likely.truncate(last + 1);
                return likely;
            }
            if !all || depth.is_infinite() {
                return likely;
            }
        }
        unreachable!("the last depth holds all")
    }

    fn penalise(&self, logits: &mut [f32], text: &TextTokens) {
        for (id, written) in text.tokens().filter(|_| self.penalises()) {
            let logit = &mut logits[id as usize];
            if written {
                *logit -= self.presence_penalty;
            }
            *logit = if *logit > 0.0 { *logit / self.repetition_penalty } else { *logit * self.repetition_penalty };
        }
    }
}

/// Orders tokens by likelihood; of equals, the lower id comes first.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "sorting hands references")]
fn likelier(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// The `k` likeliest tokens with their logits, in no order.
fn most_likely(logits: &[f32], k: usize) -> Vec<(u32, f32)> {
    let k = k.min(logits.len());
    let (mut kept, mut floor) = (Vec::with_capacity(2 * k), f32::NEG_INFINITY);
    for (id, &logit) in (0u32..).zip(logits) {
        // A token equal to the floor ranks after k tokens that are as likely and have lower ids. 0 ranks above -0.
        if kept.len() >= k && logit.total_cmp(&floor).is_le() {
            continue;
        }
        kept.push((id, logit));
        if kept.len() == 2 * k {
            kept.select_nth_unstable_by(k - 1, likelier);
            kept.truncate(k);
            floor = kept[k - 1].1;
        }
    }
    if kept.len() > k {
        kept.select_nth_unstable_by(k - 1, likelier);
        kept.truncate(k);
    }
    kept
}

/// The sum of `exp((logit - top) * scale)`. Blocks are summed in f32 and their sums in f64, since the vocabulary is long.
pub(crate) fn sum_exp(logits: &[f32], top: f32, scale: f32) -> f64 {
    logits.chunks(256).map(|c| f64::from(c.iter().map(|&l| ((l - top) * scale).exp()).sum::<f32>())).sum()
}

/// The largest logit's id; of equals, the lowest id.
pub(crate) fn argmax(logits: &[f32]) -> u32 {
    let top = largest(logits);
    logits.iter().position(|&logit| logit == top).unwrap_or(0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 5] = [1.0, 3.0, 2.0, 0.0, -1.0];

    const DRAWS: u64 = 20_000;

    /// How often each token is drawn.
    fn counts(sampling: &Sampling, logits: &[f32]) -> Vec<f64> {
        let mut counts = vec![0.0; logits.len()];
        for step in 0..DRAWS {
            counts[sampling.next(&mut logits.to_vec(), &TextTokens::default(), Noise { item: 9, step }) as usize] +=
                1.0;
        }
        counts
    }

    /// What a prompt and an answer penalise.
    fn text(prompt: &[u32], answer: &[u32]) -> TextTokens {
        let mut text = TextTokens::of(prompt);
        for &token in answer {
            text.write(token);
        }
        text
    }

    #[test]
    fn a_zero_is_likelier_than_one_below_it() {
        let logits = [-0.0, 0.0, -0.0, -1.0].repeat(20);
        let mut kept: Vec<u32> = most_likely(&logits, 20).into_iter().map(|(id, _)| id).collect();
        kept.sort_unstable();
        assert_eq!(kept, (0..20).map(|i| 4 * i + 1).collect::<Vec<_>>());
    }

    /// What temperature and cuts leave in transformers' order, computed in f64 by sorting everything.
    fn expected(sampling: &Sampling, logits: &[f32]) -> Vec<f64> {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        let weight = |id: usize| (f64::from(logits[id] - logits[order[0]]) / f64::from(sampling.temperature)).exp();
        let mut kept = order.clone();
        if sampling.top_k > 0 {
            kept.truncate(sampling.top_k);
        }
        let total: f64 = kept.iter().map(|&id| weight(id)).sum();
        let mut sum = 0.0;
        kept.retain(|&id| {
            let before = sum;
            sum += weight(id) / total;
            before < f64::from(sampling.top_p)
        });
        kept.retain(|&id| weight(id) >= f64::from(sampling.min_p));
        let total: f64 = kept.iter().map(|&id| weight(id)).sum();
        (0..logits.len()).map(|id| if kept.contains(&id) { weight(id) / total } else { 0.0 }).collect()
    }

    /// Pearson's statistic lies within what chance allows at its degrees of freedom, and a token that a cut leaves out is
    /// never drawn.
    #[test]
    fn draws_follow_the_softmax_under_every_cut() {
        let hot = Sampling { temperature: 1.0, ..Sampling::default() };
        let wide: Vec<f32> = (0..150u32).map(|i| (i.wrapping_mul(7919) % 97) as f32 / 25.0).collect();
        for sampling in [
            hot.clone(),
            Sampling { temperature: 0.6, ..hot.clone() },
            Sampling { temperature: 1.7, ..hot.clone() },
            Sampling { top_k: 2, ..hot.clone() },
            Sampling { top_k: 40, temperature: 1.3, ..hot.clone() },
            Sampling { top_p: 0.6, ..hot.clone() },
            Sampling { top_p: 0.7, ..hot.clone() },
            Sampling { top_p: 0.95, temperature: 2.0, ..hot.clone() },
            Sampling { min_p: 0.1, ..hot.clone() },
            Sampling { top_k: 30, top_p: 0.8, min_p: 0.2, temperature: 0.9, ..hot.clone() },
        ] {
            for logits in [&LOGITS[..], &wide] {
                let (counts, expected) = (counts(&sampling, logits), expected(&sampling, logits));
                let (mut statistic, mut cells) = (0.0, 0.0);
                for (&count, &share) in counts.iter().zip(&expected) {
                    if share == 0.0 {
                        assert_eq!(count, 0.0, "{sampling:?} drew what it leaves out");
                    } else {
                        statistic += (count - share * DRAWS as f64).powi(2) / (share * DRAWS as f64);
                        cells += 1.0;
                    }
                }
                // The mean of chi-square plus five of its standard deviations.
                let (freedom, most) = (cells - 1.0, cells - 1.0 + 5.0 * (2.0 * (cells - 1.0f64)).sqrt());
                assert!(statistic <= most, "{sampling:?}: {statistic} at {freedom} degrees of freedom");
            }
        }
    }

    #[test]
    fn the_likeliest_are_kept_and_of_equals_the_lower_ids() {
        let logits: Vec<f32> = (0..500u32).map(|i| (i.wrapping_mul(7919) % 23) as f32).collect();
        let mut sorted: Vec<(u32, f32)> = (0u32..).zip(logits.iter().copied()).collect();
        sorted.sort_by(likelier);
        for k in [1, 2, 7, 100, 249, 250, 251, 499, 500, 700] {
            let mut kept = most_likely(&logits, k);
            kept.sort_by(likelier);
            assert_eq!(kept, sorted[..k.min(500)], "k = {k}");
        }
    }

    #[test]
    fn penalties_work_as_documented() {
        let noise = Noise { item: 0, step: 0 };
        let presence = Sampling { presence_penalty: 1.5, ..Sampling::default() };
        assert_eq!(presence.next(&mut LOGITS.clone(), &text(&[1], &[]), noise), 1, "the prompt is not generated text");
        let twice = text(&[], &[1, 1]);
        assert_eq!(presence.next(&mut LOGITS.clone(), &twice, noise), 2, "once, however often it stands there");
        let mut logits = LOGITS;
        let repetition = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        repetition.next(&mut logits, &text(&[1, 4, 1], &[]), noise);
        assert_eq!(logits, [1.0, 1.5, 2.0, 0.0, -2.0]);
        let mut logits = LOGITS;
        let both = Sampling { presence_penalty: 1.5, ..repetition };
        both.next(&mut logits, &text(&[4, 2], &[2, 0]), noise);
        assert_eq!(logits, [-1.0, 3.0, 0.25, 0.0, -2.0], "first what is subtracted, then what divides or multiplies");
    }

    #[test]
    fn settings_without_meaning_are_refused() {
        for wrong in [
            Sampling { temperature: -1.0, ..Sampling::default() },
            Sampling { temperature: f32::NAN, ..Sampling::default() },
            Sampling { temperature: 1e-40, ..Sampling::default() },
            Sampling { top_p: 0.0, ..Sampling::default() },
            Sampling { top_k: 5, ..Sampling::default() },
            Sampling { min_p: 1.5, ..Sampling::default() },
            Sampling { repetition_penalty: 0.0, ..Sampling::default() },
        ] {
            assert!(wrong.check().unwrap_err().to_string().contains("must be"));
        }
    }
}
