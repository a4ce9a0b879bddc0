//! What a word is, in any script.

use unicode_normalization::{UnicodeNormalization, char::is_combining_mark};

/// A text in lower case as a reader sees it: an accent is part of its letter, full-width letters and ligatures are plain ones, and
/// what shows nothing, such as a soft hyphen, is not there.
pub(super) fn seen(text: &str) -> String {
    let plain = |c: char| {
        // NFKC alone would also make x2 of x².
        let decomposed = (is_wide(c) || is_ligature(c)).then(|| std::iter::once(c).nfkd());
        let same = decomposed.is_none().then_some(c);
        decomposed.into_iter().flatten().chain(same)
    };
    text.chars().filter(|&c| !is_hidden(c)).flat_map(plain).nfc().collect::<String>().to_lowercase()
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
    let of_run = |c: char| (c.is_alphanumeric() && !is_unspaced(c)) || is_combining_mark(c);
    at + chars[at..].iter().take_while(|&&c| of_run(c)).count()
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

/// Half- and full-width forms.
fn is_wide(c: char) -> bool {
    matches!(c, '\u{ff01}'..='\u{ffee}')
}

/// Latin ligatures, as in ﬁ.
fn is_ligature(c: char) -> bool {
    matches!(c, '\u{fb00}'..='\u{fb06}')
}

/// Soft hyphens, joiners, marks of direction, variation selectors and byte order marks. A zero-width space is none of them: it parts
/// words.
fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{ad}'
            | '\u{34f}'
            | '\u{200c}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}'
            | '\u{2060}'
            | '\u{2066}'..='\u{2069}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{feff}'
    )
}

/// Thai, Lao, Myanmar, Khmer, kana, and Chinese characters.
fn is_unspaced(c: char) -> bool {
    matches!(
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
    )
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
            ("x² ≠ x2, H₂O, ½", "x² x2 h₂o ½"),
            ("x\u{304} is not x", "x\u{304} is not x"),
            ("हिन्दी में", "हिन्दी में"),
            ("首都は東京です。", "首 都 は 東 京 で す"),
            ("ﾊﾟﾘ24区 GPTは", "パ リ 24 区 gpt は"),
            ("서울은 수도", "서울은 수도"),
            ("ที่นี่", "ที่ นี่"),
            ("?! …", ""),
        ] {
            assert_eq!(words(text).join(" "), want, "{text}");
        }
    }
}
