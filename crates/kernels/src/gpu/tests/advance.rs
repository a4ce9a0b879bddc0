//! The end of a decode step that is played back from a recording.

use candle_core::{Result, Tensor};

use super::DEVICE;
use crate::{Chosen, DecodeRow, DecodeRows, Draw};

const CAPACITY: usize = 100;

fn row(id: u32, slot: usize, left: usize, stops: &[u32]) -> DecodeRow {
    let draw = Draw { top_p: 1.0, step: 3, ..Draw::default() };
    DecodeRow { id, position: 10 + slot, lambda: slot, slot, left, stops: stops.to_vec(), draw }
}

/// Logits over ten tokens under which the given tokens are chosen; `None` makes a row NaN.
fn logits(likeliest: [Option<usize>; 4]) -> Result<Tensor> {
    let value = |token: usize, best: Option<usize>| match best {
        Some(best) => f32::from(u8::from(token == best)),
        None => f32::NAN,
    };
    let values: Vec<f32> = likeliest.iter().flat_map(|&best| (0..10).map(move |token| value(token, best))).collect();
    Tensor::from_vec(values, (4, 10), &DEVICE)
}

#[test]
fn rows_go_on_until_they_end_and_then_rest() -> Result<()> {
    let rows = DecodeRows::new((4, 2, 8), CAPACITY, &DEVICE)?;
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
    // One of ten tokens is e times as likely as each of the others.
    let expected = 1.0 - (9.0 + 1f64.exp()).ln();
    let first = written[0][0].expect("there were numbers").logprob;
    assert!((first - expected).abs() < 1e-6, "{first} is not {expected}");
    // Rows that are set again start with nothing written.
    rows.set(&[row(1, 3, 1, &[])])?;
    assert!(rows.written()?.iter().all(Vec::is_empty));
    Ok(())
}

#[test]
fn rows_that_do_not_fit_are_refused() -> Result<()> {
    let rows = DecodeRows::new((1, 1, 8), CAPACITY, &DEVICE)?;
    for wrong in [vec![row(1, 0, 1, &[]), row(1, 1, 1, &[])], vec![row(1, 0, 1, &[1, 2])], vec![row(1, 0, 0, &[])]] {
        let error = rows.set(&wrong).unwrap_err().to_string();
        assert!(error.contains("do not fit 1"), "{error}");
    }
    let mut meaningless = row(1, 0, 1, &[]);
    meaningless.draw.temperature = -1.0;
    let error = rows.set(&[meaningless]).unwrap_err().to_string();
    assert!(error.contains("temperature of row 0 is -1"), "{error}");
    let error = rows.advance(&logits([None; 4])?).unwrap_err().to_string();
    assert!(error.contains("are not those of 1 rows"), "{error}");
    Ok(())
}
