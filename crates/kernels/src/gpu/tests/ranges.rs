//! Norms and means over ranges.

use std::ops::Range;

use candle_core::Result;

use super::{TYPES, both, close, flat, random};
use crate::{Spans, gpu, head_stats_reference, range_means_reference};

/// Ragged ranges that skip tokens, overlap, and are longer than a block sums at once.
fn ranges() -> Vec<Vec<Range<usize>>> {
    vec![vec![0..1], vec![2..3, 0..1, 199..200], vec![0..32, 31..32, 40..170, 170..200], vec![0..200, 5..133, 0..128]]
}

#[test]
fn statistics_of_heads_are_their_oracle() -> Result<()> {
    for dtype in TYPES {
        for (heads, dim) in [(1, 1), (3, 7), (2, 64), (5, 128), (1, 300)] {
            let (z, z32) = both(&random(&[200, heads, dim], 1), dtype)?;
            for list in ranges() {
                let what = format!("{heads} heads of {dim} over {list:?}");
                let ranges = Spans::from(list);
                let expected = head_stats_reference(&z32, &ranges, true)?;
                let found = gpu::head_stats(&z, &ranges, true)?;
                close(&found.norms, &expected.norms, &format!("norms, {what}"));
                close(&found.last_norms, &expected.last_norms, &format!("last norms, {what}"));
                let (vectors, oracle) = (found.vectors.expect("asked for"), expected.vectors.expect("asked for"));
                close(&vectors, &oracle, &format!("means, {what}"));
                // A range's result depends on nothing else, and not on whether means are requested.
                for (i, range) in ranges.iter().enumerate() {
                    let alone = gpu::head_stats(&z, &vec![range.clone()].into(), false)?;
                    assert!(alone.vectors.is_none());
                    assert_eq!(flat(&alone.norms), flat(&found.norms.narrow(0, i, 1)?), "{what}: {range:?} alone");
                    assert_eq!(flat(&alone.last_norms), flat(&found.last_norms.narrow(0, i, 1)?), "{what}");
                }
                let x = z.flatten_from(1)?;
                let means = gpu::range_means(&x, &ranges)?;
                close(&means, &range_means_reference(&z32.flatten_from(1)?, &ranges)?, &format!("rows, {what}"));
                assert_eq!(flat(&means), flat(&vectors), "{what}: a mean is a mean");
            }
        }
    }
    Ok(())
}

#[test]
fn a_mean_is_summed_as_the_host_does() -> Result<()> {
    let z = random(&[50, 3, 16], 1);
    let on = super::on(&z)?;
    let means = gpu::range_means(&on.flatten_from(1)?, &vec![3..50, 0..1].into())?;
    let rows = z.flatten_from(1)?.to_vec2::<f32>()?;
    for (mean, range) in means.to_vec2::<f32>()?.iter().zip([3..50, 0..1]) {
        let share = (1.0 / range.len() as f64) as f32;
        for (column, mean) in mean.iter().enumerate() {
            let sum = range.clone().map(|t| rows[t][column]).fold(0f32, |sum, x| sum + x);
            assert_eq!(mean.to_bits(), (sum * share).to_bits());
        }
    }
    Ok(())
}

#[test]
fn ranges_of_no_tokens_are_refused() {
    let z = super::on(&random(&[4, 1, 2], 1)).expect("a tensor");
    for (ranges, why) in
        [(vec![], "no range"), (vec![0..1, 2..2], "2..2 is empty"), (vec![0..1, 3..5], "beyond 4 tokens")]
    {
        let error = gpu::head_stats(&z, &ranges.into(), false).map(|_| ()).expect_err("refused").to_string();
        assert!(error.contains(why), "'{error}' does not say '{why}'");
    }
}
