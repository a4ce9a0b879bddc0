//! Matrix products of f64, by the crate that candle multiplies with.

use gemm::{Parallelism, gemm};

/// Work, in products, below which threads cost more than they save.
const WORTH_THREADS: usize = 1 << 22;

/// `a bᵀ` `[m, n]` of row-major `a` `[m, k]` and `b` `[n, k]`.
pub(super) fn times_transposed(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let (m, n) = (a.len() / k, b.len() / k);
    product((m, n, k), (a, [k, 1]), (b, [1, k]))
}

/// `aᵀ b` `[m, n]` of row-major `a` `[k, m]` and `b` `[k, n]`.
pub(super) fn transposed_times(a: &[f64], b: &[f64], k: usize) -> Vec<f64> {
    let (m, n) = (a.len() / k, b.len() / k);
    product((m, n, k), (a, [1, m]), (b, [n, 1]))
}

/// The product of two matrices given with their strides `[row, column]`.
pub(super) fn product((m, n, k): (usize, usize, usize), a: (&[f64], [usize; 2]), b: (&[f64], [usize; 2])) -> Vec<f64> {
    let mut out = vec![0.0; m * n];
    let last = |rows: usize, columns: usize, [row, column]: [usize; 2]| (rows - 1) * row + (columns - 1) * column;
    if m == 0 || n == 0 || k == 0 {
        return out;
    }
    assert!(last(m, k, a.1) < a.0.len() && last(k, n, b.1) < b.0.len(), "both matrices hold what is multiplied");
    let threads = if m * n * k < WORTH_THREADS { Parallelism::None } else { Parallelism::Rayon(0) };
    let (a_row, a_column) = (a.1[0] as isize, a.1[1] as isize);
    let (b_row, b_column) = (b.1[0] as isize, b.1[1] as isize);
    // SAFETY: the last entries that the strides reach lie inside both slices (asserted above), and `out` holds m x n.
    unsafe {
        gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.0.as_ptr(),
            a_column,
            a_row,
            b.0.as_ptr(),
            b_column,
            b_row,
            0.0,
            1.0,
            false,
            false,
            false,
            threads,
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_definition() {
        let a: Vec<f64> = (0..6).map(f64::from).collect(); // [2, 3] or [3, 2]
        let b: Vec<f64> = (0..12).map(|i| f64::from(i * i % 7)).collect(); // [4, 3] or [3, 4]
        let at = |i: usize, j: usize| (0..3).map(|k| a[3 * i + k] * b[3 * j + k]).sum::<f64>();
        let expected: Vec<f64> = (0..2).flat_map(|i| (0..4).map(move |j| (i, j))).map(|(i, j)| at(i, j)).collect();
        assert_eq!(times_transposed(&a, &b, 3), expected);
        let at = |i: usize, j: usize| (0..3).map(|k| a[2 * k + i] * b[4 * k + j]).sum::<f64>();
        let expected: Vec<f64> = (0..2).flat_map(|i| (0..4).map(move |j| (i, j))).map(|(i, j)| at(i, j)).collect();
        assert_eq!(transposed_times(&a, &b, 3), expected);
        assert!(times_transposed(&[], &b, 3).is_empty());
    }
}
