//! Text and numbers as they stand on the page.

/// Appends formatted markup to a `String`, which cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        use std::fmt::Write as _;
        let _ = write!($out, $($arg)*);
    }};
}
pub(super) use put;

use crate::significance::LEVEL;
pub(super) use crate::text::{UNDEFINED, count};

/// Text made safe for HTML, inside elements and inside quoted attributes.
///
/// Control characters other than tab and line feed, and the marks that reverse or isolate the direction of writing,
/// become U+FFFD: a model's output must not be able to disturb the page around it, nor to hide what it says.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' | '\t' => out.push(character),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => out.push(char::REPLACEMENT_CHARACTER),
            _ if character.is_control() => out.push(char::REPLACEMENT_CHARACTER),
            _ => out.push(character),
        }
    }
    out
}

/// A number with a fixed count of decimals and a true minus sign; never `−0.00`; an en dash for NaN.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    if value.is_nan() {
        return UNDEFINED.to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "∞" } else { "−∞" }.to_owned();
    }
    let digits =
        if value.abs() >= 1e7 { format!("{:.2e}", value.abs()) } else { format!("{:.decimals$}", value.abs()) };
    let is_zero = digits.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    if value < 0.0 && !is_zero { format!("−{digits}") } else { digits }
}

/// As [`fixed`], with a plus sign before positive numbers.
pub(super) fn signed(value: f64, decimals: usize) -> String {
    let digits = fixed(value, decimals);
    let positive = value > 0.0 && digits.bytes().any(|byte| (b'1'..=b'9').contains(&byte));
    if positive { format!("+{digits}") } else { digits }
}

/// `−0.30 to +0.50`; an en dash if there is no such interval.
pub(super) fn interval(low: f64, high: f64, decimals: usize) -> String {
    if low.is_finite() && high.is_finite() {
        format!("{} to {}", signed(low, decimals), signed(high, decimals))
    } else {
        UNDEFINED.to_owned()
    }
}

/// A p- or q-value: three decimals, as on a terminal, and `<0.001` (escaped) below that. What lies just above the level has as many as
/// say so: 0.0504 is no 0.050.
pub(super) fn p_value(value: f64) -> String {
    let rounded = |decimals: i32| (value * 10f64.powi(decimals)).round() / 10f64.powi(decimals);
    let told = (3..6).find(|&decimals| (rounded(decimals) <= LEVEL) == (value <= LEVEL));
    if (0.0..0.000_5).contains(&value) { "&lt;0.001".to_owned() } else { fixed(value, told.unwrap_or(6) as usize) }
}

/// A share as a percentage without its sign, which the column's head carries.
pub(super) fn percent(share: f64) -> String {
    fixed(share * 100.0, 1)
}

/// Text from elsewhere with true minus signs before its numbers, as the page's own numbers have them; names and ranges keep their hyphens.
pub(super) fn typeset(text: &str) -> String {
    let characters: Vec<char> = text.chars().collect();
    let is = |at: Option<usize>, holds: fn(&char) -> bool| at.and_then(|at| characters.get(at)).is_some_and(holds);
    let minus = |at: usize| {
        let before = at.checked_sub(1);
        let opens = before.is_none() || is(before, |c| c.is_whitespace() || *c == '(');
        opens && is(Some(at + 1), char::is_ascii_digit)
    };
    characters.iter().enumerate().map(|(at, &c)| if c == '-' && minus(at) { '−' } else { c }).collect()
}

/// Opens a table that may be wider than the page, in a box that scrolls, by keys too; [`NARROW`] closes both. `name` says what it holds to
/// those who cannot see it, and is escaped already.
pub(super) fn wide(name: &str, class: &str) -> String {
    format!(
        r#"<div class="wide" role="region" tabindex="0" aria-label="{name}"><table class="{class}" aria-label="{name}">"#
    )
}

/// Closes what [`wide`] opens.
pub(super) const NARROW: &str = "</table></div>";

/// Something behind a click. Paper has none: there, a line says which file holds it.
pub(super) fn folded(summary: &str, file: &str, body: &str) -> String {
    format!(r#"<details><summary>{summary}</summary>{body}</details><p class="note printed">{summary}: {file}</p>"#)
}

/// How many decimals show the largest of these numbers to four significant digits; one count for a whole column.
pub(super) fn column_decimals(values: impl Iterator<Item = f64>) -> usize {
    let largest = values.filter(|value| value.is_finite()).fold(0.0, |largest: f64, value| largest.max(value.abs()));
    if largest == 0.0 { 3 } else { decimals(largest, 4).min(7) }
}

/// How many decimals show a number other than 0 to this many significant digits.
pub(super) fn decimals(value: f64, digits: u32) -> usize {
    (f64::from(digits) - 1.0 - value.abs().log10().floor()).max(0.0) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_and_control_characters_are_harmless() {
        assert_eq!(escape(r#"<b a="1" c='2'>&"#), "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;");
        assert_eq!(escape("a\r\nb\0\u{1b}[31m\u{202e}x"), "a\nb\u{fffd}\u{fffd}[31m\u{fffd}x");
        assert_eq!(escape("日本 🙂 λ"), "日本 🙂 λ");
    }

    #[test]
    fn numbers_keep_their_sign_and_nan_is_a_dash() {
        assert_eq!(fixed(-0.614, 2), "−0.61");
        assert_eq!(fixed(-0.001, 2), "0.00");
        assert_eq!(fixed(f64::NAN, 2), "–");
        assert_eq!(fixed(f64::NEG_INFINITY, 2), "−∞");
        assert_eq!(fixed(1e300, 2), "1.00e300");
        assert_eq!(signed(0.5, 2), "+0.50");
        assert_eq!(signed(0.001, 2), "0.00");
        assert_eq!(signed(f64::NAN, 2), "–");
        assert_eq!(
            (p_value(0.0), p_value(0.000_49), p_value(0.000_5)),
            ("&lt;0.001".into(), "&lt;0.001".into(), "0.001".into())
        );
        assert_eq!((p_value(0.0123), p_value(1.0)), ("0.012".to_owned(), "1.000".to_owned()));
        assert_eq!(
            (p_value(0.0499), p_value(0.05), p_value(0.0504)),
            ("0.050".into(), "0.050".into(), "0.0504".to_owned())
        );
        assert_eq!(p_value(f64::NAN), "–");
        assert_eq!(percent(f64::NAN), "–");
    }

    #[test]
    fn only_a_number_has_a_minus() {
        assert_eq!(typeset("-0.059 misses 0 (-0.2 to +0.1)"), "−0.059 misses 0 (−0.2 to +0.1)");
        let names = "h_layers[-4:], arXiv 2604-11867, --adjust -x, 1-5, in-sample, a -";
        assert_eq!(typeset(names), names);
    }

    #[test]
    fn a_column_shows_four_digits_of_its_largest_number() {
        assert_eq!(column_decimals([1.0, 42.0, f64::NAN].into_iter()), 2);
        assert_eq!(column_decimals([0.05].into_iter()), 5);
        assert_eq!(column_decimals([12345.0].into_iter()), 0);
        assert_eq!(column_decimals([f64::NAN].into_iter()), 3);
        assert_eq!((decimals(0.0099, 2), decimals(0.05, 2), decimals(-12.0, 2), decimals(1e5, 2)), (4, 3, 0, 0));
    }
}
