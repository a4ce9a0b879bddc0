//! The words of an answer, as it is compared with accepted answers: a number keeps what makes it that number.

use super::{
    sign::{MINUS, is_negative, opens_with_point},
    words::{end_of_run, end_of_word, goes_on, is_of_run, is_unspaced, seen},
};
use crate::{Item, text::some_of};

/// Marks that join two numbers into one fraction.
const SLASH: [char; 2] = ['/', '⁄'];
/// Characters without which an accepted answer would be another answer.
const DECISIVE: &str = "+*×÷^=<>≤≥≠≈±√∞∑∫∪∩→⁻＝＜＞";
/// What an operand may begin with, besides letters and digits.
const OPERANDS: &str = "([{\\√（［｛";
/// Most accepted answers that a warning names.
const NAMED: usize = 5;

/// The words of a text, in lower case and with one space between them. A number is one word with its sign, decimal point, fraction slash and
/// colon, but without thousands commas; `+` and `#` at the end of a word belong to it.
pub(super) fn comparable(text: &str) -> String {
    let chars: Vec<char> = seen(text).chars().collect();
    let mut words: Vec<String> = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let pointed = opens_with_point(&chars, at);
        let word = end_of_word(&chars, at);
        if word.is_none() && !pointed {
            at += 1;
            continue;
        }
        let start = at;
        at = if pointed || chars[at].is_ascii_digit() { end_of_number(&chars, at) } else { at };
        let number: String = chars[start..at].iter().collect();
        let (rest, exponent) = (at, (at > start).then(|| exponent(&chars, at)).flatten());
        at = match word {
            _ if exponent.is_some() => exponent.as_ref().map_or(at, |(end, _)| *end),
            Some(end) if rest == start => end,
            _ if goes_on(&chars, rest) => end_of_run(&chars, rest),
            _ => rest,
        };
        at = if exponent.is_some() { at } else { end_of_name(&chars, start, at) };
        let mut found = numbers(&number);
        if found.is_empty() {
            found.push(String::new());
        }
        if rest > start && is_negative(&chars, start) {
            found[0].insert(0, '-');
        }
        let last = found.last_mut().expect("there is one");
        match exponent {
            Some((_, power)) => last.push_str(&power),
            None => last.extend(&chars[rest..at]),
        }
        words.append(&mut found);
    }
    words.join(" ")
}

fn is_digit(chars: &[char], at: usize) -> bool {
    chars.get(at).is_some_and(char::is_ascii_digit)
}

/// Where a run of digits ends, counting single points, commas, colons and slashes between digits.
fn end_of_number(chars: &[char], start: usize) -> usize {
    let mut at = start;
    let joins = |c: char| matches!(c, '.' | ',' | ':') || SLASH.contains(&c);
    while is_digit(chars, at) || (chars.get(at).is_some_and(|&c| joins(c)) && is_digit(chars, at + 1)) {
        at += 1;
    }
    at
}

/// A power of ten with a sign behind a number, as in 1e-5 and 1e+05: where it ends, and how it is compared. One without a sign is a word of
/// letters and digits as any other.
fn exponent(chars: &[char], at: usize) -> Option<(usize, String)> {
    let sign = chars.get(at + 1).filter(|&&c| c == '+' || MINUS.contains(&c))?;
    let digits = chars[at + 2..].iter().take_while(|c| c.is_ascii_digit()).count();
    let end = at + 2 + digits;
    if chars[at] != 'e' || digits == 0 || goes_on(chars, end) {
        return None;
    }
    let power: String = chars[at + 2..end].iter().skip_while(|&&c| c == '0').collect();
    let sign = if *sign == '+' || power.is_empty() { "" } else { "-" };
    Some((end, format!("e{sign}{}", if power.is_empty() { "0" } else { &power })))
}

/// Where a word ends whose letters have been read up to `at`: after `+` and `#` if nothing follows that they could join it with, or after
/// `++`, as in C++17. In scripts without spaces they are no part of names.
fn end_of_name(chars: &[char], start: usize, at: usize) -> usize {
    if is_unspaced(chars[start]) || !chars[start..at].iter().any(|c| c.is_alphabetic()) {
        return at;
    }
    let end = at + chars[at..].iter().take_while(|c| matches!(c, '+' | '#')).count();
    let adds = chars[at..end].ends_with(&['+']);
    let joins = |c: char| is_of_run(c) || (adds && OPERANDS.contains(c));
    let ends = chars.get(end).is_none_or(|&c| !joins(c));
    if ends || end - at > 1 { end } else { at }
}

/// Splits digits and what joins them into numbers: at commas that do not group thousands and, in what is not a single number, such as a
/// date or a version, everywhere.
fn numbers(joined: &str) -> Vec<String> {
    let parts = without_thousands(&joined.replace(SLASH, "/"));
    parts
        .split(' ')
        .filter(|part| !part.is_empty())
        .flat_map(|part| {
            let operands: Vec<&str> = part.split(['/', ':']).collect();
            let count = |c: char| part.matches(c).count();
            let one = count('/') <= 1 && (count('/') == 0 || count(':') == 0);
            if one && operands.iter().all(|operand| operand.matches('.').count() <= 1) {
                let sign = if count('/') == 1 { "/" } else { ":" };
                vec![operands.into_iter().map(plain).collect::<Vec<_>>().join(sign)]
            } else {
                part.split(['/', ':', '.']).filter(|digits| !digits.is_empty()).map(Into::into).collect()
            }
        })
        .collect()
}

/// Removes commas that group thousands, and turns others into spaces.
fn without_thousands(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut group, mut grouped) = (String::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            ',' => {
                let digits = bytes[at + 1..].iter().take(4).take_while(|b| b.is_ascii_digit()).count();
                let first = &text[at - group..at];
                let opens = (1..=3).contains(&group) && !first.starts_with('0') && !text[..at - group].ends_with('.');
                grouped = digits == 3 && (grouped || opens);
                if !grouped {
                    out.push(' ');
                }
                group = 0;
            }
            c => {
                group = if c.is_ascii_digit() { group + 1 } else { 0 };
                grouped &= c.is_ascii_digit();
                out.push(c);
            }
        }
    }
    out
}

/// A number without decimals if they are all 0, and with a 0 before its point.
fn plain(number: &str) -> String {
    let Some((whole, decimals)) = number.split_once('.') else { return number.into() };
    let whole = if whole.is_empty() { "0" } else { whole };
    if decimals.bytes().all(|b| b == b'0') { whole.into() } else { format!("{whole}.{decimals}") }
}

/// Warns of accepted answers that have no letter or digit, or lose a character that may decide.
pub(crate) fn gold_warning(items: &[Item]) -> Option<String> {
    let golds = || items.iter().flat_map(|item| item.gold.iter().map(move |gold| (item, gold)));
    let list = |found: Vec<String>| (!found.is_empty()).then(|| (found.len(), some_of(&found, NAMED)));
    let told = |(item, gold): (&Item, &String)| format!("'{gold}' of {}", item.id);
    let empty = list(golds().filter(|(_, gold)| comparable(gold).is_empty()).map(told).collect());
    let lossy = list(golds().filter(|(_, gold)| loses(gold)).map(told).collect());
    let all = [
        empty.map(|(n, some)| format!("{n} without a letter or digit match nothing ({some})")),
        lossy.map(|(n, some)| format!("{n} are compared without signs that may decide ({some})")),
    ];
    let all: Vec<String> = all.into_iter().flatten().collect();
    (!all.is_empty()).then(|| format!("of the accepted answers, {}", all.join(", and ")))
}

/// Whether an accepted answer loses a character that may decide.
fn loses(gold: &str) -> bool {
    let kept = comparable(gold);
    let count = |text: &str, c: char| text.chars().filter(|&other| other == c).count();
    // A plus before a number decides nothing, nor does one before its power of ten.
    let gold = without_exponent_plus(gold.trim().trim_start_matches('+'));
    let gold = gold.as_str();
    let minus = (gold.starts_with(MINUS) && !kept.starts_with('-'))
        || gold.ends_with(MINUS)
        || count(gold, '−') > count(&kept, '-')
        || subtracts(gold);
    !kept.is_empty() && (minus || DECISIVE.chars().any(|c| count(gold, c) > count(&kept, c)))
}

/// Whether a sign is that of a power of ten, as in 1e-5.
fn signs_power(chars: &[char], at: usize) -> bool {
    at > 1 && matches!(chars[at - 1], 'e' | 'E') && is_digit(chars, at - 2) && is_digit(chars, at + 1)
}

/// A text without the plus in numbers such as 6.02e+23.
fn without_exponent_plus(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let kept = (0..chars.len()).filter(|&at| chars[at] != '+' || !signs_power(&chars, at));
    kept.map(|at| chars[at]).collect()
}

/// Whether a text takes something from a variable in lower case, or such a variable from something, as in 2x-3: not in B-52, 3-5 and co-op,
/// where a hyphen parts words. Of b-52 it cannot tell.
fn subtracts(text: &str) -> bool {
    let chars: Vec<char> = text.chars().collect();
    let letter = |at: usize| chars.get(at).is_some_and(|c| c.is_alphabetic());
    let variable = |at: usize| chars.get(at).is_some_and(char::is_ascii_lowercase);
    (1..chars.len()).filter(|&at| MINUS.contains(&chars[at])).any(|at| {
        let before = variable(at - 1) && !(at > 1 && letter(at - 2));
        let after = variable(at + 1) && !letter(at + 2);
        let beside = |at: usize| is_digit(&chars, at);
        !signs_power(&chars, at) && ((before && (after || beside(at + 1))) || (beside(at - 1) && after))
    })
}

/// The truth value that a number stands for; none but 0 and 1 do.
pub(crate) fn truth_of(number: f64) -> Option<bool> {
    [(0.0, false), (1.0, true)].into_iter().find(|(of, _)| *of == number).map(|(_, truth)| truth)
}

/// Whether a response that ended for this reason was cut off at a token limit: in our words, or in those of the server that wrote it. Any
/// other reason, such as `content_filter`, says nothing.
pub(crate) fn cut_off(finish_reason: &str) -> Option<bool> {
    match finish_reason.to_lowercase().as_str() {
        "length" | "max_tokens" | "max_length" | "max_output_tokens" | "token_limit" => Some(true),
        "stop" | "stop_sequence" | "end_turn" | "eos" | "eos_token" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_one_word() {
        for (text, want) in [
            ("It is 0.5 litres.", "it is 0.5 litres"),
            ("It is .5, or -.5", "it is 0.5 or -0.5"),
            ("The end.5 is it, and ...5", "the end 5 is it and 5"),
            ("It is -5.", "it is -5"),
            ("\u{2212}5 and (-5) and =-5", "-5 and -5 and -5"),
            ("+5", "5"),
            ("10 - 5, 10-5, x-5, a--5, (x)-5", "10 5 10 5 x 5 a 5 x 5"),
            ("5%-10% of B-52", "5 10 of b 52"),
            ("$5, 5%, 5 €, -$5, $-5, $5-$10, $5$-$10$", "5 5 5 -5 -5 5 10 5 10"),
            ("2/7 or 2⁄7", "2/7 or 2/7"),
            ("and/or 2 / 7", "and or 2 7"),
            ("12:30, Answer:5", "12:30 answer 5"),
            ("1,000 and 1,234,567.5", "1000 and 1234567.5"),
            ("1,2,3 and 0,500 and 1912,100 and 3,1415", "1 2 3 and 0 500 and 1912 100 and 3 1415"),
            ("0.5,0.7", "0.5 0.7"),
            ("1.234,567", "1.234 567"),
            ("5.0 and $2.50 and 5.", "5 and 2.50 and 5"),
            ("1e-5, 1E+05, -2.0e-03 and 1e5", "1e-5 1e5 -2e-3 and 1e5"),
            ("1e-x, 2e-3a and e-5", "1e x 2e 3a and e 5"),
            ("08.05.1945 or 8/5/1945 or 1945-05-08", "08 05 1945 or 8 5 1945 or 1945 05 08"),
            ("5km, 0.5km, 12:30pm, 7th", "5km 0.5km 12:30pm 7th"),
            ("2+2=4", "2 2 4"),
            ("**5**-**10**, _5_", "5 10 5"),
            ("\u{2013}5, 1945\u{2013}1950", "-5 1945 1950"),
            ("气温是-5度, 答案是\u{ff0d}3.5, 净亏-$5, 是.5", "气 温 是 -5 度 答 案 是 -3.5 净 亏 -5 是 0.5"),
            ("5月-10月, 歼-20, พ.ศ.2500, .5/.6", "5 月 10 月 歼 20 พ ศ 2500 0.5 0.6"),
            ("5입니다, Paris입니다, 5월", "5 입니다 paris 입니다 5 월"),
            ("10\u{202f}000, 1\u{a0}234, 5\u{a0}km", "10000 1234 5 km"),
            ("问题3：42, 100，200，300, 2．5", "问 题 3 42 100 200 300 2 5"),
            ("１，０００ ３．５ １２：３０ －５ $１", "1000 3.5 12:30 -5 1"),
            ("-٥ ٣٫٥ ١٬٠٠٠ ๑๕", "-5 3.5 1000 15"),
        ] {
            assert_eq!(comparable(text), want, "{text}");
        }
    }

    #[test]
    fn words_keep_what_ends_them_and_lose_the_rest() {
        for (text, want) in [
            ("I would use C++, or C#!", "i would use c++ or c#"),
            ("使用C#语言 C＃と C＋＋です", "使 用 c# 语 言 c# と c++ で す"),
            ("東京+大阪, #东京#, x+(y), x＋（y）, C+.", "東 京 大 阪 东 京 x y x y c+"),
            ("|C#|A+|, C#(.NET 8), $A+$", "c# a+ c# net 8 a+"),
            ("C++17, a+b, 100+, # Title", "c++ 17 a b 100 title"),
            ("I\u{2019}m in New-York (e.g.)", "i m in new york e g"),
            ("H2O, H₂O, ½, ÄPFEL, 東京24区, 3個。", "h2o h₂o ½ äpfel 東 京 24 区 3 個"),
            ("?!", ""),
        ] {
            assert_eq!(comparable(text), want, "{text}");
        }
    }

    #[test]
    fn golds_that_lose_what_decides_are_warned_of() {
        let item = |gold: &str| {
            let line = serde_json::json!({"id": "a", "prompt": "q", "gold": [gold]}).to_string();
            Item::parse(&line, 1, false).unwrap()
        };
        let warned = |gold: &str| gold_warning(&[item(gold)]).unwrap_or_default();
        for gold in ["x^2", "a > b", "- 5", "100+", "Cl-", "3 − x", "A∪B", "x⁻¹", "ｘ＝２", "2x-3", "3-x", "a-b"]
        {
            assert!(warned(gold).contains("1 are compared without signs"), "{gold}: {}", warned(gold));
        }
        assert!(item(" ").gold.is_empty(), "a blank one is none");
        for gold in ["?", "+"] {
            assert!(warned(gold).contains("1 without a letter or digit match nothing"), "{gold}: {}", warned(gold));
        }
        for gold in [
            "Paris",
            "St. John's",
            "-5",
            "\u{2212}5",
            "+5",
            "5%",
            "$5",
            "2/7",
            "1,440",
            "C++",
            "C#",
            "twenty-six",
            "AT&T",
            "km/h",
            "1e-5",
            "6.02e+23",
            "B-52",
            "3-5",
            "co-op",
            "2024-05-01",
        ] {
            assert_eq!(warned(gold), "", "{gold}");
        }
        assert_eq!(gold_warning(&[]), None);
    }
}
