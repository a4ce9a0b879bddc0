//! What stands before a number: a minus sign, a currency, a decimal point without a digit before it.

use unicode_normalization::char::is_combining_mark;

use super::words::is_unspaced;

/// Minus signs: a hyphen, the typographic sign, an en dash, hyphens that break or do not break a line, and wide and small ones.
pub(super) const MINUS: [char; 7] = ['-', '−', '–', '\u{2010}', '\u{2011}', '－', '﹣'];
/// How far back the beginning of bold text is looked for.
const BOLD: usize = 200;
/// Letters of scripts without spaces after which a minus is a sign. After others it is a hyphen, as in 歼-20.
const BEFORE_MINUS: &str = "是为為等于於得到至和或与與约約达達はがをとでにも";
/// The most letters before a currency, as in US$.
const OF_CURRENCY: usize = 3;
/// The first letter of scripts without spaces that abbreviate without points.
const FIRST_CJK: char = '\u{3005}';

/// Whether a decimal point opens a number here, as in `.5`.
pub(super) fn opens_with_point(chars: &[char], at: usize) -> bool {
    let abbreviates = |c: char| c.is_alphanumeric() && !(is_unspaced(c) && c >= FIRST_CJK);
    let taken = |&c: &char| abbreviates(c) || is_combining_mark(c) || is_closing(c) || c == '.';
    chars[at] == '.' && is_digit(chars.get(at + 1).copied()) && !chars[..at].last().is_some_and(taken)
}

/// Whether the number that begins here has a minus sign, which is neither a subtraction from what is before it nor a hyphen.
pub(super) fn is_negative(chars: &[char], start: usize) -> bool {
    let minus = before_currency(chars, start).checked_sub(1).filter(|&at| MINUS.contains(&chars[at]));
    minus.is_some_and(|at| !hangs(chars, at, start))
}

/// Where the currency before a number begins, or else the number.
fn before_currency(chars: &[char], start: usize) -> usize {
    let before = |at: usize| at.checked_sub(1).map(|at| chars[at]);
    let spaced = before(start) == Some(' ') && before(start - 1).is_some_and(is_currency);
    let end = start - usize::from(spaced);
    if !before(end).is_some_and(is_currency) {
        return start;
    }
    // \$5 in Markdown.
    let at = end - 1 - usize::from(before(end - 1) == Some('\\'));
    let letters = chars[..at].iter().rev().take(OF_CURRENCY).take_while(|c| c.is_ascii_alphabetic()).count();
    let signed = before(at - letters).is_some_and(|c| MINUS.contains(&c));
    if signed { at - letters } else { at }
}

/// Whether the minus before a number belongs to what stands directly before it, as in 10-5, B-52, 5€-10€ and **5**-**10**.
fn hangs(chars: &[char], minus: usize, number: usize) -> bool {
    let back = |by: usize| minus.checked_sub(by).map(|at| chars[at]);
    let Some(c) = back(1) else { return false };
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || is_closing(c));
    match c {
        '.' | '!' | '\'' => is_digit(back(2)),
        '_' | '`' | '*' | '"' | '“' | '”' | '’' | '»' | '›' => {
            let run = chars[..minus].iter().rev().take_while(|&&mark| mark == c).count();
            // A star multiplies, and two raise to a power unless they end bold text.
            ends(back(run + 1)) && (c != '*' || (run > 1 && in_bold(&chars[..minus - run])))
        }
        c if is_currency(c) => ends(back(2)) || (back(2) == Some(' ') && is_digit(back(3))),
        // 5--10 is a range, and 5–-10 one that ends below zero.
        c if MINUS.contains(&c) => c == chars[minus] || !is_digit(back(2)),
        // No name goes on with a currency.
        c if is_unspaced(c) => minus + 1 == number && !BEFORE_MINUS.contains(c),
        c => c.is_alphanumeric() || is_combining_mark(c) || is_closing(c),
    }
}

/// Whether the last line of a text ends within bold text: it has an odd number of pairs of stars.
fn in_bold(chars: &[char]) -> bool {
    let line = chars.iter().rev().take(BOLD).take_while(|&&c| c != '\n');
    line.filter(|&&c| c == '*').count() / 2 % 2 == 1
}

fn is_digit(c: Option<char>) -> bool {
    c.is_some_and(|c| c.is_ascii_digit())
}

/// Whether a character ends what stands before it.
fn is_closing(c: char) -> bool {
    matches!(
        c,
        ')' | ']' | '}' | '）' | '］' | '｝' | '」' | '』' | '%' | '％' | '٪' | '‰' | '°' | '℃' | '℉' | '′' | '″'
    )
}

fn is_currency(c: char) -> bool {
    matches!(c, '$' | '¢' | '£' | '¤' | '¥' | '฿' | '\u{20a0}'..='\u{20cf}' | '＄' | '￠' | '￡' | '￥' | '￦')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether the last number of a text is negative.
    fn negative(text: &str) -> bool {
        let chars: Vec<char> = text.chars().collect();
        let end = chars.iter().rposition(char::is_ascii_digit).unwrap() + 1;
        is_negative(&chars, end - chars[..end].iter().rev().take_while(|c| c.is_ascii_digit()).count())
    }

    #[test]
    fn a_minus_is_a_sign_or_belongs_to_what_is_before_it() {
        for text in [
            "-5",
            "−5",
            "–5",
            "\u{2010}5",
            "\u{2011}5",
            "is -5",
            "(-5)",
            "=-5",
            "**-5**",
            "\"-5\"",
            "»-5«",
            "3*-5",
            "2**-5",
            "－5",
            "－￥5",
            "**a** is **-5",
            "x>-5",
            "-$5",
            "$-5",
            "-€ 5",
            "-₩500",
            "-\\$5",
            "-us$5",
            "-￥5",
            "净亏-$5",
            "是-5",
            "答えは-5",
            "-10–-5",
            "−5–−1",
            "-£5",
        ] {
            assert!(negative(text), "{text}");
        }
        for text in [
            "5",
            "10-5",
            "x-5",
            "B-52",
            "b\u{2011}52",
            "a--5",
            "5--10",
            "(x)-5",
            "5%-10",
            "5°-10",
            "5.–10. Mai",
            "5€-10€",
            "5 €–10 €",
            "$5-$10",
            "$5$-$10$",
            "$x$-$5$",
            "€5-€10",
            "5£-10£",
            "10℃-20℃",
            "5％-10％",
            "（5）-3",
            "「5」-3",
            "**5**-10",
            "__5__-10",
            "`5`-10",
            "\"5\"-10",
            "5'-6'",
            "5!-3",
            "“Apollo”-11",
            "„5“-10",
            "**a** and **5**-10",
            "«Союз»-11",
            "5月-10",
            "歼-20",
            "ボーイング-747",
            "5วัน-10",
            "है-5",
            "- 5",
            "10 - 5",
        ] {
            assert!(!negative(text), "{text}");
        }
    }

    #[test]
    fn a_point_opens_a_number_where_nothing_ends_before_it() {
        let opens = |text: &str| {
            let chars: Vec<char> = text.chars().collect();
            opens_with_point(&chars, chars.iter().rposition(|&c| c == '.').unwrap())
        };
        for text in
            [".5", " .5", "-.5", "–.5", "₹.5", "`.5`", "±.5", "\".5\"", "p≤.05", "(.5", ",.5", "/.6", "是.5", "は.5"]
        {
            assert!(opens(text), "{text}");
        }
        for text in ["end.5", "1.5", ").5", "..5", "ม.6", "พ.ศ.2500", "x.", ".a"] {
            assert!(!opens(text), "{text}");
        }
    }
}
