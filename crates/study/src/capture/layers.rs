//! Layers as a user lists them.

use crate::Result;

/// The layers a user asks for: `all`, `none`, or a list of numbers, ranges and last layers such as `0,4,8..12,last:2`.
///
/// # Errors
/// If the text is none of these, or a layer does not exist.
pub fn parse_layers(text: &str, layers: usize) -> Result<Vec<usize>> {
    let wrong = |found: &str| {
        crate::StudyError::option(
            "the list of layers",
            found,
            format!("all or none by itself, or layers from 0 to {} such as 0,4,8..12, last, last:2", layers - 1),
        )
    };
    let number = |text: &str| -> Result<usize> {
        text.trim().parse().ok().filter(|&layer| layer < layers).ok_or_else(|| wrong(text))
    };
    let mut chosen = Vec::new();
    match text {
        "all" => chosen.extend(0..layers),
        "none" => {}
        _ => {
            for part in text.split(',') {
                if let word @ ("all" | "none") = part.trim() {
                    return Err(wrong(&format!("{text}, with {word} among others")));
                }
                if let Some(rest) = part.trim().strip_prefix("last") {
                    let count = last(rest).filter(|count| (1..=layers).contains(count));
                    chosen.extend(layers - count.ok_or_else(|| wrong(part))?..layers);
                    continue;
                }
                match part.split_once("..") {
                    None => chosen.push(number(part)?),
                    Some((from, to)) => match (number(from)?, number(to)?) {
                        (from, to) if from <= to => chosen.extend(from..=to),
                        _ => return Err(wrong(part)),
                    },
                }
            }
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
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
}
