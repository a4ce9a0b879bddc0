//! Numbers, lists and names as they stand in sentences and tables; `report::text` has them as they stand on its pages.

pub(crate) mod table;

use std::path::Path;

/// What stands where there is no number.
pub(crate) const UNDEFINED: &str = "–";

/// A number with this many decimals; an en dash if it is not finite.
pub(crate) fn fixed(x: f64, decimals: usize) -> String {
    if x.is_finite() { format!("{x:.decimals$}") } else { UNDEFINED.into() }
}

/// The same with its sign.
pub(crate) fn signed(x: f64, decimals: usize) -> String {
    if x.is_finite() { format!("{x:+.decimals$}") } else { UNDEFINED.into() }
}

/// A number with three decimals; an en dash if it is not finite.
pub(crate) fn short(x: f64) -> String {
    fixed(x, 3)
}

/// A share as a percentage: `12.5 %`.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", 100.0 * share) } else { UNDEFINED.into() }
}

/// `-0.300 to 0.500`, or that there is no such interval.
pub(crate) fn interval(low: f64, high: f64, decimals: usize) -> String {
    if low.is_finite() || high.is_finite() {
        format!("{} to {}", fixed(low, decimals), fixed(high, decimals))
    } else {
        "no interval".into()
    }
}

/// The number that an f32 is written as: 0.9, and not the f64 that is closest to the f32 closest to it.
pub(crate) fn as_written(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// The name of a file, without its directory.
pub(crate) fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// A number of things: `1 item`, `2 items`.
pub fn count(n: usize, one: &str) -> String {
    if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") }
}

/// The first of these, at most `most`: `a, b, …`.
pub(crate) fn some_of(names: &[String], most: usize) -> String {
    names[..names.len().min(most)].join(", ") + if names.len() > most { ", …" } else { "" }
}

/// Names listed as in a sentence.
pub(crate) fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// A field of a line of CSV.
pub(crate) fn quoted(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.into() }
}

/// The text with a capital first letter.
pub(crate) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_letter_is_made_large() {
        assert_eq!((capital("über alles"), capital("")), ("Über alles".to_string(), String::new()));
    }

    #[test]
    fn what_is_no_number_is_a_dash() {
        assert_eq!(
            (fixed(-0.614, 2), signed(0.5, 1), percent(0.125)),
            ("-0.61".into(), "+0.5".into(), "12.5 %".into())
        );
        assert!([fixed(f64::NAN, 2), signed(f64::INFINITY, 2), percent(f64::NAN)].iter().all(|text| text == UNDEFINED));
        assert_eq!(interval(-0.3, f64::NAN, 1), "-0.3 to –");
        assert_eq!(interval(f64::NAN, f64::NAN, 1), "no interval");
    }

    #[test]
    fn lists_end_where_they_are_too_long() {
        let names = ["a", "b", "c"].map(String::from);
        assert_eq!((some_of(&names, 3), some_of(&names, 2)), ("a, b, c".into(), "a, b, …".into()));
        assert_eq!((count(1, "item"), count(0, "item")), ("1 item".into(), "0 items".into()));
    }

    #[test]
    fn fields_with_marks_of_their_own_are_quoted() {
        assert_eq!((quoted("a b"), quoted("a,\"b\"")), ("a b".into(), "\"a,\"\"b\"\"\"".into()));
    }
}
