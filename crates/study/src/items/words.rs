//! What a word is, in any script.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// A text in lower case as a reader sees it: an accent is part of its letter, full-width letters, ligatures and the digits of any script
/// are plain ones, and what shows nothing, such as a soft hyphen, is not there.
pub(super) fn seen(text: &str) -> String {
    let chars: Vec<char> = text.chars().filter(|&c| !is_hidden(c)).collect();
    let mut out = String::with_capacity(text.len());
    for (at, &c) in chars.iter().enumerate() {
        let before = at.checked_sub(1).map(|at| chars[at]);
        match plain(before, c, chars.get(at + 1).copied()) {
            // NFKC of everything would also make x2 of x².
            c if is_compatible(c) => out.extend(std::iter::once(c).nfkd()),
            c => out.push(c),
        }
    }
    // The lower case of İ has a second dot.
    out.nfc().collect::<String>().to_lowercase().replace("i\u{307}", "i")
}

/// Where the word ends that begins here: a run of letters, digits and their marks or, in scripts without spaces between words, one
/// character with its marks. None if no word begins here.
pub(super) fn end_of_word(chars: &[char], at: usize) -> Option<usize> {
    let first = chars.get(at).filter(|c| c.is_alphanumeric())?;
    let marks = |at: usize| at + chars[at..].iter().take_while(|&&c| is_combining_mark(c)).count();
    if is_unspaced(*first) { Some(marks(at + 1)) } else { Some(end_of_run(chars, at)) }
}

/// Where a run of letters, digits and their marks ends, in scripts with spaces between words.
pub(super) fn end_of_run(chars: &[char], at: usize) -> usize {
    let more = (at + 1..chars.len()).take_while(|&at| goes_on(chars, at)).count();
    at + 1 + more
}

/// Whether the word that the character before this one is of goes on here. Hangul after letters or digits of other scripts, and these
/// after it, is a word of its own: particles follow numbers and names.
pub(super) fn goes_on(chars: &[char], at: usize) -> bool {
    let (before, c) = (chars[at - 1], chars.get(at).copied());
    c.is_some_and(|c| {
        is_combining_mark(c) || (is_of_run(c) && (is_combining_mark(before) || is_hangul(before) == is_hangul(c)))
    })
}

/// A letter or digit that a word may go on with.
pub(super) fn is_of_run(c: char) -> bool {
    c.is_alphanumeric() && !is_unspaced(c)
}

/// The words of a text, in lower case.
pub(crate) fn words(text: &str) -> Vec<String> {
    let chars: Vec<char> = seen(text).chars().collect();
    let (mut words, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let end = end_of_word(&chars, at);
        words.extend(end.map(|end| chars[at..end].iter().collect()));
        at = end.unwrap_or(at + 1);
    }
    words
}

/// The plain form of a digit, and of a sign between or beside such digits. Elsewhere full-width signs are punctuation: in 问题3：42 the
/// colon parts two numbers.
fn plain(before: Option<char>, c: char, after: Option<char>) -> char {
    let foreign = |c: Option<char>| c.is_some_and(|c| !c.is_ascii() && digit(c).is_some());
    let any_digit = |c: Option<char>| c.is_some_and(|c| digit(c).is_some());
    let name = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphabetic() || is_wide(c) || matches!(c, '+' | '＋'));
    let between = foreign(before) && foreign(after);
    match c {
        '．' | '\u{66b}' if between => '.',
        '，' | '\u{66c}' if between => ',',
        '：' if between => ':',
        '／' if between => '/',
        '＋' if name(before) => '+',
        '＃' if name(before) => '#',
        // Spaces that do not break group thousands.
        '\u{a0}' | '\u{202f}' if any_digit(before) && any_digit(after) => ',',
        c => digit(c).and_then(|value| char::from_digit(value, 10)).unwrap_or(c),
    }
}

/// The zeros of scripts; the nine other digits follow each.
const ZEROS: [char; 20] = [
    '0', '\u{660}', '\u{6f0}', '\u{7c0}', '\u{966}', '\u{9e6}', '\u{a66}', '\u{ae6}', '\u{b66}', '\u{be6}', '\u{c66}',
    '\u{ce6}', '\u{d66}', '\u{e50}', '\u{ed0}', '\u{f20}', '\u{1040}', '\u{1090}', '\u{17e0}', '\u{ff10}',
];

/// The value of a decimal digit.
fn digit(c: char) -> Option<u32> {
    let from = |zero: char| (c as u32).checked_sub(zero as u32).filter(|value| *value < 10);
    ZEROS.into_iter().find_map(from)
}

/// Full-width letters, and half-width ones of kana and hangul.
fn is_wide(c: char) -> bool {
    matches!(c, '\u{ff21}'..='\u{ff3a}' | '\u{ff41}'..='\u{ff5a}' | '\u{ff66}'..='\u{ffdc}')
}

/// What stands for other letters: wide ones, Latin ligatures as in ﬁ, the vowel AM of Thai and Lao, Arabic letters as they are shaped in a
/// word, and the bold and slanted letters and digits of formulas, as in 𝐏𝐚𝐫𝐢𝐬.
fn is_compatible(c: char) -> bool {
    is_wide(c)
        || matches!(
            c,
            '\u{fb00}'..='\u{fb06}'
                | '\u{e33}'
                | '\u{eb3}'
                | '\u{fb50}'..='\u{fdfb}'
                | '\u{fe70}'..='\u{fefc}'
                | '\u{1d400}'..='\u{1d7ff}'
        )
}

/// Soft hyphens, joiners, the stroke that lengthens Arabic letters, marks of direction, frames around a character as in 3⃣, variation
/// selectors, invisible operators and byte order marks. A zero-width space is none of them: it parts words.
fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{488}'..='\u{489}'
            | '\u{61c}'
            | '\u{640}'
            | '\u{200c}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2064}'
            | '\u{2066}'..='\u{2069}'
            | '\u{20dd}'..='\u{20e0}'
            | '\u{20e2}'..='\u{20e4}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
            | '\u{e0100}'..='\u{e01ef}'
    )
}

/// Korean letters.
fn is_hangul(c: char) -> bool {
    matches!(c, '\u{1100}'..='\u{11ff}' | '\u{3130}'..='\u{318f}' | '\u{a960}'..='\u{a97f}' | '\u{ac00}'..='\u{d7ff}')
}

/// Letters of Thai, Lao, Myanmar, Khmer and kana, and Chinese characters.
pub(super) fn is_unspaced(c: char) -> bool {
    let script = matches!(
        c,
        '\u{e00}'..='\u{eff}'
            | '\u{1000}'..='\u{109f}'
            | '\u{1780}'..='\u{17ff}'
            | '\u{3005}'..='\u{3007}'
            | '\u{3040}'..='\u{30ff}'
            | '\u{31f0}'..='\u{31ff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}'
    );
    script && digit(c).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_that_a_reader_sees() {
        for (text, want) in [
            ("I\u{2019}m in New-York.", "i m in new york"),
            ("Be\u{301}re\u{301}zina, Bérézina", "bérézina bérézina"),
            ("e\u{ad}le\u{ad}phant \u{feff}\u{200e}left\u{2060}over two\u{200b}words", "elephant leftover two words"),
            ("Ｐａｒｉｓ　２４, \u{fb01}ne o\u{fb03}ce", "paris 24 fine office"),
            ("\u{1d40f}\u{1d41a}\u{1d42b}\u{1d422}\u{1d42c} \u{1d7d0}\u{1d7d2}", "paris 24"),
            ("\u{feb3}\u{fefc}\u{fee1}", "سلام"),
            ("x² ≠ x2, H₂O, ½", "x² x2 h₂o ½"),
            ("3\u{fe0f}\u{20e3} مـحمد İstanbul I\u{307}", "3 محمد istanbul i"),
            ("x\u{304} is not x", "x\u{304} is not x"),
            ("हिन्दी में १५", "हिन्दी में 15"),
            ("首都は東京です。", "首 都 は 東 京 で す"),
            ("ﾊﾟﾘ24区 GPTは", "パ リ 24 区 gpt は"),
            ("葛\u{e0100}城", "葛 城"),
            ("서울은 수도, KBS가 5월", "서울은 수도 kbs 가 5 월"),
            ("ที่นี่ ๑๕ ทำ ท\u{e4d}\u{e32}", "ที่ นี่ 15 ท\u{e4d} \u{e32} ท\u{e4d} \u{e32}"),
            ("?! …", ""),
        ] {
            assert_eq!(words(text).join(" "), want, "{text}");
        }
    }
}
