//! What an answer says, apart from what the model thought before it.

/// What opens a thought and what ends it: in answers of Qwen3 and Qwen3.5, and of Gemma 4.
const MARKS: [(&str, &str); 2] = [("<think>", "</think>"), ("<|channel>", "<channel|>")];

/// What follows the last thought of an answer, all of it if it has none; nothing if it ends within a thought.
///
/// A thought that the prompt opened, as the template of Qwen3.5 does, is known by its end alone: [`within_thought`] counts the answers that
/// do not reach it.
pub(crate) fn said(answer: &str) -> Option<&str> {
    match MARKS.iter().find_map(|(_, end)| answer.rsplit_once(end)) {
        Some((_, said)) => Some(said),
        None => (!opens(answer)).then_some(answer),
    }
}

fn opens(answer: &str) -> bool {
    MARKS.iter().any(|(start, _)| answer.trim_start().starts_with(start))
}

/// Whether an answer says anything.
pub(crate) fn says(answer: &str) -> bool {
    said(answer).is_some_and(|said| !said.trim().is_empty())
}

/// How many answers end within a thought: they open one that does not end, or end none where the prompt opened it, which others show by
/// ending one that they did not open. Empty answers do not count.
pub(crate) fn within_thought<'a>(answers: impl Iterator<Item = &'a str> + Clone) -> usize {
    let ends = |answer: &str| MARKS.iter().any(|(_, end)| answer.contains(end));
    let by_prompt = answers.clone().any(|answer| ends(answer) && !opens(answer));
    let within = |answer: &&str| !answer.trim().is_empty() && !ends(answer) && (by_prompt || opens(answer));
    answers.filter(within).count()
}

/// Warns of answers that end within a thought.
pub(crate) fn told_thoughts(within: usize) -> Option<String> {
    let told = match within {
        0 => return None,
        1 => "1 answer ends within a thought and says nothing".into(),
        n => format!("{n} answers end within a thought and say nothing"),
    };
    Some(format!("{told}: allow more new tokens, or turn thinking off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thought_is_no_answer() {
        for (answer, rest) in [
            ("Paris.", Some("Paris.")),
            ("<think>Lyon?</think>\n\nParis.", Some("\n\nParis.")),
            ("Lyon? Hm.\n</think>\nParis.", Some("\nParis.")),
            ("<think>a</think> b <think>c</think> d", Some(" d")),
            ("<|channel>thought\nLyon?<channel|>Paris.", Some("Paris.")),
            ("\n<think>Lyon? No,", None),
            ("<|channel>thought\nLyon", None),
            ("HTML has no <think> tag.", Some("HTML has no <think> tag.")),
            ("", Some("")),
        ] {
            assert_eq!(said(answer), rest, "{answer}");
        }
    }

    #[test]
    fn answers_within_a_thought_are_told() {
        let within = |answers: &[&str]| within_thought(answers.iter().copied());
        assert_eq!(within(&["Paris.", "", "<think>a</think>Lyon."]), 0);
        assert_eq!(within(&["Paris.", "<think>Lyon?", ""]), 1);
        // The prompt opened the thought, as one of them shows.
        assert_eq!(within(&["Lyon?", "No.</think>Paris.", "Rome? Or"]), 2);
        assert_eq!(told_thoughts(0), None);
        assert!(told_thoughts(2).unwrap().starts_with("2 answers end within a thought and say nothing"));
    }
}
