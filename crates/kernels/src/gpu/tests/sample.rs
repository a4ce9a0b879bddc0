//! The choice of tokens.

use candle_core::{Device, Result, Tensor};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use super::{flat, on, random};
use crate::{Choice, Chosen, Draw, Penalties, TextTokens, gpu};

/// Largest difference of a log-probability from the oracle's. Measured worst case: 8.2e-8 (2026-11-26).
const TOLERANCE: f64 = 1e-6;

/// The noise of a token, computed directly from its address.
fn gumbel(draw: &Draw, id: usize) -> f64 {
    let mut seed = [0; 32];
    for (bytes, word) in seed.chunks_exact_mut(4).zip(draw.key) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    let mut rng = ChaCha8Rng::from_seed(seed);
    rng.set_stream(draw.stream);
    let mut word = |half: u128| {
        rng.set_word_pos((half << 67) + (u128::from(draw.step) << 32) + id as u128);
        u64::from(rng.next_u32())
    };
    let bits = word(0) << 32 | word(1);
    let v = (bits as f64 + 0.5) / 2f64.powi(64);
    -(-(-v).ln_1p()).ln()
}

/// Temperature and cuts in transformers' order, by sorting everything, and the token drawn from what is left.
fn oracle(logits: &[f32], draw: &Draw) -> Chosen {
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&l| (f64::from(l) - f64::from(top)).exp()).sum();
    let first = logits.iter().position(|&l| l == top).expect("one is the largest");
    let mut token = first;
    let t = f64::from(draw.temperature);
    if t > 0.0 {
        let mut kept: Vec<usize> = (0..logits.len()).collect();
        kept.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        if draw.top_k > 0 {
            kept.truncate(draw.top_k);
        }
        let mass = |id: usize| ((f64::from(logits[id]) - f64::from(top)) / t).exp();
        if draw.top_p < 1.0 {
            let enough = f64::from(draw.top_p) * kept.iter().map(|&id| mass(id)).sum::<f64>();
            let mut sum = 0.0;
            let last = kept.iter().position(|&id| {
                sum += mass(id);
                sum >= enough
            });
            kept.truncate(last.expect("all are enough") + 1);
        }
        let floor = f64::from(draw.min_p).ln() * t + f64::from(top);
        kept.retain(|&id| logits[id] > f32::NEG_INFINITY && f64::from(logits[id]) >= floor);
        let score = |id: usize| (f64::from(logits[id]) - f64::from(top)) / t + gumbel(draw, id);
        token = kept.iter().copied().max_by(|&a, &b| score(a).total_cmp(&score(b))).expect("the likeliest is left");
    }
    Chosen { token: token as u32, logprob: f64::from(logits[token]) - f64::from(top) - sum.ln() }
}

/// Logits of four kinds: spread out, with many equal values, nearly flat, and mostly excluded.
fn logits(vocab: usize, kind: usize, seed: u32) -> Vec<f32> {
    let x = flat(&random(&[vocab], seed));
    let value = |(i, x): (usize, f32)| match kind {
        0 => 12.0 * x * x * x,
        1 => (x * 5.0).round(),
        2 => 0.01 * x,
        _ if i % 7 == 3 || vocab < 7 => 4.0 * x,
        _ => f32::NEG_INFINITY,
    };
    x.into_iter().enumerate().map(value).collect()
}

/// Draws that exercise every cut.
fn settings(seed: u64) -> Vec<Draw> {
    let mut key = [0; 8];
    let mut words = ChaCha8Rng::seed_from_u64(seed);
    key.fill_with(|| words.next_u32());
    let hot = Draw { key, stream: words.next_u64(), step: seed * 1_000_003, temperature: 1.0, ..Draw::default() };
    vec![
        Draw::default(),
        hot,
        Draw { temperature: 0.3, ..hot },
        Draw { temperature: 2.5, step: (1 << 35) - 1, ..hot },
        Draw { temperature: 1e-30, ..hot },
        Draw { top_k: 1, ..hot },
        Draw { top_k: 40, ..hot },
        Draw { top_k: 700, temperature: 3.0, ..hot },
        Draw { top_p: 0.5, ..hot },
        Draw { top_p: 0.95, temperature: 2.0, ..hot },
        Draw { min_p: 0.1, ..hot },
        // Top-k leaves several equal logits, and top-p must keep all of them.
        Draw { top_k: 2, top_p: 0.99, ..hot },
        Draw { top_k: 64, top_p: 0.75, min_p: 0.05, temperature: 0.9, ..hot },
        // So cold that its reciprocal is infinite.
        Draw { temperature: f32::from_bits(1), ..hot },
        Draw { temperature: f32::from_bits(1), top_p: 0.9, ..hot },
    ]
}

/// What the kernels choose where nothing is penalised.
fn choose(logits: &Tensor, draws: &[Draw]) -> Result<Vec<Option<Chosen>>> {
    gpu::choose(logits, &draws.iter().map(|&draw| draw.into()).collect::<Vec<_>>())
}

fn on_device(rows: &[Vec<f32>]) -> Result<Tensor> {
    on(&Tensor::from_vec(rows.concat(), (rows.len(), rows[0].len()), &Device::Cpu)?)
}

#[test]
fn tokens_are_those_of_the_oracle() -> Result<()> {
    let mut worst = 0f64;
    for (seed, vocab) in [1, 5, 333, 3072, 3073, 8193, 20_012].into_iter().enumerate() {
        for turn in 0..2 {
            let draws = settings(2 * seed as u64 + turn as u64);
            let rows: Vec<_> =
                (0..draws.len()).map(|i| logits(vocab, (i + turn + seed) % 4, (40 * seed + i) as u32)).collect();
            let chosen = choose(&on_device(&rows)?, &draws)?;
            for ((row, draw), chosen) in rows.iter().zip(&draws).zip(chosen) {
                let (chosen, oracle) = (chosen.expect("logits are numbers"), oracle(row, draw));
                assert_eq!(chosen.token, oracle.token, "{vocab} tokens, {draw:?}");
                worst = worst.max((chosen.logprob - oracle.logprob).abs());
            }
        }
    }
    println!("choose: {worst:e} of {TOLERANCE:e}");
    assert!(worst < TOLERANCE, "{worst:e}");
    Ok(())
}

/// A nucleus that reaches far into a tail of thousands of small weights, as in real vocabularies: sums of them must be kept to the end.
#[test]
fn a_nucleus_may_end_in_a_long_tail() -> Result<()> {
    let row: Vec<f32> = (0..9000).map(|i| if i == 4321 { 0.0 } else { -9.5 + (i % 97) as f32 * 1e-3 }).collect();
    let hot = settings(5)[1];
    for cut in [Draw { top_p: 0.9, ..hot }, Draw { top_p: 0.6, ..hot }, Draw { top_p: 0.9, top_k: 7000, ..hot }] {
        let draws: Vec<Draw> = (0..40).map(|step| Draw { step, ..cut }).collect();
        let chosen = choose(&on_device(&vec![row.clone(); draws.len()])?, &draws)?;
        for (draw, chosen) in draws.iter().zip(chosen) {
            assert_eq!(chosen.expect("logits are numbers").token, oracle(&row, draw).token, "{draw:?}");
        }
    }
    Ok(())
}

/// Two tokens so close that the last bits of their noise decide.
#[test]
fn all_bits_of_the_noise_count() -> Result<()> {
    let hot = settings(11)[1];
    let (mut rows, mut draws) = (Vec::new(), Vec::new());
    for step in 0..100_000 {
        let draw = Draw { step, ..hot };
        let (a, b) = (gumbel(&draw, 0), gumbel(&draw, 1));
        // The lower half of 1 - u moves the noise by up to 2^-32 e^G, here far more than the logit's rounding.
        if a > 0.0 && (a - b).abs() < 5e-4 * a.exp() {
            let even = (a - b) as f32;
            rows.extend([vec![0.0, even.next_down()], vec![0.0, even.next_up()]]);
            draws.extend([draw, draw]);
        }
    }
    assert!(rows.len() >= 16, "{} rows", rows.len());
    for ((row, draw), chosen) in rows.iter().zip(&draws).zip(choose(&on_device(&rows)?, &draws)?) {
        assert_eq!(chosen.expect("numbers").token, oracle(row, draw).token, "{draw:?}");
    }
    Ok(())
}

/// Among equal logits the lower ids are kept, wherever a cut falls: a cut that keeps some of the equal logits draws from exactly
/// those.
#[test]
fn cuts_through_equals_keep_the_lower_ids() -> Result<()> {
    for vocab in [64, 5000] {
        let row = vec![0.5; vocab];
        let mut draws = Vec::new();
        for step in 0..6 {
            let hot = Draw { temperature: 1.0, step, stream: 9, ..Draw::default() };
            let half = vocab / 2 + 1;
            draws.extend([
                Draw { top_k: 3, ..hot },
                Draw { top_p: 0.5, ..hot },
                Draw { top_k: half, top_p: 0.25, ..hot },
            ]);
        }
        let rows = vec![row; draws.len()];
        for (draw, chosen) in draws.iter().zip(choose(&on_device(&rows)?, &draws)?) {
            let chosen = chosen.expect("numbers");
            assert_eq!(chosen.token, oracle(&rows[0], draw).token, "{vocab} {draw:?}");
            let kept =
                if draw.top_k == 0 { vocab.div_ceil(2) } else { (draw.top_k as f32 * draw.top_p).ceil() as usize };
            assert!((chosen.token as usize) < kept, "{vocab} {draw:?}");
        }
    }
    Ok(())
}

/// The cut ends in the same place when bins hold more than the list, once and again, when the nucleus exceeds the list, and when
/// top-k exceeds what the list is made for.
#[test]
fn flat_distributions_are_cut_where_the_oracle_does() -> Result<()> {
    let vocab = 9000;
    let rows = [
        // More logits at the bound than the list holds.
        (0..vocab).map(|i| if i % 2 == 0 { 1.0 } else { 0.0 }).collect(),
        logits(vocab, 2, 7),
        logits(vocab, 2, 8),
        logits(vocab, 0, 9),
        // Many nearly equal values, and many equal ones: one of the groups fits the list.
        (0..vocab).map(|i| [8.0, 4.0, 0.5][i % 3] + i as f32 * 1e-6).collect(),
        (0..vocab).map(|i| [8.0, 4.0, 4.0][i % 3]).collect(),
        // All others are so far below the first that they are in the last bin.
        (0..vocab).map(|i| if i == 77 { 90.0 } else { (i % 4099) as f32 * 0.01 }).collect(),
        logits(vocab, 3, 10),
        logits(vocab, 2, 11),
    ]
    .to_vec();
    let hot = settings(77)[1];
    let draws = [
        Draw { top_k: 40, ..hot },
        Draw { top_p: 0.9, ..hot },
        Draw { top_k: 4000, top_p: 0.5, ..hot },
        Draw { top_k: 8999, top_p: 0.999, min_p: 1e-4, ..hot },
        Draw { top_k: 1500, top_p: 0.9, ..hot },
        Draw { top_k: 1536, top_p: 0.7, temperature: 2.0, ..hot },
        Draw { top_k: 1537, top_p: 0.99, temperature: 40.0, ..hot },
        Draw { top_k: 600, top_p: 0.5, temperature: 1e30, ..hot },
        Draw { top_p: 0.3, temperature: 100.0, ..hot },
    ];
    for step in 0..3 {
        let draws = draws.map(|draw| Draw { step, ..draw });
        for ((row, draw), chosen) in rows.iter().zip(&draws).zip(choose(&on_device(&rows)?, &draws)?) {
            assert_eq!(chosen.expect("numbers").token, oracle(row, draw).token, "{draw:?}");
        }
    }
    Ok(())
}

/// The first of the largest is taken, wherever in a part its equals are, and next to parts with only excluded logits; and of
/// zeros the negative ones are excluded first, though they compare equal.
#[test]
fn equals_and_parts_of_nothing_are_told_apart() -> Result<()> {
    let vocab = 30_000;
    let draws = settings(21);
    for largest in [[8_500, 8_700, 12_600], [16_383, 16_384, 29_999], [24_579, 24_580, 28_672], [5, 8_191, 20_000]] {
        let mut row = vec![f32::NEG_INFINITY; vocab];
        for id in largest {
            row[id] = -3.0;
        }
        row[largest[1] - 2] = -3.5;
        let rows = vec![row; draws.len()];
        for (draw, chosen) in draws.iter().zip(choose(&on_device(&rows)?, &draws)?) {
            assert_eq!(chosen.expect("numbers").token, oracle(&rows[0], draw).token, "{largest:?} {draw:?}");
        }
    }
    let row: Vec<f32> = (0..80).map(|i| [-0.0, 0.0, -0.0, -1.0][i % 4]).collect();
    let hot = draws[1];
    let draws: Vec<Draw> = (0..24).map(|step| Draw { step, top_k: 20, ..hot }).collect();
    for (draw, chosen) in draws.iter().zip(choose(&on_device(&vec![row.clone(); 24])?, &draws)?) {
        let token = chosen.expect("numbers").token;
        assert_eq!((token, token % 4), (oracle(&row, draw).token, 1), "{draw:?}");
    }
    Ok(())
}

#[test]
fn a_row_alone_or_beside_others_is_the_same() -> Result<()> {
    let draws = settings(5);
    let rows: Vec<_> = (0..draws.len()).map(|i| logits(9001, i % 4, i as u32)).collect();
    let all = choose(&on_device(&rows)?, &draws)?;
    for i in [1, 8, 11] {
        // After another row, so that its logits start at another alignment.
        let alone = on_device(&rows[i - 1..=i])?.narrow(0, 1, 1)?;
        assert_eq!(choose(&alone, &draws[i..=i])?, all[i..=i], "row {i}");
    }
    Ok(())
}

#[test]
fn logits_that_are_no_numbers_choose_nothing() -> Result<()> {
    for vocab in [3, 5000] {
        let good = logits(vocab, 0, 3);
        let spoilt = |value: f32, at: usize| {
            let mut row = good.clone();
            row[at] = value;
            row
        };
        let rows = [
            good.clone(),
            spoilt(f32::NAN, vocab - 1),
            spoilt(f32::INFINITY, 1),
            vec![f32::NEG_INFINITY; vocab],
            vec![f32::NAN; vocab],
            spoilt(f32::NEG_INFINITY, 0),
        ];
        for draw in [Draw::default(), Draw { temperature: 0.7, top_k: 2, top_p: 0.9, ..Draw::default() }] {
            let chosen = choose(&on_device(&rows)?, &[draw; 6])?;
            let numbers: Vec<bool> = chosen.iter().map(Option::is_some).collect();
            assert_eq!(numbers, [true, false, false, false, false, true], "{draw:?}");
        }
    }
    Ok(())
}

#[test]
fn draws_without_meaning_are_refused() -> Result<()> {
    let row = on_device(&[vec![0.0, 1.0]])?;
    let hot = Draw { temperature: 1.0, ..Draw::default() };
    for (draw, why) in [
        (Draw { temperature: -1.0, ..hot }, "temperature of row 0 is -1, but must be 0 or above"),
        (Draw { top_p: 0.0, ..hot }, "top_p of row 0 is 0, but must be above 0"),
        (Draw { min_p: 1.5, ..hot }, "min_p of row 0 is 1.5, but must be from 0 to 1"),
        (Draw { step: 1 << 35, ..hot }, "must be below 2^35"),
    ] {
        let error = choose(&row, &[draw]).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
    assert!(choose(&row, &[]).unwrap_err().to_string().contains("1 rows need as many choices, not 0"));
    Ok(())
}

/// A text whose tokens are `many` different ones of a vocabulary, every third of which was written.
fn text(many: usize, vocab: usize, seed: usize) -> TextTokens {
    let token = |i: usize| ((i * 7919 + seed) % vocab) as u32;
    let mut text = TextTokens::of(&(0..many).map(token).collect::<Vec<_>>());
    for i in (0..many).step_by(3) {
        text.write(token(i));
    }
    text
}

/// The penalised logits, as the documentation has it.
fn penalised(logits: &[f32], penalties: &Penalties<'_>) -> Vec<f32> {
    let mut logits = logits.to_vec();
    for (token, written) in penalties.text.tokens() {
        let logit = &mut logits[token as usize];
        *logit -= if written { penalties.presence } else { 0.0 };
        *logit = if *logit > 0.0 { *logit / penalties.repetition } else { *logit * penalties.repetition };
    }
    logits
}

/// Rows of a batch are penalised by texts of different lengths, or not at all. What is chosen is what the oracle chooses from penalised
/// logits; the log-probability is that of the logits as they came, and so they are afterwards.
#[test]
fn penalised_tokens_are_those_of_the_oracle() -> Result<()> {
    let mut differ = 0;
    for (seed, vocab) in [1, 5, 333, 8193, 20_012].into_iter().enumerate() {
        let draws = settings(seed as u64);
        let rows: Vec<_> = (0..draws.len()).map(|i| logits(vocab, (i + seed) % 4, (90 * seed + i) as u32)).collect();
        let text = |(i, (row, draw)): (usize, (&Vec<f32>, &Draw))| {
            let mut text = text([0, 1, 3, 255, 256, 700][i % 6].min(vocab), vocab, i);
            // The token that would be chosen, so that a penalty matters.
            text.write(oracle(row, draw).token);
            text
        };
        let texts: Vec<_> = rows.iter().zip(&draws).enumerate().map(text).collect();
        let choices: Vec<Choice<'_>> = draws
            .iter()
            .zip(&texts)
            .enumerate()
            .map(|(i, (&draw, text))| {
                let (repetition, presence) = [(3.0, 0.0), (1.0, 4.5), (0.7, -0.4), (2.0, 1.25)][i % 4];
                Choice { penalties: (i % 5 != 4).then_some(Penalties { repetition, presence, text }), draw }
            })
            .collect();
        let all = on_device(&rows)?;
        let chosen = gpu::choose(&all, &choices)?;
        assert_eq!(all.to_vec2::<f32>()?, rows, "the logits were not put back");
        for ((row, choice), chosen) in rows.iter().zip(&choices).zip(chosen) {
            let chosen = chosen.expect("logits are numbers");
            let from = choice.penalties.as_ref().map_or(row.clone(), |penalties| penalised(row, penalties));
            let expected = oracle(&from, &choice.draw).token;
            assert_eq!(chosen.token, expected, "{vocab} tokens, {choice:?}");
            let own = Draw { temperature: 0.0, ..Draw::default() };
            let log_sum_exp = f64::from(row[oracle(row, &own).token as usize]) - oracle(row, &own).logprob;
            let logprob = f64::from(row[expected as usize]) - log_sum_exp;
            let off = if chosen.logprob == logprob { 0.0 } else { (chosen.logprob - logprob).abs() };
            assert!(off < TOLERANCE, "{vocab} tokens: {off:e}");
            differ += usize::from(oracle(row, &choice.draw).token != expected);
        }
    }
    assert!(differ > 10, "penalties changed only {differ} choices");
    Ok(())
}

#[test]
fn penalties_without_meaning_are_refused() -> Result<()> {
    let (row, text) = (on_device(&[vec![0.0, 1.0]])?, TextTokens::of(&[1]));
    let fine = Penalties { repetition: 1.2, presence: 0.0, text: &text };
    for (penalties, why) in [
        (Penalties { repetition: 0.0, ..fine }, "repetition penalty of row 0 is 0, but must be above 0"),
        (Penalties { presence: f32::NAN, ..fine }, "presence penalty of row 0 is NaN, but must be finite"),
        (Penalties { text: &TextTokens::of(&[2]), ..fine }, "the text of row 0 has token 2, but the vocabulary has 2"),
    ] {
        let error = gpu::choose(&row, &[Choice { penalties: Some(penalties), draw: Draw::default() }]).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
    Ok(())
}
