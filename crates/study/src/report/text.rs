//! Text and numbers as they stand on the page.

/// Appends formatted markup to a `String`, which cannot fail.
macro_rules! put {
    ($out:expr, $($arg:tt)*) => {{
        use std::fmt::Write as _;
        let _ = write!($out, $($arg)*);
    }};
}
pub(super) use put;

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

/// A p- or q-value: four decimals, and `<0.0001` (escaped) below that.
pub(super) fn p_value(value: f64) -> String {
    if (0.0..0.000_05).contains(&value) { "&lt;0.0001".to_owned() } else { fixed(value, 4) }
}

/// A share as a percentage without its sign, which the column's head carries.
pub(super) fn percent(share: f64) -> String {
    fixed(share * 100.0, 1)
}

/// How many decimals show the largest of these numbers to four significant digits; one count for a whole column.
pub(super) fn column_decimals(values: impl Iterator<Item = f64>) -> usize {
    let largest = values.filter(|value| value.is_finite()).fold(0.0, |largest: f64, value| largest.max(value.abs()));
    if largest == 0.0 { 3 } else { (3.0 - largest.log10().floor()).clamp(0.0, 7.0) as usize }
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
        assert_eq!(p_value(0.0), "&lt;0.0001");
        assert_eq!(p_value(0.0123), "0.0123");
        assert_eq!(p_value(f64::NAN), "–");
        assert_eq!(percent(f64::NAN), "–");
    }

    #[test]
    fn a_column_shows_four_digits_of_its_largest_number() {
        assert_eq!(column_decimals([1.0, 42.0, f64::NAN].into_iter()), 2);
        assert_eq!(column_decimals([0.05].into_iter()), 5);
        assert_eq!(column_decimals([12345.0].into_iter()), 0);
        assert_eq!(column_decimals([f64::NAN].into_iter()), 3);
    }
}
