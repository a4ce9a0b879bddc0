//! The law of the choice: a device chooses the token that [`Sampling::next`] chooses on the CPU, and reports its log-probability.
//!
//! Needs a card or the stand-in driver.

use candle_core::Tensor;
use headtemper_engine::{Noise, Sampling, TextTokens};
use headtemper_tests::DEVICE;

/// Largest difference of a log-probability from one summed in f64. Measured worst case: 7.1e-8 on the stand-in driver (2026-11-30).
const TOLERANCE: f64 = 1e-6;

#[test]
fn a_device_chooses_the_same_tokens() {
    let hot = |temperature| Sampling { temperature, ..Sampling::default() };
    let settings = [
        Sampling::default(),
        hot(1.0),
        hot(0.4),
        Sampling { top_k: 20, ..hot(1.3) },
        Sampling { top_p: 0.9, ..hot(1.0) },
        Sampling { top_p: 0.6, ..hot(2.0) },
        Sampling { min_p: 0.05, ..hot(0.8) },
        Sampling { top_k: 50, top_p: 0.95, min_p: 0.01, ..hot(0.7) },
        Sampling { repetition_penalty: 1.3, ..Sampling::default() },
        Sampling { presence_penalty: 1.5, ..hot(0.9) },
        Sampling { repetition_penalty: 0.8, presence_penalty: -0.7, top_k: 30, top_p: 0.9, ..hot(1.2) },
    ];
    let mut worst = 0.0_f64;
    for (round, vocab) in (0u64..).zip([50, 1000, 4099, 9000, 1000, 4099]) {
        let (mut rows, mut asked, mut expected) = (Vec::<f32>::new(), Vec::new(), Vec::new());
        // Tokens that are likely, unlikely, read alone, written alone and both.
        let texts: Vec<TextTokens> = (0..33u32)
            .map(|i| {
                let mut text = TextTokens::of(&[i, 2 * i % vocab, vocab - 1, 7]);
                (0..i).for_each(|k| text.write((k * k + 7) % vocab));
                text
            })
            .collect();
        for ((i, setting), text) in (0u64..).zip(settings.iter().cycle()).zip(&texts) {
            let seed = 1000 * round + i;
            let noise = Noise { item: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), step: seed * 37 };
            let sampling = Sampling { seed: seed * seed, ..setting.clone() };
            let mix = |id: u32| (id ^ seed as u32).wrapping_mul(2_654_435_761) >> 8;
            let spread = [3.0, 8.0, 0.5][i as usize % 3];
            let mut logits: Vec<f32> =
                (0..vocab).map(|id| spread * (mix(id) as f32 / 8_388_608.0 - 1.0).powi(3)).collect();
            if i % 5 == 0 {
                for logit in &mut logits {
                    *logit = (*logit * 4.0).round() / 4.0;
                }
            }
            rows.extend(&logits);
            asked.push(sampling.on_device(text, noise));
            let raw = logits.clone();
            let top = raw.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            // In f64, because f32 sums of 256, as in `sum_exp`, are off by more than the device is.
            let sum: f64 = raw.iter().map(|&l| (f64::from(l) - f64::from(top)).exp()).sum();
            let log_sum = f64::from(top) + sum.ln();
            let token = sampling.next(&mut logits, text, noise);
            expected.push((token, f64::from(raw[token as usize]) - log_sum));
        }
        let logits = Tensor::from_vec(rows, (asked.len(), vocab as usize), &DEVICE).unwrap();
        let chosen = headtemper_model::choose(&logits, &asked).unwrap();
        for ((asked, chosen), (token, logprob)) in asked.iter().zip(chosen).zip(expected) {
            let chosen = chosen.unwrap();
            assert_eq!(chosen.token, token, "{vocab} tokens, {asked:?}");
            worst = worst.max((chosen.logprob - logprob).abs());
        }
    }
    println!("log-probabilities of choices: {worst:e} of {TOLERANCE:e}");
    assert!(worst <= TOLERANCE, "log-probabilities are {worst:e} apart");
}
