//! Symmetric positive definite systems.

use rayon::prelude::*;

use super::matrix::product;
use crate::vector::dot;

/// Columns that are finished together: nearly all work is then in products of matrices, and little in the panels themselves.
const PANEL: usize = 64;

/// The lower triangle L of `A = L Lᵀ`, row-major `[n, n]`.
pub(super) struct Cholesky {
    lower: Vec<f64>,
    n: usize,
}

impl Cholesky {
    /// Factors a symmetric matrix; reads only its lower triangle. None if it is not positive definite.
    pub(super) fn new(mut matrix: Vec<f64>, n: usize) -> Option<Self> {
        for start in (0..n).step_by(PANEL) {
            let end = (start + PANEL).min(n);
            // What the finished columns take from those of the panel, in one product.
            let rows = &matrix[start * n..];
            let taken = product((n - start, end - start, start), (rows, [n, 1]), (rows, [1, n]));
            let lower = matrix[start * n..].chunks_exact_mut(n).zip(taken.chunks_exact(end - start));
            lower.for_each(|(row, taken)| row[start..end].iter_mut().zip(taken).for_each(|(x, taken)| *x -= taken));
            for i in start..end {
                let (above, from_i) = matrix.split_at_mut(i * n);
                let row = &mut from_i[..n];
                eliminate(row, above, start, i);
                let square = row[i] - dot(&row[start..i], &row[start..i]);
                if square.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) {
                    return None;
                }
                row[i] = square.sqrt();
            }
            let (above, below) = matrix.split_at_mut(end * n);
            below.par_chunks_exact_mut(n).with_min_len(PANEL).for_each(|row| eliminate(row, above, start, end));
        }
        Some(Self { lower: matrix, n })
    }

    /// Solves `A x = b` in place.
    pub(super) fn solve(&self, b: &mut [f64]) {
        let row = |i: usize| &self.lower[i * self.n..=i * self.n + i];
        for i in 0..self.n {
            let row = row(i);
            b[i] = (b[i] - dot(&row[..i], &b[..i])) / row[i];
        }
        for i in (0..self.n).rev() {
            let row = row(i);
            b[i] /= row[i];
            let x = b[i];
            b[..i].iter_mut().zip(row).for_each(|(b, l)| *b -= l * x);
        }
    }
}

/// The columns `start..end` of a row of L, of which all before `start` are taken out, from the finished rows above.
fn eliminate(row: &mut [f64], above: &[f64], start: usize, end: usize) {
    let n = row.len();
    for j in start..end {
        let other = &above[j * n..=j * n + j];
        row[j] = (row[j] - dot(&row[start..j], &other[start..j])) / other[j];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::laws::normal_table;

    #[test]
    fn what_was_multiplied_is_solved_for() {
        let n = 2 * PANEL + 21;
        let root = normal_table(1, n, &vec![1.0; n]);
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                a[i * n + j] = dot(&root[i * n..(i + 1) * n], &root[j * n..(j + 1) * n]) + f64::from(u8::from(i == j));
            }
        }
        let x: Vec<f64> = (0..n).map(|i| i as f64 - 4.0).collect();
        let mut b: Vec<f64> = a.chunks_exact(n).map(|row| dot(row, &x)).collect();
        Cholesky::new(a, n).unwrap().solve(&mut b);
        assert!(b.iter().zip(&x).all(|(found, x)| (found - x).abs() < 1e-9), "{b:?}");
    }

    #[test]
    fn what_is_not_positive_definite_has_no_factor() {
        for matrix in [vec![0.0], vec![-1.0], vec![f64::NAN], vec![1.0, 2.0, 2.0, 1.0]] {
            let n = if matrix.len() == 4 { 2 } else { 1 };
            assert!(Cholesky::new(matrix, n).is_none());
        }
    }
}
