//! A part of a run: `i/n`, the i-th of n consecutive parts that are as equal as can be.

use std::{fmt, ops::Range, str::FromStr};

use crate::{Result, StudyError};

/// What a verb that can be sharded ends with.
#[derive(Debug)]
pub enum Sharded<T> {
    /// The results of the whole.
    Whole(T),
    /// A shard, which has no results: how many rows it has, and the whole.
    Part {
        /// Rows of the shard.
        rows: usize,
        /// Rows of the whole run.
        of: usize,
    },
}

/// The `index`-th of `of` parts, counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard {
    index: usize,
    of: usize,
}

impl Shard {
    /// How many parts there are in all.
    pub fn of(self) -> usize {
        self.of
    }

    /// All parts of such a split, in order.
    pub(crate) fn all(of: usize) -> impl Iterator<Item = Self> {
        (1..=of).map(move |index| Self { index, of })
    }

    /// Which of `len` things belong to this part.
    pub(crate) fn range(self, len: usize) -> Range<usize> {
        let edge = |index: usize| (index as u128 * len as u128 / self.of as u128) as usize;
        edge(self.index - 1)..edge(self.index)
    }

    /// The things that belong to this part; `what` says what they are.
    ///
    /// # Errors
    /// If there are fewer things than parts: some parts would be empty.
    pub fn part<'a, T>(self, all: &'a [T], what: &str) -> Result<&'a [T]> {
        Ok(&all[self.range_of(all.len(), what)?])
    }

    /// Where the things that belong to this part are among `len` of them.
    ///
    /// # Errors
    /// As [`Shard::part`].
    pub fn range_of(self, len: usize, what: &str) -> Result<Range<usize>> {
        if len < self.of {
            let allowed = format!("of at most {len} parts: there are so many {what}");
            return Err(StudyError::option("--shard", self.to_string(), allowed));
        }
        Ok(self.range(len))
    }
}

impl FromStr for Shard {
    type Err = StudyError;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.parse::<usize>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
        let parts = text.split_once('/').and_then(|(index, of)| number(index).zip(number(of)));
        match parts {
            Some((index, of)) if (1..=of).contains(&index) => Ok(Self { index, of }),
            _ => {
                let allowed = "i/n with i from 1 to n: 1/4, 2/4, 3/4 and 4/4 are the four parts of a run";
                Err(StudyError::option("--shard", format!("'{text}'"), allowed))
            }
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_up_the_whole_and_are_as_equal_as_can_be() {
        for (len, of) in [(4, 4), (10, 4), (11, 4), (100, 7), (5, 1)] {
            let all: Vec<usize> = (0..len).collect();
            let parts: Vec<&[usize]> = Shard::all(of).map(|shard| shard.part(&all, "rows").unwrap()).collect();
            assert_eq!(parts.concat(), all);
            let sizes = parts.iter().map(|part| part.len());
            assert!(sizes.clone().max().unwrap() - sizes.min().unwrap() <= 1, "{len} in {of}");
        }
        let error = "4/4".parse::<Shard>().unwrap().part(&[1, 2, 3], "rows").unwrap_err().to_string();
        assert_eq!(error, "--shard is 4/4, but must be of at most 3 parts: there are so many rows");
    }

    #[test]
    fn a_shard_is_written_i_of_n() {
        for good in ["1/4", "4/4", "1/1"] {
            assert_eq!(good.parse::<Shard>().unwrap().to_string(), good);
        }
        for bad in ["0/4", "5/4", "x", "", "/", "1/", "1/0", "-1/4", "+1/4", "1/4/2", "1 /4", "99999999999999999999/4"]
        {
            let error = bad.parse::<Shard>().unwrap_err().to_string();
            assert!(error.contains(&format!("'{bad}'")) && error.contains("i from 1 to n"), "{error}");
        }
    }
}
