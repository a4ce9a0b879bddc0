//! What an answer says, apart from what the model thought before it.

/// What opens a thought and what ends it: in answers of Qwen3 and Qwen3.5, and of Gemma 4.
const MARKS: [(&str, &str); 2] = [("<think>", "</think>"), ("<|channel>", "<channel|>")];

/// How thoughts stand in the answers of one model. By default they open a thought themselves, if they hold one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thoughts {
    /// The prompt opens it, as the template of Qwen3.5 does.
    by_prompt: bool,
}

impl Thoughts {
    /// As the answers show: one that ends a thought which it did not open began within one, as then did all of them. Where every answer is
    /// cut off before its thought ends, nothing shows it.
    pub(crate) fn of<'a>(mut answers: impl Iterator<Item = &'a str>) -> Self {
        Self { by_prompt: answers.any(|answer| after_end(answer).is_some() && !opens(answer)) }
    }

    /// What follows the last thought of an answer, all of it if it has none; nothing if it ends within a thought.
    pub(crate) fn said(self, answer: &str) -> Option<&str> {
        let said = after_end(answer).or_else(|| (!self.by_prompt).then_some(answer))?;
        (!opens(said)).then_some(said)
    }

    /// Whether an answer says anything.
    pub(crate) fn says(self, answer: &str) -> bool {
        self.said(answer).is_some_and(|said| !said.trim().is_empty())
    }

    /// How many answers end within a thought. Empty ones do not count.
    pub(crate) fn within<'a>(self, answers: impl Iterator<Item = &'a str>) -> usize {
        answers.filter(|answer| !answer.trim().is_empty() && self.said(answer).is_none()).count()
    }
}

fn after_end(answer: &str) -> Option<&str> {
    MARKS.iter().find_map(|(_, end)| answer.rsplit_once(end)).map(|(_, said)| said)
}

fn opens(answer: &str) -> bool {
    MARKS.iter().any(|(start, _)| answer.trim_start().starts_with(start))
}

/// Warns of answers that end within a thought; `so` is what becomes of them.
pub(crate) fn told_thoughts(within: usize, so: &str) -> Option<String> {
    let told = match within {
        0 => return None,
        1 => "1 answer ends".into(),
        n => format!("{n} answers end"),
    };
    Some(format!("{told} within a thought{so}: allow more new tokens, or turn thinking off"))
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
            ("<think>a</think><think>b", None),
            ("<|channel>thought\nLyon?<channel|>Paris.", Some("Paris.")),
            ("\n<think>Lyon? No,", None),
            ("<|channel>thought\nLyon", None),
            ("HTML has no <think> tag.", Some("HTML has no <think> tag.")),
            ("", Some("")),
        ] {
            assert_eq!(Thoughts::default().said(answer), rest, "{answer}");
        }
    }

    #[test]
    fn answers_show_whether_the_prompt_opened_their_thoughts() {
        let of = |answers: &[&str]| (Thoughts::of(answers.iter().copied()), answers.len());
        let within = |answers: &[&str]| of(answers).0.within(answers.iter().copied());
        assert_eq!(within(&["Paris.", "", "<think>a</think>Lyon."]), 0);
        assert_eq!(within(&["Paris.", "<think>Lyon?", ""]), 1);
        let prompted = ["Lyon?", "No.</think>Paris.", "Rome? Or"];
        assert_eq!(within(&prompted), 2);
        let thoughts = of(&prompted).0;
        assert_eq!(prompted.map(|answer| thoughts.said(answer)), [None, Some("Paris."), None]);
        assert!(thoughts.says("No.</think>Paris.") && !thoughts.says("No.</think>\n") && !thoughts.says("Lyon?"));
        assert_eq!(told_thoughts(0, ""), None);
        assert!(
            told_thoughts(2, " and say nothing")
                .unwrap()
                .starts_with("2 answers end within a thought and say nothing:")
        );
    }
}
