//! Products and angles of vectors.

/// Partial sums that the compiler can keep in vector registers.
const LANES: usize = 8;

/// Inner product, in eight partial sums of fixed order, so that it is fast and the same everywhere. 0 for empty
/// vectors; panics if the lengths differ.
#[expect(clippy::inline_always, reason = "it becomes part of functions that are compiled for wider registers")]
#[inline(always)]
pub fn dot(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len(), "vectors of different length");
    let (a_lanes, a_rest) = a.as_chunks::<LANES>();
    let (b_lanes, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (x, y) in a_lanes.iter().zip(b_lanes) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f64>() + rest
}

/// Euclidean length, in the unit of the entries. 0 for an empty vector.
pub fn norm(a: &[f64]) -> f64 {
    dot(a, a).sqrt()
}

/// Cosine of the angle between two vectors, in -1..=1. NaN if either has length 0, and so no direction. Panics if the lengths
/// differ.
pub fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let lengths = norm(a) * norm(b);
    if lengths == 0.0 { f64::NAN } else { (dot(a, b) / lengths).clamp(-1.0, 1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_and_rest_agree_with_the_plain_sum() {
        for n in [0, 1, 7, 8, 9, 16, 27] {
            let a: Vec<f64> = (0..n).map(|i| f64::from(i) - 3.5).collect();
            let b: Vec<f64> = (0..n).map(|i| f64::from(i * i) * 0.5).collect();
            let plain: f64 = a.iter().zip(&b).map(|(x, y)| x * y).sum();
            assert_eq!(dot(&a, &b), plain, "halves of small integers are exact, n = {n}");
        }
    }

    #[test]
    fn cosine_knows_its_limits() {
        assert!(cosine(&[0.0, 0.0], &[1.0, 2.0]).is_nan());
        assert!(cosine(&[f64::NAN, 0.0], &[1.0, 2.0]).is_nan());
        assert!(cosine(&[0.1, 0.7, 0.3], &[0.1, 0.7, 0.3]) <= 1.0);
        assert_eq!(cosine(&[1.0, 0.0], &[0.0, 1.0]), 0.0);
    }
}
