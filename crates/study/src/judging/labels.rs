//! From verdicts to the fields of an item. A field without a verdict is null or absent, whatever the item said before.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    Answer, Axis,
    cache::{ASSERT_HEDGE, YES_NO},
    prompts::Kind,
    questions::Raised,
    reading::{self, Missing},
};
use crate::{Grade, Item};

/// The share of claims at which an answer counts as correct.
const CORRECT: f64 = 0.5;

/// Where verdicts come from.
#[derive(Clone, Copy)]
pub(crate) struct Verdicts<'a> {
    pub(crate) answers: &'a BTreeMap<String, Answer>,
    /// Questions that got no reply, by key.
    pub(crate) failed: &'a BTreeMap<String, String>,
}

impl Verdicts<'_> {
    fn of<T: PartialEq>(&self, key: &str, read: impl Fn(&str) -> Result<T, Missing>) -> Result<T, Missing> {
        match self.answers.get(key) {
            Some(answer) => answer.verdict(read),
            None => Err(self.without_answer(key)),
        }
    }

    /// Why a question has no verdict; none if it has one.
    pub(crate) fn missing(&self, key: &str, kind: Kind) -> Option<Missing> {
        match self.answers.get(key) {
            Some(answer) => answer.missing(kind),
            None => Some(self.without_answer(key)),
        }
    }

    fn without_answer(&self, key: &str) -> Missing {
        if self.failed.contains_key(key) { Missing::Failed } else { Missing::Unasked }
    }
}

/// What was found about one item. An outer `None` means that a field was not asked for.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Which of its claims or accepted answers it covers.
    pub(crate) coverage: Option<Coverage>,
    /// Whether it hedges.
    pub(crate) hedged: Option<Result<bool, Missing>>,
    /// One per axis.
    pub(crate) scores: Vec<Result<u8, Missing>>,
}

/// What an item covers.
#[derive(Debug)]
pub(crate) enum Coverage {
    /// It has neither claims nor accepted answers.
    Nothing,
    /// Verdicts on each of its claims, or one on its accepted answers together.
    Of(Kind, Vec<Result<bool, Missing>>),
}

impl Coverage {
    /// The share of claims that are made; none if any verdict is missing, since a share of the rest would be another number.
    pub(crate) fn share(&self) -> Option<f64> {
        let Self::Of(_, verdicts) = self else { return None };
        let made = verdicts.iter().copied().collect::<Result<Vec<bool>, Missing>>().ok()?;
        Some(made.iter().filter(|made| **made).count() as f64 / made.len() as f64)
    }
}

impl Found {
    /// Collects the verdicts on an item.
    pub(crate) fn new(raised: &Raised, verdicts: Verdicts<'_>, covers: bool) -> Self {
        let claim = |key: &String| verdicts.of(key, |text| reading::word(text, YES_NO)).map(|index| index == 0);
        let coverage = match &raised.coverage {
            _ if !covers => None,
            None => Some(Coverage::Nothing),
            Some((kind, keys)) => Some(Coverage::Of(*kind, keys.iter().map(claim).collect())),
        };
        let delivered = |key: &String| verdicts.of(key, |text| reading::word(text, ASSERT_HEDGE));
        let hedged = raised.delivery.as_ref().map(|key| delivered(key).map(|index| index == 1));
        let score = |key: &Option<String>| match key {
            Some(key) => verdicts.of(key, reading::level),
            None => Err(Missing::Unasked),
        };
        Self { coverage, hedged, scores: raised.scores.iter().map(score).collect() }
    }

    /// Whether the answer is right; none if that was not asked, or a verdict is missing.
    pub(crate) fn correct(&self) -> Option<bool> {
        Some(self.coverage.as_ref()?.share()? >= CORRECT)
    }

    /// Whether it was asked what the answer covers, and a verdict is missing.
    pub(crate) fn lacks_coverage(&self) -> bool {
        matches!(self.coverage, Some(Coverage::Of(..))) && self.correct().is_none()
    }

    /// Whether the item was asked for both halves of a label.
    pub(crate) fn labels(&self) -> bool {
        self.coverage.is_some() && self.hedged.is_some()
    }

    /// The label; none if either half is missing.
    pub(crate) fn label(&self) -> Option<&'static str> {
        Some(Grade { correct: self.correct()?, hedged: self.hedged?.ok()? }.label())
    }

    /// Whether an old label may stay if only one half of a label was asked for: it may if that half agrees with it. Labels of another kind
    /// than the judge's may always stay.
    pub(crate) fn bears_out(&self, label: &str) -> bool {
        let Some(old) = Grade::of_label(label) else { return true };
        (self.coverage.is_none() || self.correct() == Some(old.correct))
            && self.hedged.is_none_or(|hedged| hedged.ok() == Some(old.hedged))
    }

    /// The label where one half of it was asked for now, and the item has the other from an earlier judging.
    fn other_half(&self, item: &Item) -> Option<String> {
        let hedges = |verbal: &str| ASSERT_HEDGE.iter().position(|&one| one == verbal).map(|at| at == 1);
        let (correct, hedged) = match (&self.coverage, self.hedged) {
            (Some(_), None) => (self.correct()?, item.other.get("verbal").and_then(Value::as_str).and_then(hedges)?),
            (None, Some(hedged)) => (item.told_right()[0]?, hedged.ok()?),
            _ => return None,
        };
        Some(Grade { correct, hedged }.label().into())
    }

    /// The item with what was found.
    pub(crate) fn put(&self, item: &Item, axes: &[Axis]) -> Item {
        let mut item = item.clone();
        let mut judge = Counted::default();
        if let Some(coverage) = &self.coverage {
            let share = coverage.share();
            item.other.insert("coverage".into(), json!(share));
            item.other.insert("correct".into(), json!(share.map(|share| share >= CORRECT)));
            if let Coverage::Of(kind, verdicts) = coverage {
                for verdict in verdicts {
                    judge.count(verdict);
                }
                let name = if *kind == Kind::Coverage { "claims" } else { "accepted" };
                let each = verdicts.iter().map(|verdict| json!(verdict.ok())).collect();
                judge
                    .verdicts
                    .insert(name.into(), if *kind == Kind::Coverage { Value::Array(each) } else { each[0].clone() });
            }
        }
        if let Some(hedged) = &self.hedged {
            judge.count(hedged);
            let verbal = hedged.ok().map(|hedged| ASSERT_HEDGE[usize::from(hedged)]);
            item.other.insert("verbal".into(), json!(verbal));
        }
        if self.labels() {
            item.label = self.label().map(String::from);
        } else {
            let own = item.label.take().filter(|label| self.bears_out(label));
            item.label = own.or_else(|| self.other_half(&item));
        }
        for (axis, score) in axes.iter().zip(&self.scores) {
            judge.count(score);
            match score {
                Ok(level) => item.scores.insert(axis.name.clone(), f64::from(*level)),
                Err(_) => item.scores.remove(&axis.name),
            };
        }
        item.other.insert("judge".into(), judge.json());
        item
    }

    /// How many verdicts are missing.
    pub(crate) fn missing(&self) -> usize {
        let claims = match &self.coverage {
            Some(Coverage::Of(_, verdicts)) => verdicts.iter().filter(|verdict| verdict.is_err()).count(),
            _ => 0,
        };
        let delivery = usize::from(self.hedged.is_some_and(|hedged| hedged.is_err()));
        claims + delivery + self.scores.iter().filter(|score| score.is_err()).count()
    }
}

/// The field `judge`: how many verdicts an item has, and why the others are missing.
#[derive(Default)]
struct Counted {
    known: usize,
    missing: BTreeMap<Missing, usize>,
    verdicts: Map<String, Value>,
}

impl Counted {
    fn count<T>(&mut self, verdict: &Result<T, Missing>) {
        match verdict {
            Ok(_) => self.known += 1,
            Err(why) => *self.missing.entry(*why).or_default() += 1,
        }
    }

    fn json(self) -> Value {
        let of = |why: Missing| self.missing.get(&why).copied().unwrap_or(0);
        let mut fields = json!({
            "verdicts": self.known,
            "refused": of(Missing::Refused),
            "unparsable": of(Missing::Unparsable),
            "failed": of(Missing::Failed),
            "unasked": of(Missing::Unasked),
        });
        for (name, verdict) in self.verdicts {
            fields[name] = verdict;
        }
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes() -> Vec<Axis> {
        ["a", "b"].map(|name| Axis { name: name.into(), disposition: "d".into(), means: "m".into() }).into()
    }

    fn put(found: &Found) -> Value {
        let line = concat!(
            r#"{"id":"x","prompt":"p","response":"r","label":"cw","scores":{"a":1,"b":1,"c":1},"correct":true,"#,
            r#""coverage":1,"verbal":"assert","topic":"t"}"#
        );
        found.put(&Item::parse(line, 1, false).unwrap(), &axes()).to_json()
    }

    #[test]
    fn verdicts_become_fields() {
        let claims = vec![Ok(true), Ok(false)];
        let coverage = Some(Coverage::Of(Kind::Coverage, claims));
        let item = put(&Found { coverage, hedged: Some(Ok(true)), scores: vec![Ok(4), Ok(5)] });
        assert_eq!((&item["coverage"], &item["correct"]), (&json!(0.5), &json!(true)));
        assert_eq!((&item["verbal"], &item["label"], &item["topic"]), (&json!("hedge"), &json!("hr"), &json!("t")));
        assert_eq!(item["scores"], json!({"a": 4.0, "b": 5.0, "c": 1.0}));
        assert_eq!(item["judge"]["claims"], json!([true, false]));
        let coverage = Some(Coverage::Of(Kind::Accepted, vec![Ok(false)]));
        let item = put(&Found { coverage, hedged: Some(Ok(false)), scores: vec![] });
        assert_eq!(
            (&item["coverage"], &item["label"], &item["judge"]["accepted"]),
            (&json!(0.0), &json!("cw"), &json!(false))
        );
    }

    #[test]
    fn half_a_label_takes_the_other_from_the_item_where_it_does_not_bear_out_the_label() {
        let covered = |made: bool| Some(Coverage::Of(Kind::Coverage, vec![Ok(made)]));
        let label = |found: &Found| put(found).get("label").cloned();
        for (coverage, hedged, stays) in [
            (covered(false), None, Some("cw")),
            (covered(true), None, Some("cr")),
            (Some(Coverage::Nothing), None, None),
            (None, Some(Ok(false)), Some("cw")),
            (None, Some(Ok(true)), Some("hr")),
            (None, Some(Err(Missing::Refused)), None),
            (None, None, Some("cw")),
        ] {
            let found = Found { coverage, hedged, scores: vec![] };
            assert_eq!(label(&found), stays.map(|label| json!(label)), "{found:?}");
            assert!(found.bears_out("french"), "what is no label of a judge is not for it to say");
        }
    }

    #[test]
    fn what_is_missing_is_never_what_the_item_said_before() {
        let lost = |why: Missing| Some(Coverage::Of(Kind::Coverage, vec![Ok(true), Err(why)]));
        let found = Found {
            coverage: lost(Missing::Refused),
            hedged: Some(Err(Missing::Unparsable)),
            scores: vec![Err(Missing::Failed), Err(Missing::Unasked)],
        };
        let item = put(&found);
        for name in ["coverage", "correct", "verbal"] {
            assert!(item.as_object().unwrap().contains_key(name) && item[name].is_null(), "{name}");
        }
        assert!(item.get("label").is_none());
        assert_eq!((&item["scores"], &item["judge"]["claims"]), (&json!({"c": 1.0}), &json!([true, null])));
        let counts = ["verdicts", "refused", "unparsable", "failed", "unasked"].map(|name| item["judge"][name].clone());
        assert_eq!(counts, [1, 1, 1, 1, 1].map(|n| json!(n)));
        assert_eq!(found.missing(), 4);
        // Half a label is no label; what was not asked for stays.
        let coverage = Some(Coverage::Of(Kind::Coverage, vec![Ok(true)]));
        let half = Found { coverage, hedged: Some(Err(Missing::Refused)), scores: vec![] };
        assert_eq!((half.label(), put(&half).get("label")), (None, None));
        let other = put(&Found { hedged: Some(Ok(false)), ..Found::default() });
        assert_eq!(
            (&other["label"], &other["verbal"], &other["correct"]),
            (&json!("cw"), &json!("assert"), &json!(true))
        );
        // One half from an earlier judging and one from now are a label.
        let asked_again = put(&Found { hedged: Some(Ok(true)), ..Found::default() });
        assert_eq!((&asked_again["label"], &asked_again["verbal"]), (&json!("hr"), &json!("hedge")));
        let wrong = Some(Coverage::Of(Kind::Coverage, vec![Ok(false)]));
        assert_eq!(put(&Found { coverage: wrong, ..Found::default() })["label"], "cw");
        let lost = put(&Found { hedged: Some(Err(Missing::Failed)), ..Found::default() });
        assert!(lost.get("label").is_none(), "{lost}");
        let nothing = Found { coverage: Some(Coverage::Nothing), hedged: Some(Ok(true)), scores: vec![] };
        assert_eq!((nothing.missing(), nothing.label(), &put(&nothing)["correct"]), (0, None, &Value::Null));
    }
}
