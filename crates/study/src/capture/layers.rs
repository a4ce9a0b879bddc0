//! Layers as a user lists them.

use std::ops::Range;

use crate::{Result, StudyError};

/// The layers a user asks for: `all`, `none`, or a list of numbers, ranges and last layers such as `0,4,8..12,last:2`.
///
/// # Errors
/// If the text is none of these, or a layer does not exist.
pub fn parse_layers(text: &str, layers: usize) -> Result<Vec<usize>> {
    let mut chosen = Vec::new();
    match text {
        "all" => chosen.extend(0..layers),
        "none" => {}
        _ => {
            let allowed = format!("layers from 0 to {}", layers - 1);
            for (part, listed) in list(text, &allowed)? {
                chosen.extend(listed.of(layers).ok_or_else(|| wrong(part, &allowed))?);
            }
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

/// Refuses a text that lists no layers of any model, so that none has to be opened first.
///
/// # Errors
/// As [`parse_layers`], except where it takes the number of layers to know.
pub fn check_layers(text: &str) -> Result<()> {
    if matches!(text, "all" | "none") { Ok(()) } else { list(text, "layers").map(drop) }
}

/// What one part of a list stands for.
enum Listed {
    /// The first layer and the last.
    Range(usize, usize),
    /// So many last ones, at least 1.
    Last(usize),
}

impl Listed {
    /// What it stands for; none if it is in the wrong form.
    fn parse(part: &str) -> Option<Self> {
        if let Some(rest) = part.strip_prefix("last") {
            return last(rest).filter(|&count| count > 0).map(Self::Last);
        }
        let (from, to) = part.split_once("..").unwrap_or((part, part));
        let (from, to) = (from.trim().parse().ok()?, to.trim().parse().ok()?);
        (from <= to).then_some(Self::Range(from, to))
    }

    /// The layers of a model that has so many; none if it has too few.
    fn of(&self, layers: usize) -> Option<Range<usize>> {
        match *self {
            Self::Range(from, to) => (to < layers).then(|| from..to + 1),
            Self::Last(count) => layers.checked_sub(count).map(|from| from..layers),
        }
    }
}

/// The parts of a list, each with what it stands for; `allowed` says which layers there are.
fn list<'a>(text: &'a str, allowed: &str) -> Result<Vec<(&'a str, Listed)>> {
    let listed = |part: &'a str| {
        let part = part.trim();
        if matches!(part, "all" | "none") {
            return Err(wrong(&format!("{text}, with {part} among others"), allowed));
        }
        Listed::parse(part).map(|listed| (part, listed)).ok_or_else(|| wrong(part, allowed))
    };
    text.split(',').map(listed).collect()
}

fn wrong(found: &str, allowed: &str) -> StudyError {
    let found = if found.is_empty() { "empty" } else { found };
    let allowed = format!("all or none by itself, or {allowed} such as 0,4,8..12, last, last:2");
    StudyError::option("the list of layers", found, allowed)
}

/// How many last layers the text after `last` stands for: nothing, or `:K`.
fn last(rest: &str) -> Option<usize> {
    match rest {
        "" => Some(1),
        _ => rest.strip_prefix(':').filter(|k| k.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_listed_as_numbers_and_ranges() {
        assert_eq!(parse_layers("all", 3).unwrap(), [0, 1, 2]);
        assert_eq!(parse_layers("none", 3).unwrap(), Vec::<usize>::new());
        assert_eq!(parse_layers("5,1..3,2", 8).unwrap(), [1, 2, 3, 5]);
        assert_eq!(parse_layers("last", 8).unwrap(), [7]);
        assert_eq!(parse_layers("last:3, 0,6", 8).unwrap(), [0, 5, 6, 7]);
        assert_eq!(parse_layers("last:8", 8).unwrap(), parse_layers("all", 8).unwrap());
        for (mixed, word) in [("all,last", "all"), ("0, none", "none")] {
            let why = parse_layers(mixed, 8).unwrap_err().to_string();
            let expected = format!(
                "the list of layers is {mixed}, with {word} among others, but must be all or none by itself, or layers from 0 to 7 \
                 such as 0,4,8..12, last, last:2"
            );
            assert_eq!(why, expected);
        }
        for wrong in ["8", "x", "1..9", "3..1", "", "last:0", "last:9", "last:", "last:-1", "lastly", "0..last"] {
            assert!(parse_layers(wrong, 8).unwrap_err().to_string().contains("from 0 to 7"), "{wrong}");
        }
    }

    #[test]
    fn what_no_model_has_needs_none_to_be_refused() {
        for wrong in ["", "x", "3..1", "last:0", "last:x", "lastly", "0..last", "0,", "-1", "0, all"] {
            let why = check_layers(wrong).unwrap_err().to_string();
            assert!(why.contains("or layers such as 0,4,8..12"), "{wrong}: {why}");
        }
        for some in ["all", "none", "0", "5,1..3,2", "last, last:100", "99..1000000000000"] {
            check_layers(some).unwrap();
        }
    }
}
