//! The end of a decode step that is played back from a recording.

use std::collections::BTreeSet;

use candle_core::{DType, Result, Tensor};

use super::DEVICE;
use crate::{Choice, Chosen, DecodeRow, DecodeRows, DecodeSize, Draw, Penalties, TextTokens, gpu};

const CAPACITY: usize = 100;

/// Idle rows with room for two stop tokens each and eight tokens between two reads.
fn idle(rows: usize, text: usize) -> Result<DecodeRows> {
    DecodeRows::new(DecodeSize { rows, stops: 2, text, room: 8, capacity: CAPACITY }, &DEVICE)
}

fn row(id: u32, slot: usize, left: usize, stops: &[u32]) -> DecodeRow<'static> {
    let draw = Draw { top_p: 1.0, step: 3, ..Draw::default() };
    DecodeRow { id, position: 10 + slot, lambda: slot, slot, left, stops: stops.to_vec(), choice: draw.into() }
}

/// Logits over ten tokens under which the given tokens are chosen, the more surely the later the row; `None` makes a row NaN.
fn logits(likeliest: [Option<usize>; 4]) -> Result<Tensor> {
    let value = |row: usize, token: usize| match likeliest[row] {
        Some(best) => f32::from(u8::from(token == best)) * (row + 1) as f32,
        None => f32::NAN,
    };
    let values: Vec<f32> = (0..40).map(|at| value(at / 10, at % 10)).collect();
    Tensor::from_vec(values, (4, 10), &DEVICE)
}

#[test]
fn rows_go_on_until_they_end_and_then_rest() -> Result<()> {
    let rows = idle(4, 0)?;
    rows.set(&[row(1, 3, 3, &[9]), row(2, 1, 8, &[5, 6]), row(4, 0, 8, &[])])?;
    assert_eq!(rows.attention().to_vec2::<u32>()?, [[0, 1, 13, 300], [1, 1, 11, 100], [2, 1, 10, 0], [3, 0, 0, 0]]);
    assert_eq!(rows.states().to_vec2::<u32>()?, [[0, 1, 13, 3], [1, 1, 11, 1], [2, 1, 10, 0], [3, 0, 0, 0]]);
    assert_eq!((rows.ids().to_vec1::<u32>()?, rows.lambda().to_vec1::<u32>()?), (vec![1, 2, 4, 0], vec![3, 1, 0, 0]));
    rows.advance(&logits([Some(7), Some(8), Some(3), None])?)?; // the idle row has logits of no meaning
    assert_eq!(rows.ids().to_vec1::<u32>()?, [7, 8, 3, 0]);
    assert_eq!(rows.positions().to_vec1::<u32>()?, [14, 12, 11, 0]);
    rows.advance(&logits([Some(2), Some(6), None, None])?)?; // a stop token, and NaN
    rows.advance(&logits([Some(1), Some(1), Some(1), Some(1)])?)?; // the last token that the first row may generate
    rows.advance(&logits([Some(1), Some(1), Some(1), Some(1)])?)?; // all rows are idle
    let table =
        |start, rest: [u32; 3]| [[0, 0, 16, start], [1, 0, 13, rest[0]], [2, 0, 12, rest[1]], [3, 0, 0, rest[2]]];
    assert_eq!(rows.attention().to_vec2::<u32>()?, table(300, [100, 0, 0]));
    assert_eq!(rows.states().to_vec2::<u32>()?, table(3, [1, 0, 0]));
    let tokens = |written: &[Option<Chosen>]| written.iter().map(|chosen| chosen.map(|c| c.token)).collect::<Vec<_>>();
    let written = rows.written()?;
    assert_eq!(
        written.iter().map(|row| tokens(row)).collect::<Vec<_>>(),
        [vec![Some(7), Some(2), Some(1)], vec![Some(8), Some(6)], vec![Some(3), None], vec![]]
    );
    // In row r one of ten tokens is e^(r + 1) times as likely as each of the others.
    for (row, written) in written[..3].iter().enumerate() {
        let most = (row + 1) as f64;
        let (first, expected) = (written[0].expect("there were numbers").logprob, most - (9.0 + most.exp()).ln());
        assert!((first - expected).abs() < 1e-6, "row {row}: {first} is not {expected}");
    }
    // Rows that are set again start with nothing written.
    rows.set(&[row(1, 3, 1, &[])])?;
    assert!(rows.written()?.iter().all(Vec::is_empty));
    Ok(())
}

/// Every step has noise of its own, which is that of the same step drawn by itself.
#[test]
fn a_row_draws_with_the_noise_of_its_step() -> Result<()> {
    let draws = [3, 1 << 33].map(|step| Draw { key: [9; 8], stream: step, step, temperature: 1.5, ..Draw::default() });
    let rows = idle(2, 0)?;
    let hot = |slot: usize| DecodeRow { choice: draws[slot].into(), ..row(1, slot, 8, &[]) };
    rows.set(&[hot(0), hot(1)])?;
    let even = Tensor::zeros((2, 10), DType::F32, &DEVICE)?;
    let mut expected = [const { Vec::new() }; 2];
    for k in 0..8 {
        rows.advance(&even)?;
        let at = draws.map(|draw| Draw { step: draw.step + k, ..draw });
        expected.iter_mut().zip(gpu::choose(&even, &at.map(Choice::from))?).for_each(|(of, chosen)| of.push(chosen));
    }
    assert_eq!(rows.written()?, expected);
    let tokens: BTreeSet<_> = expected.iter().flatten().map(|chosen| chosen.map(|chosen| chosen.token)).collect();
    assert!(tokens.len() > 3, "steps that draw alike show nothing: {tokens:?}");
    Ok(())
}

#[test]
fn rows_that_do_not_fit_are_refused() -> Result<()> {
    let rows = idle(1, 0)?;
    for wrong in [vec![row(1, 0, 1, &[]), row(1, 1, 1, &[])], vec![row(1, 0, 1, &[1, 2, 3])], vec![row(1, 0, 0, &[])]] {
        let error = rows.set(&wrong).unwrap_err().to_string();
        assert!(error.contains("do not fit 1"), "{error}");
    }
    let mut meaningless = row(1, 0, 1, &[]);
    meaningless.choice.draw.temperature = -1.0;
    let error = rows.set(&[meaningless]).unwrap_err().to_string();
    assert!(error.contains("temperature of row 0 is -1"), "{error}");
    let long = TextTokens::of(&[1, 2]);
    let penalties = Some(Penalties { repetition: 1.5, presence: 0.0, text: &long });
    let penalised = DecodeRow { choice: Choice { penalties, draw: Draw::default() }, ..row(1, 0, 1, &[]) };
    let error = rows.set(&[penalised]).unwrap_err().to_string();
    assert!(error.contains("the text of row 0 has 2 different tokens, but there is room for 0"), "{error}");
    let error = rows.advance(&logits([None; 4])?).unwrap_err().to_string();
    assert!(error.contains("are not those of 1 rows"), "{error}");
    for other in
        [Tensor::zeros((1, 10), DType::BF16, &DEVICE)?, Tensor::zeros((1, (1 << 19) + 1), DType::F32, &DEVICE)?]
    {
        let error = rows.advance(&other).unwrap_err().to_string();
        assert!(error.contains("must be f32 [n, vocab] with at most 524288 tokens"), "{error}");
    }
    Ok(())
}

/// Of three rows, the first is penalised and greedy, the second penalised and drawn, and the third only drawn.
fn choice(row: usize, text: &TextTokens, step: u64) -> Choice<'_> {
    let hot = Draw { key: [9; 8], stream: row as u64, step, temperature: 1.5, ..Draw::default() };
    match row {
        0 => Choice { penalties: Some(Penalties { repetition: 3.0, presence: 0.5, text }), draw: Draw::default() },
        1 => Choice { penalties: Some(Penalties { repetition: 1.0, presence: 2.0, text }), draw: hot },
        _ => hot.into(),
    }
}

/// What a row writes joins its text: every step is penalised as if it were asked for with the text up to then. Rows beside it, penalised
/// otherwise or not at all, and one that has ended, change nothing.
#[test]
fn what_a_row_writes_is_penalised_from_then_on() -> Result<()> {
    let read = [TextTokens::of(&[3, 4, 3]), TextTokens::of(&[5])];
    let slopes: Vec<f32> = (0..30).map(|at| [1.0, 0.7, 0.1][at / 10] * (at % 10) as f32 - 2.0).collect();
    let logits = Tensor::from_vec(slopes.clone(), (3, 10), &DEVICE)?;
    let mut texts = [read[0].clone(), read[1].clone(), TextTokens::default()];
    let mut expected = [const { Vec::new() }; 3];
    for step in 0..8 {
        let choices: Vec<Choice<'_>> = texts.iter().enumerate().map(|(row, text)| choice(row, text, step)).collect();
        let chosen = gpu::choose(&logits, &choices)?;
        for (row, chosen) in chosen.into_iter().enumerate() {
            texts[row].write(chosen.expect("logits are numbers").token);
            expected[row].push(chosen);
        }
    }
    let rows = idle(4, 10)?;
    let empty = TextTokens::default();
    // The first token of each row is written already, and the last row is given only three more.
    let mut first = [read[0].clone(), read[1].clone()];
    let ids = [0, 1, 2].map(|row: usize| expected[row][0].expect("logits are numbers").token);
    for (text, id) in first.iter_mut().zip(ids) {
        text.write(id);
    }
    let from = |at: usize, left| DecodeRow {
        choice: choice(at, first.get(at).unwrap_or(&empty), 1),
        ..row(ids[at], at, left, &[])
    };
    rows.set(&[from(0, 7), from(1, 7), from(2, 3)])?;
    let with_idle = Tensor::cat(&[&logits, &logits.narrow(0, 0, 1)?], 0)?;
    for _ in 0..7 {
        rows.advance(&with_idle)?;
    }
    assert_eq!(with_idle.narrow(0, 0, 3)?.flatten_all()?.to_vec1::<f32>()?, slopes, "the logits were not put back");
    let written = rows.written()?;
    assert_eq!(written[0], expected[0][1..]);
    assert_eq!(written[1], expected[1][1..]);
    assert_eq!(written[2], expected[2][1..4]);
    let different: BTreeSet<_> = expected[0].iter().flatten().map(|chosen| chosen.token).collect();
    assert!(different.len() > 2, "a slope without penalties has one best token: {different:?}");
    Ok(())
}
