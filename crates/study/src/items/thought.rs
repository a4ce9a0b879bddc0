//! What an answer says, apart from what the model thought before it.

use headtemper_engine::{Engine, Input, Message, THOUGHTS, opens_thought};

/// How thoughts stand in answers. Those that items bring open a thought themselves, if they hold one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Thoughts {
    /// The prompt opens it.
    pub(crate) by_prompt: bool,
}

impl Thoughts {
    /// In answers to prompts that a chat template writes: those of some models, such as Qwen3.5, end within a thought.
    pub(crate) fn of(engine: &Engine) -> Self {
        let prompt = engine.render(&[Message::user("?")]).ok().flatten();
        Self { by_prompt: prompt.is_some_and(|prompt| opens_thought(&prompt)) }
    }

    /// In answers to an input, given what the chat template does. Token ids are taken to open none.
    pub(crate) fn after(self, input: &Input) -> Self {
        match input {
            Input::Prompt(_) | Input::Messages(_) => self,
            Input::Raw(text) => Self { by_prompt: opens_thought(text) },
            Input::Ids(_) => Self::default(),
        }
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

    /// Whether an answer ends within a thought; an empty one does not.
    pub(crate) fn holds(self, answer: &str) -> bool {
        !answer.trim().is_empty() && self.said(answer).is_none()
    }
}

fn after_end(answer: &str) -> Option<&str> {
    THOUGHTS.iter().find_map(|(_, end)| answer.rsplit_once(end)).map(|(_, said)| said)
}

fn opens(answer: &str) -> bool {
    THOUGHTS.iter().any(|(start, _)| answer.trim_start().starts_with(start))
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
    fn a_prompt_may_open_the_thought() {
        assert!(opens_thought("<|im_start|>assistant\n<think>\n") && !opens_thought("<think>\n\n</think>\n\n"));
        let (own, prompted) = (Thoughts::default(), Thoughts { by_prompt: true });
        let answers = ["Lyon?", "No.</think>Paris.", "<think>Rome", "", "Oh.</think>\n"];
        assert_eq!(answers.map(|answer| prompted.said(answer)), [None, Some("Paris."), None, None, Some("\n")]);
        assert_eq!(answers.map(|answer| own.said(answer)), [Some("Lyon?"), Some("Paris."), None, Some(""), Some("\n")]);
        assert_eq!(answers.map(|answer| own.holds(answer)), [false, false, true, false, false]);
        assert_eq!(answers.map(|answer| prompted.holds(answer)), [true, false, true, false, false]);
        let raw = |text: &str| own.after(&Input::Raw(text.into()));
        assert_eq!((raw("Hm? <think>\n"), raw("Hm?")), (prompted, own));
        assert_eq!((prompted.after(&Input::Ids(vec![1])), prompted.after(&Input::Prompt("?".into()))), (own, prompted));
        assert_eq!(answers.map(|answer| prompted.says(answer)), [false, true, false, false, false]);
        assert_eq!(told_thoughts(0), None);
        assert!(told_thoughts(2).unwrap().starts_with("2 answers end within a thought and say nothing:"));
    }
}
