//! Finished answers, and what is known of each.

use headtemper_engine::{Encoded, Engine, FinishReason};
use serde_json::{Map, Value};

use super::result::GatedRow;
use crate::{
    GoldRule, Grade, Grader, Item, Result, Row,
    capture::{encode_answered, encode_one},
    items::thought::Thoughts,
};

/// Items with their answers, the tokens of both, and what is known of them.
pub(super) struct Answers {
    pub(super) items: Vec<Item>,
    pub(super) encoded: Vec<Encoded>,
    pub(super) known: Vec<Known>,
    /// Answers that say nothing, which are left out: they are empty, or end within a thought.
    pub(super) silent: usize,
}

/// What an item says of its answer cannot be, for what else is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Contradicts {
    /// By its accepted answers.
    Gold,
    /// By what it says elsewhere; it has no accepted answers.
    Itself,
}

/// What is known of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    /// Whether it was generated here.
    pub(super) generated: bool,
    /// Why it ended.
    pub(super) finish_reason: Option<FinishReason>,
    /// Whether it is right.
    pub(super) correct: Option<bool>,
    /// Whether it hedges.
    pub(super) hedged: Option<bool>,
    /// What contradicts its item where that says whether it is right.
    pub(super) contradicts: Option<Contradicts>,
    /// Whether its item contradicts the lexicon.
    pub(super) lexicon_contradicts: bool,
}

impl Answers {
    /// The items with their answers; those generated here keep their very tokens.
    pub(super) fn of(engine: &Engine, items: &[Item], rows: &[Row], lexicon: Option<&Grader>) -> Result<Self> {
        let of_prompts = Thoughts::of(engine);
        let mut rows = rows.iter();
        let mut out = Self { items: Vec::new(), encoded: Vec::new(), known: Vec::new(), silent: 0 };
        for item in items {
            let mut item = item.clone();
            let mut row = None;
            let encoded = if let Some(brought) = item.response.as_deref() {
                if !Thoughts::default().says(brought) {
                    out.silent += 1;
                    continue;
                }
                encode_one(engine, &item, Some(brought))?
            } else {
                let written = rows.next().expect("every item without an answer was given one");
                if !of_prompts.after(&item.input).says(&written.response) || written.response_ids.is_empty() {
                    out.silent += 1;
                    continue;
                }
                let encoded = encode_answered(engine, &item, &written.response_ids)?;
                item = item.answered_by(written);
                row = Some(written);
                encoded
            };
            out.known.push(known(&item, row, lexicon));
            out.items.push(item);
            out.encoded.push(encoded);
        }
        Ok(out)
    }

    /// How many answers satisfy this.
    pub(super) fn count(&self, is: impl Fn(&Known) -> bool) -> usize {
        self.known.iter().filter(|known| is(known)).count()
    }

    /// Every answer as the gate lets it out.
    pub(super) fn gated(&self, p: &[f64], seen: &[bool], prefix: &str, threshold: f64) -> Vec<GatedRow> {
        let of = |(((item, known), &p), &seen_in_training): (((&Item, &Known), &f64), &bool)| GatedRow {
            seen_in_training,
            ..gated(item, *known, p, prefix, p < threshold)
        };
        self.items.iter().zip(&self.known).zip(p).zip(seen).map(of).collect()
    }
}

/// An answer as the gate lets it out.
fn gated(item: &Item, known: Known, p: f64, prefix: &str, prefixed: bool) -> GatedRow {
    let plain = item.response.clone().unwrap_or_default();
    let hedged = known.hedged.unwrap_or(false);
    let label = |hedged| known.correct.map(|correct| Grade { correct, hedged }.label().to_string());
    GatedRow {
        id: item.id.clone(),
        item: brought(item),
        response: if prefixed { with_prefix(&plain, prefix) } else { plain.clone() },
        plain_response: plain,
        finish_reason: known.finish_reason,
        p,
        prefixed,
        correct: known.correct,
        label: label(hedged || prefixed),
        plain_label: label(hedged),
        seen_in_training: false,
    }
}

/// An answer with a prefix before what it says, which follows any thought.
fn with_prefix(answer: &str, prefix: &str) -> String {
    let said = Thoughts::default().said(answer).unwrap_or(answer);
    // Without a thought, all of it.
    let said = if said.len() < answer.len() { said.trim_start() } else { said };
    let (thought, said) = answer.split_at(answer.len() - said.len());
    format!("{thought}{prefix}{said}")
}

/// The fields of an item that its row keeps: all but the row's own.
fn brought(item: &Item) -> Map<String, Value> {
    const OF_THE_ROW: [&str; 11] = [
        "id",
        "response",
        "response_ids",
        "plain_response",
        "finish_reason",
        "p",
        "prefixed",
        "correct",
        "label",
        "plain_label",
        "seen_in_training",
    ];
    let Value::Object(mut fields) = item.answered_json() else { return Map::new() };
    for name in OF_THE_ROW {
        fields.shift_remove(name);
    }
    fields
}

/// What is known of an answer. Accepted answers and the lexicon decide whether it is right and whether it hedges; without them, what the
/// item says of itself does (`correct`, `coverage` of at least one half, or its label). How it ended is known from the row that it was
/// generated as, or else from the item.
pub(super) fn known(item: &Item, row: Option<&Row>, lexicon: Option<&Grader>) -> Known {
    let none = Grader::by_gold(GoldRule::default());
    let grade = lexicon.unwrap_or(&none).grade(item.response.as_deref().unwrap_or_default(), &item.gold);
    let label = item.label.as_deref().and_then(Grade::of_label);
    let [correct, covered] = item.told_right();
    let said = [correct, covered, label.map(|label| label.correct)];
    let by_gold = (!item.gold.is_empty()).then_some(grade.correct);
    let by_lexicon = lexicon.map(|_| grade.hedged);
    let hedged = label.map(|label| label.hedged);
    let cut = |cut: bool| if cut { FinishReason::Length } else { FinishReason::Stop };
    Known {
        generated: row.is_some(),
        finish_reason: row.map(|row| row.finish_reason).or_else(|| item.truncated().map(cut)),
        correct: by_gold.or(said.into_iter().flatten().next()),
        hedged: by_lexicon.or(hedged),
        contradicts: match by_gold {
            Some(found) => said.contains(&Some(!found)).then_some(Contradicts::Gold),
            None => [true, false].iter().all(|&one| said.contains(&Some(one))).then_some(Contradicts::Itself),
        },
        lexicon_contradicts: by_lexicon.zip(hedged).is_some_and(|(found, said)| found != said),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(fields: &Value) -> Item {
        Item::parse(&fields.to_string(), 1, false).unwrap()
    }

    #[test]
    fn a_truth_value_is_one_however_its_json_writes_it() {
        let right = |fields: Value| known(&item(&fields), None, None).correct;
        let of = |name: &str, value: Value| right(json!({"prompt": "p", "response": "r", name: value}));
        for yes in [json!(true), json!(1), json!(1.0), json!("true"), json!("True")] {
            assert_eq!(of("correct", yes.clone()), Some(true), "{yes}");
        }
        for no in [json!(false), json!(0), json!("FALSE")] {
            assert_eq!(of("correct", no.clone()), Some(false), "{no}");
        }
        assert_eq!((of("correct", json!("maybe")), of("correct", json!(0.5))), (None, None));
        assert_eq!((of("coverage", json!(true)), of("coverage", json!(0.4))), (Some(true), Some(false)));
        assert_eq!((of("coverage", json!("0.5")), of("coverage", json!("0.4"))), (Some(true), Some(false)));
        assert_eq!((of("coverage", json!("nan")), of("coverage", json!(""))), (None, None));
    }

    fn row(text: &str, finish_reason: FinishReason) -> Row {
        serde_json::from_value(json!({
            "key": "k", "id": "x", "variant": "base", "seed": 0, "prompt": "p", "response": text,
            "finish_reason": finish_reason, "n_tokens": 1, "sum_logprob": -1.0, "response_ids": [1],
        }))
        .unwrap()
    }

    #[test]
    fn a_prefix_stands_before_what_is_said() {
        for (answer, with) in [
            ("Paris.", "Perhaps: Paris."),
            (" Paris.", "Perhaps:  Paris."),
            ("<think>Lyon?</think>\n\nParis.", "<think>Lyon?</think>\n\nPerhaps: Paris."),
            ("Lyon?</think> Paris.", "Lyon?</think> Perhaps: Paris."),
        ] {
            assert_eq!(with_prefix(answer, "Perhaps: "), with);
        }
    }

    #[test]
    fn accepted_answers_come_before_what_an_item_says_and_contradictions_are_known() {
        let lexicon = Grader::new(["perhaps"].into_iter());
        let of = |fields: Value| known(&item(&fields), None, Some(&lexicon));
        let base = json!({"prompt": "p", "response": "yes, perhaps", "gold": "yes"});
        let with = |more: Value| {
            let mut all = base.clone();
            more.as_object().unwrap().iter().for_each(|(name, value)| all[name] = value.clone());
            all
        };
        for (more, contradicted) in [
            (json!({}), [false, false]),
            (json!({"correct": true, "coverage": 0.5, "label": "hr"}), [false, false]),
            (json!({"correct": false}), [true, false]),
            (json!({"correct": true, "coverage": 0.0}), [true, false]),
            (json!({"label": "hw"}), [true, false]),
            (json!({"label": "cr"}), [false, true]),
            (json!({"label": "cw"}), [true, true]),
            (json!({"label": "french"}), [false, false]),
        ] {
            let found = of(with(more.clone()));
            assert_eq!((found.correct, found.hedged), (Some(true), Some(true)), "{more}");
            let by_gold = found.contradicts == Some(Contradicts::Gold);
            assert_eq!([by_gold, found.lexicon_contradicts], contradicted, "{more}");
        }
        // Without accepted answers and a lexicon, the item decides.
        let told = item(&json!({"prompt": "p", "response": "x", "label": "hw", "coverage": 0.5}));
        let found = known(&told, None, None);
        assert_eq!((found.correct, found.hedged), (Some(true), Some(true)));
        assert_eq!(found.contradicts, Some(Contradicts::Itself), "its label says wrong");
        let other = json!({"prompt": "p", "response": "x", "label": "cw", "correct": true});
        let found = known(&item(&other), None, None);
        assert_eq!((found.correct, found.contradicts), (Some(true), Some(Contradicts::Itself)));
        // The item cannot have said anything of an answer that was generated just now.
        let written = row("x", FinishReason::Stop);
        let found = known(&told.answered_by(&written), Some(&written), None);
        assert_eq!((found.correct, found.hedged), (None, None));
    }

    #[test]
    fn how_an_answer_ended_is_told_by_its_row_or_its_item() {
        let of = |fields: Value, row: Option<&Row>| known(&item(&fields), row, None).finish_reason;
        let cut = row("x", FinishReason::Length);
        assert_eq!(of(json!({"prompt": "p", "finish_reason": "stop"}), Some(&cut)), Some(FinishReason::Length));
        let brought = |more: Value| json!({"prompt": "p", "response": "x", "finish_reason": more});
        assert_eq!(of(brought(json!("length")), None), Some(FinishReason::Length));
        assert_eq!(of(brought(json!("stop")), None), Some(FinishReason::Stop));
        assert_eq!(of(json!({"prompt": "p", "response": "x", "truncated": true}), None), Some(FinishReason::Length));
        assert_eq!(of(brought(Value::Null), None), None);
    }

    #[test]
    fn a_gated_line_is_an_item() {
        let fields = json!({
            "id": "a", "messages": [{"role": "user", "content": "q?"}], "response": "yes", "gold": ["yes"], "label": "cw",
            "scores": {"s": 3.0}, "coverage": 0.0, "topic": "t", "p": "another", "truncated": true,
        });
        let whole = item(&fields);
        let read = |row: &GatedRow| Item::parse(&serde_json::to_string(row).unwrap(), 1, false).unwrap();
        let line = gated(&whole, known(&whole, None, None), 0.25, "Perhaps ", true);
        let back = read(&line);
        assert_eq!((&back.id, &back.input, back.response.as_deref()), (&whole.id, &whole.input, Some("Perhaps yes")));
        assert_eq!((&back.gold, &back.scores, back.label.as_deref()), (&whole.gold, &whole.scores, Some("hr")));
        assert_eq!((back.truncated(), &back.other["plain_response"]), (Some(true), &json!("yes")));
        assert_eq!(
            (&back.other["p"], &back.other["prefixed"], &back.other["topic"]),
            (&json!(0.25), &json!(true), &json!("t"))
        );
        assert_eq!((&back.other["correct"], &back.other["plain_label"]), (&json!(true), &json!("cr")));
        assert_eq!(serde_json::from_str::<GatedRow>(&serde_json::to_string(&line).unwrap()).unwrap(), line);
        // What was said of another answer is not kept for this one, and the ids are the prompt's alone.
        let asked = item(
            &json!({"input_ids": [1, 2, 3], "prompt_len": 2, "coverage": 0.0, "scores": {"s": 1.0}, "topic": "t"}),
        );
        let stop = row("yes", FinishReason::Stop);
        let written = asked.answered_by(&stop);
        let back = read(&gated(&written, known(&written, Some(&stop), None), 0.75, "Perhaps ", false));
        assert_eq!((&back.input, back.response.as_deref()), (&headtemper_engine::Input::Ids(vec![1, 2]), Some("yes")));
        assert!(back.scores.is_empty() && !back.other.contains_key("coverage") && back.other["topic"] == "t");
    }
}
