//! From a reply to a verdict. Anything that is not plainly one of the verdicts asked for counts as none.

use crate::items::thought::Thoughts;

/// Why there is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Missing {
    /// The judge refused.
    Refused,
    /// It said something other than what was asked for, or nothing.
    Unparsable,
    /// The question got no reply.
    Failed,
    /// The question was not asked: the budget was spent, or the rubric it needs is missing.
    Unasked,
}

/// Words that may stand before a verdict, with a colon between.
const LEADS: [&str; 6] = ["answer", "verdict", "score", "rating", "level", "reply"];

/// How a refusal begins. This only decides how a reply without a verdict is counted.
const REFUSALS: [&str; 14] = [
    "i'm sorry",
    "i am sorry",
    "sorry",
    "i apologi",
    "i can't",
    "i cannot",
    "i can not",
    "i won't",
    "i will not",
    "i'm unable",
    "i am unable",
    "i'm not able",
    "i must decline",
    "as an ai",
];

/// Which of two words a reply says, as an index.
pub(crate) fn word(reply: &str, allowed: [&str; 2]) -> Result<usize, Missing> {
    let lines = lines(reply)?;
    let (said, rest) = first_word(lines.first().ok_or(Missing::Unparsable)?);
    let is = |text: &str, which: &str| bare(text).eq_ignore_ascii_case(which);
    let Some(index) = allowed.iter().position(|word| said.eq_ignore_ascii_case(word)) else {
        return Err(no_verdict(reply));
    };
    if refuses(bare(rest)) {
        // "No, I cannot help with that" is a refusal, not a NO.
        return Err(Missing::Refused);
    }
    let other = allowed[1 - index];
    let contradicted =
        is(rest, other) || lines[1..].iter().any(|line| is(first_word(line).0, other) && is(line, other));
    if !ends_there(rest) || contradicted || denies(said, rest) || qualified(rest, &lines[1..]) {
        Err(Missing::Unparsable)
    } else {
        Ok(index)
    }
}

/// Whether what follows yes or no says the opposite and nothing else: "No, it does.", "Yes, it does not.".
fn denies(said: &str, rest: &str) -> bool {
    let clause = bare(rest).split(['.', ',', ';', ':', '!', '\n']).next().unwrap_or_default();
    let clause = clause.to_lowercase().replace('\u{2019}', "'");
    let words: Vec<&str> = clause.split_whitespace().collect();
    let (subject, negated) = match words[..] {
        [subject, verb] if verb.ends_with("n't") => (subject, true),
        [subject, _, "not"] => (subject, true),
        [subject, "does" | "do"] => (subject, false),
        _ => return false,
    };
    ["it", "this", "that", "they"].contains(&subject) && said.eq_ignore_ascii_case(if negated { "yes" } else { "no" })
}

/// The level from 1 to 5 that a reply says.
pub(crate) fn level(reply: &str) -> Result<u8, Missing> {
    let lines = lines(reply)?;
    let (said, rest) = first_word(lines.first().ok_or(Missing::Unparsable)?);
    let level = match said {
        "1" | "2" | "3" | "4" | "5" => said.as_bytes()[0] - b'0',
        _ => return Err(no_verdict(reply)),
    };
    let rest = ["/5", "/ 5", " / 5", " out of 5", " of 5"].iter().find_map(|of| rest.strip_prefix(of)).unwrap_or(rest);
    let another = |line: &str| matches!(bare(line), "1" | "2" | "3" | "4" | "5") && bare(line) != said;
    if negative(lines[0], said) || rest.starts_with('%') || qualified(rest, &lines[1..]) {
        return Err(Missing::Unparsable);
    }
    if !ends_there(rest) || rest.contains(|c: char| c.is_ascii_digit()) || lines[1..].iter().any(|line| another(line)) {
        return Err(Missing::Unparsable);
    }
    Ok(level)
}

/// The five levels that a reply describes, as its text; each must begin a line.
pub(crate) fn rubric(reply: &str) -> Result<String, Missing> {
    let lines = lines(reply)?;
    let describes = |line: &str, level: &str| {
        let (said, rest) = first_word(line);
        said == level && rest.contains(char::is_alphabetic)
    };
    if ["1", "2", "3", "4", "5"].iter().all(|level| lines.iter().any(|line| describes(line, level))) {
        Ok(lines.join("\n"))
    } else {
        Err(no_verdict(reply))
    }
}

/// What can be relied on of a reply that was cut off: it stands without its last word, which may be half of one, and also without the one
/// before, which that word may have turned round. `No` may have been to go on as `No doubt`, and `4.` as `4.5`.
pub(crate) fn relied_on(reply: &str) -> [&str; 2] {
    let first = without_last_word(reply);
    [first, without_last_word(first)]
}

fn without_last_word(text: &str) -> &str {
    text.trim_end_matches(|c: char| !c.is_alphanumeric()).trim_end_matches(char::is_alphanumeric)
}

/// How a reply without a verdict is counted.
fn no_verdict(reply: &str) -> Missing {
    if lines(reply).is_ok_and(|lines| lines.first().is_some_and(|line| refuses(bare(line)))) {
        Missing::Refused
    } else {
        Missing::Unparsable
    }
}

fn refuses(text: &str) -> bool {
    let text = text.to_lowercase().replace('\u{2019}', "'");
    REFUSALS.iter().any(|refusal| text.starts_with(refusal))
}

/// The lines that say something, without what a model thought before them.
fn lines(reply: &str) -> Result<Vec<&str>, Missing> {
    // It was still thinking when it was cut off.
    let said = Thoughts::default().said(reply).ok_or(Missing::Unparsable)?;
    Ok(said.lines().map(str::trim).filter(|line| line.contains(char::is_alphanumeric)).collect())
}

/// The first word of a line, after marks and a lead such as `Answer:`, and what follows it.
fn first_word(line: &str) -> (&str, &str) {
    let (first, rest) = split_word(line);
    let marks = &rest[..rest.len() - rest.trim_start_matches(|c: char| !c.is_alphanumeric()).len()];
    let leads = LEADS.iter().any(|lead| first.eq_ignore_ascii_case(lead));
    if leads && (marks.contains([':', '=']) || first.eq_ignore_ascii_case("level")) {
        split_word(rest)
    } else {
        (first, rest)
    }
}

fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim_start_matches(|c: char| !c.is_alphanumeric());
    text.split_at(text.find(|c: char| !c.is_alphanumeric()).unwrap_or(text.len()))
}

/// Whether a word is still a verdict, given what follows: nothing, or marks that end it. "No doubt", "no-one" and "yes/no" are not.
fn ends_there(rest: &str) -> bool {
    let mut marks = rest.chars();
    match marks.next() {
        None => true,
        Some('-' | '/' | '\'' | '\u{2019}' | '.') if marks.next().is_some_and(char::is_alphanumeric) => false,
        Some(_) => !rest.trim_start().starts_with(char::is_alphanumeric),
    }
}

/// Words that turn a verdict round, behind it or at the start of a further line.
const TURNS: [&str; 6] = ["but", "however", "actually", "wait", "though", "although"];
/// Words that take some of it back where they stand behind it.
const QUALIFIERS: [&str; 9] =
    ["except", "unless", "only", "partly", "partially", "mostly", "almost", "nearly", "somewhat"];

/// Whether what follows a verdict asks it, or takes it back: a question mark behind it, or a word such as "but", there or at the start of
/// another line.
fn qualified(rest: &str, others: &[&str]) -> bool {
    let begins = |text: &str, words: &[&str]| {
        let (word, _) = split_word(text);
        words.iter().any(|other| word.eq_ignore_ascii_case(other))
    };
    let turns = |text: &str| begins(text, &TURNS);
    rest.trim_start().starts_with('?')
        || begins(rest, &QUALIFIERS)
        || turns(rest)
        || others.iter().any(|line| turns(line))
}

/// Whether a number has a minus before it; a dash with a space behind begins an entry of a list.
fn negative(line: &str, number: &str) -> bool {
    line.find(number).is_some_and(|at| line[..at].ends_with(['-', '\u{2212}']))
}

/// A text without what surrounds its letters and digits.
fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| !c.is_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_two_words() {
        use Missing::{Refused, Unparsable};
        for (reply, verdict) in [
            ("YES", Ok(0)),
            ("Yes.", Ok(0)),
            ("**NO**", Ok(1)),
            ("no", Ok(1)),
            (" \n> `yes`\n", Ok(0)),
            ("Answer: NO", Ok(1)),
            ("**Verdict:** Yes", Ok(0)),
            ("{\"answer\": \"no\"}", Ok(1)),
            ("YES\n\nThe answer names no other city.", Ok(0)),
            ("No, the answer says Lyon. Yes would need Paris.", Ok(1)),
            ("<think>No? Yes!\nNO</think>\n\nYES", Ok(0)),
            ("", Err(Unparsable)),
            (" \n", Err(Unparsable)),
            ("...", Err(Unparsable)),
            ("Maybe", Err(Unparsable)),
            ("YES or NO", Err(Unparsable)),
            ("YES/NO", Err(Unparsable)),
            ("YES, NO", Err(Unparsable)),
            ("Yes\nNo", Err(Unparsable)),
            ("Yes, but only partly", Err(Unparsable)),
            ("YES (partially)", Err(Unparsable)),
            ("Yes?", Err(Unparsable)),
            ("Yes\n\nActually, no.", Err(Unparsable)),
            ("YES\nOnly Paris is named.", Ok(0)),
            ("Yes, the answer says so, but not in these words.", Ok(0)),
            ("No doubt it does", Err(Unparsable)),
            ("No, it does.", Err(Unparsable)),
            ("No. It does nothing of the kind.", Ok(1)),
            ("Yes. It is not only said but stressed.", Ok(0)),
            ("No, it does not.", Ok(1)),
            ("No, it doesn\u{2019}t.", Ok(1)),
            ("No, it is wrong.", Ok(1)),
            ("Yes, it does not", Err(Unparsable)),
            ("Yes, it isn't.", Err(Unparsable)),
            ("Yes. It isn't verbatim, but it says so.", Ok(0)),
            ("Yes, it does.", Ok(0)),
            ("No-one says that", Err(Unparsable)),
            ("Yesterday", Err(Unparsable)),
            ("The answer is YES", Err(Unparsable)),
            ("<think>YES, since", Err(Unparsable)),
            ("I\u{2019}m sorry, but I can't judge that.", Err(Refused)),
            ("As an AI, I do not judge.", Err(Refused)),
            ("No, I cannot help with that.", Err(Refused)),
        ] {
            assert_eq!(word(reply, ["yes", "no"]), verdict, "{reply}");
        }
        assert_eq!(word("Hedge.", ["assert", "hedge"]), Ok(1));
        assert_eq!(word("asserted", ["assert", "hedge"]), Err(Unparsable));
    }

    #[test]
    fn what_hangs_on_the_end_of_a_reply_is_not_relied_on() {
        let holds = |reply: &str, read: &dyn Fn(&str) -> Option<usize>| {
            let found = read(reply);
            found.is_some() && relied_on(reply).into_iter().all(|part| read(part) == found)
        };
        let yes_no = |text: &str| word(text, ["yes", "no"]).ok();
        for reply in ["No", "No.", "Yes, but", "NO, it", "Answer: NO", "YES\n\nThe"] {
            assert!(!holds(reply, &yes_no), "{reply}");
        }
        assert!(holds("No, the answer says Ly", &yes_no) && holds("YES\n\nThe answ", &yes_no));
        let five = |text: &str| level(text).ok().map(usize::from);
        assert!(!holds("4", &five) && !holds("4.", &five) && holds("4/5, since it as", &five));
        assert_eq!(relied_on("é"), ["", ""]);
    }

    #[test]
    fn one_of_five_levels() {
        use Missing::{Refused, Unparsable};
        for (reply, verdict) in [
            ("4", Ok(4)),
            ("**5**", Ok(5)),
            ("Score: 3/5", Ok(3)),
            ("Level 2", Ok(2)),
            ("1 out of 5.", Ok(1)),
            ("2\nIt asks nothing back.", Ok(2)),
            ("{\"score\": 4}", Ok(4)),
            ("0", Err(Unparsable)),
            ("6", Err(Unparsable)),
            ("45", Err(Unparsable)),
            ("4.5", Err(Unparsable)),
            ("3-4", Err(Unparsable)),
            ("3 - 4", Err(Unparsable)),
            ("3 or 4", Err(Unparsable)),
            ("3, perhaps 4", Err(Unparsable)),
            ("3\n4", Err(Unparsable)),
            ("-4", Err(Unparsable)),
            ("- 4", Ok(4)),
            ("4%", Err(Unparsable)),
            ("4?", Err(Unparsable)),
            ("4\n\nBut 2 for tone", Err(Unparsable)),
            ("four", Err(Unparsable)),
            ("-", Err(Unparsable)),
            ("I cannot rate this.", Err(Refused)),
        ] {
            assert_eq!(level(reply), verdict, "{reply}");
        }
    }

    #[test]
    fn five_described_levels() {
        let five = "Here it is:\n1: a\n**2**: b\n- 3. c\nLevel 4: d\n5) e";
        assert!(rubric(five).unwrap().starts_with("Here it is:\n1: a"));
        for (reply, why) in [
            ("1: a\n2: b\n3: c\n4: d", Missing::Unparsable),
            ("1: a\n2: b\n3: c\n4: d\n5:", Missing::Unparsable),
            ("I can't do that.", Missing::Refused),
        ] {
            assert_eq!(rubric(reply), Err(why), "{reply}");
        }
    }
}
