//! How many tokens the prompts and the texts of a capture have, as a file says it.

use std::path::Path;

use crate::{Array, Result, StudyError};

/// The arrays that say it.
pub(crate) const LENGTHS: [&str; 2] = ["prompt_len", "total_len"];

/// Tokens of prompt and whole text of some rows, from the arrays [`LENGTHS`] of a file with `count` rows. `name` names the item at a
/// place among `rows`.
///
/// # Errors
/// If an array is not one integer for each row, or a prompt is longer than its text or shorter than nothing.
pub(crate) fn lengths(
    path: &Path,
    arrays: [Array; 2],
    (count, rows): (usize, &[usize]),
    name: impl Fn(usize) -> String,
) -> Result<Vec<[usize; 2]>> {
    let [prompt, total] = arrays;
    let (prompt, total) = (integers(path, LENGTHS[0], prompt, count)?, integers(path, LENGTHS[1], total, count)?);
    let of = |(place, &row): (usize, &usize)| match (usize::try_from(prompt[row]), usize::try_from(total[row])) {
        (Ok(prompt), Ok(total)) if prompt <= total => Ok([prompt, total]),
        _ => {
            let why = format!("{} has a prompt of {} tokens in a text of {}", name(place), prompt[row], total[row]);
            Err(StudyError::content(path, why))
        }
    };
    rows.iter().enumerate().map(of).collect()
}

/// One integer for each row.
fn integers(path: &Path, name: &str, array: Array, count: usize) -> Result<Vec<i64>> {
    match array {
        Array::I64(shape, values) if shape == [count] => Ok(values),
        other => {
            let why = format!("array '{name}' is {}, but must be i64 [{count}]", other.form());
            Err(StudyError::content(path, why))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_a_part_of_its_text() {
        let of = |prompt: [i64; 3], total: [i64; 3], rows: &[usize]| {
            let arrays = [prompt, total].map(|values| Array::I64(vec![3], values.to_vec()));
            lengths(Path::new("x.npz"), arrays, (3, rows), |place| format!("row {}", rows[place]))
                .map_err(|e| e.to_string())
        };
        assert_eq!(of([1, 2, 9], [1, 7, 8], &[1, 0]), Ok(vec![[2, 7], [1, 1]]));
        let error = of([1, 2, 9], [1, 7, 8], &[0, 2]).unwrap_err();
        assert!(error.contains("row 2 has a prompt of 9 tokens in a text of 8"), "{error}");
        for (prompt, total) in [(-1, 4), (0, -1), (i64::MIN, i64::MAX), (i64::MAX, i64::MIN)] {
            assert!(of([prompt; 3], [total; 3], &[0]).is_err(), "{prompt} {total}");
        }
        let floats = [Array::floats([1.0]), Array::counts([1])];
        let error = lengths(Path::new("x.npz"), floats, (1, &[0]), |_| String::new()).unwrap_err().to_string();
        assert!(error.contains("array 'prompt_len' is f64 [1], but must be i64 [1]"), "{error}");
    }
}
