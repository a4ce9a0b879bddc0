//! What else two cohorts differ in, whatever is compared between them: lengths, truncation and fields of the items; and what is
//! said about it.

use std::collections::{BTreeMap, BTreeSet};

use headtemper_stats::{Columns, Shuffles, Tail, cramers_v};

use crate::{
    Grade,
    attribution::FieldCheck,
    items::{
        facts::RESPONSE,
        units::{called, clustering, joined},
    },
    significance::{LEVEL, permuted},
};

/// |d| of a length above which a comparison is confounded with it.
const LENGTH_D: f64 = 0.5;
/// A smaller |d| confounds too if it is above this and shuffled labels do not give it.
const LITTLE_D: f64 = 0.2;
/// Truncation rates further apart than this confound a comparison.
const TRUNCATION_GAP: f64 = 0.1;
/// How many groups of equal size many different numbers are cut into; otherwise nearly every item would have a value of its own.
const GROUPS: usize = 5;
/// How items can say whether their responses were cut off.
pub(crate) const SAY_SO: &str = "items say it by a field finish_reason (stop or length) or truncated (true or false)";
/// Fields about the answer's end, which has a check of its own.
pub(crate) const OUTCOMES: [&str; 2] = ["finish_reason", "truncated"];

/// Fields from which a judged answer has its label.
pub(crate) const VERDICTS: [&str; 3] = ["correct", "coverage", "verbal"];

/// Whether a field says again what the labels say: verdicts do where all labels are those of judged answers.
pub(crate) fn says_the_label(field: &str, labels: &[&str]) -> bool {
    VERDICTS.contains(&field) && !labels.is_empty() && labels.iter().all(|label| Grade::of_label(label).is_some())
}

/// The lengths of two cohorts' responses or prompts, in tokens.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lengths {
    /// Mean of each, a's first.
    pub(crate) means: [f64; 2],
    /// Cohen's d.
    pub(crate) d: f64,
    /// Permutation p of |d|.
    pub(crate) p: f64,
}

impl Lengths {
    /// Whether the cohorts differ so much that heads may follow the difference.
    pub(crate) fn confound(self) -> bool {
        self.d.abs() > LENGTH_D || (self.d.abs() > LITTLE_D && self.p <= LEVEL) || self.tell_apart()
    }

    /// Whether all lengths within each cohort are equal, but differ between the two: d is 0 there, as it has no unit.
    pub(crate) fn tell_apart(self) -> bool {
        self.d == 0.0 && self.means[0] != self.means[1]
    }

    /// How far apart they are, in words.
    pub(crate) fn told(self) -> String {
        let [a, b] = self.means;
        if self.tell_apart() {
            format!("{a:.0} and {b:.0} tokens in every item")
        } else {
            format!("d = {:+.2}", self.d).replace('-', "−")
        }
    }
}

/// How the responses of two cohorts end, a's first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truncation {
    /// Responses of each that were cut off at the limit of tokens.
    pub(crate) cut: [usize; 2],
    /// Responses of each for which it is known whether they were cut off.
    pub(crate) known: [usize; 2],
}

impl Truncation {
    /// Counts them; the first `n_a` items are those of a.
    pub(crate) fn of(truncated: &[Option<bool>], n_a: usize) -> Self {
        let (a, b) = truncated.split_at(n_a);
        let count =
            |of: &[Option<bool>], which: &dyn Fn(&Option<bool>) -> bool| of.iter().filter(|cut| which(cut)).count();
        let both = |which: &dyn Fn(&Option<bool>) -> bool| [count(a, which), count(b, which)];
        Self { cut: both(&|cut| *cut == Some(true)), known: both(&Option::is_some) }
    }

    /// Whether so many more responses of one cohort than of the other were cut off that they are not comparable at their ends.
    /// Rates are over the responses for which this is known: one of unknown end does not count as whole.
    pub(crate) fn unequal(self) -> bool {
        let rate = |cohort: usize| self.cut[cohort] as f64 / self.known[cohort] as f64;
        (rate(0) - rate(1)).abs() > TRUNCATION_GAP
    }

    /// What a reader must know about them: how many responses were cut off, and for how many this is not known. `so` is added where
    /// those of one cohort were cut off more often. `n` counts all responses of each.
    pub(crate) fn told(self, [a, b]: [&str; 2], n: [usize; 2], so: &str) -> Vec<String> {
        let Self { cut: [cut_a, cut_b], known: [known_a, known_b] } = self;
        let so = if self.unequal() { so } else { "" };
        let cut = (cut_a + cut_b > 0).then(|| {
            format!("{cut_a} of {known_a} responses in {a} and {cut_b} of {known_b} in {b} were cut off at the limit of tokens{so}")
        });
        let [unknown_a, unknown_b] = [n[0] - known_a, n[1] - known_b];
        let unknown = (unknown_a + unknown_b > 0).then(|| {
            format!(
                "whether {unknown_a} of {} responses in {a} and {unknown_b} of {} in {b} were cut off is not known: {SAY_SO}",
                n[0], n[1]
            )
        });
        cut.into_iter().chain(unknown).collect()
    }
}

/// The items of two cohorts, a's first, and the shuffles of their labels.
pub(crate) struct Dealt {
    /// Items of a.
    pub(crate) n_a: usize,
    /// Items of both.
    pub(crate) items: usize,
    /// Shuffles of their labels.
    pub(crate) shuffles: Shuffles,
    /// How many shuffles are used.
    pub(crate) count: usize,
}

impl Dealt {
    pub(crate) fn labels(&self) -> Vec<bool> {
        (0..self.items).map(|place| place < self.n_a).collect()
    }

    /// Permutation p of the d of these lengths.
    pub(crate) fn p_of_lengths(&self, lengths: &[f64]) -> f64 {
        let columns = Columns::new(lengths, 1);
        let null: Vec<f64> = (0..self.count as u64).map(|k| columns.welch_d(&self.shuffles.labels(k))[0]).collect();
        permuted(columns.welch_d(&self.labels())[0], &null, Tail::TwoSided)
    }

    /// The fields of the items that go with the cohorts more than by chance, strongest first, and how many were looked at. Without
    /// shuffles, none are. Whoever has a check of its own for [`OUTCOMES`] passes over these.
    pub(crate) fn fields(
        &self,
        of_items: &[Option<&BTreeMap<String, String>>],
        passed_over: impl Fn(&str) -> bool,
    ) -> (Vec<FieldCheck>, usize) {
        if self.count == 0 {
            return (Vec::new(), 0);
        }
        let names: BTreeSet<&String> = of_items.iter().flatten().flat_map(|fields| fields.keys()).collect();
        let check = |name: &&String| -> Option<FieldCheck> {
            if passed_over(name) {
                return None;
            }
            // An item without the field is a category of its own.
            let values: Vec<Option<&String>> = of_items.iter().map(|fields| fields.as_ref()?.get(*name)).collect();
            let (categories, count) = categories(&values)?;
            let v = cramers_v(&categories, &self.labels());
            let null: Vec<f64> =
                (0..self.count as u64).map(|k| cramers_v(&categories, &self.shuffles.labels(k))).collect();
            let p = permuted(v, &null, Tail::Greater);
            Some(FieldCheck { field: (*name).clone(), values: count, cramers_v: v, p })
        };
        let mut found: Vec<FieldCheck> = names.iter().filter_map(check).collect();
        let checked = found.len();
        found.retain(|check| check.p <= LEVEL);
        found.sort_by(|x, y| y.cramers_v.total_cmp(&x.cramers_v));
        (found, checked)
    }
}

/// The category of each item by its value of a field, and how many categories there are; items without the field are a category of
/// their own. None if all items have the same value, or if values name items, as a text or whole number of its own for each does.
/// Many different numbers are cut into groups of equal size.
fn categories(values: &[Option<&String>]) -> Option<(Vec<usize>, usize)> {
    let there: Vec<&String> = values.iter().flatten().copied().collect();
    let distinct = there.iter().collect::<BTreeSet<_>>().len();
    let numbers: Option<Vec<f64>> = there.iter().map(|value| value.parse().ok()).collect();
    let fractions = numbers.as_ref().is_some_and(|numbers| numbers.iter().any(|x| x.fract() != 0.0));
    if distinct == there.len() && distinct > 1 && !fractions {
        return None;
    }
    let mut sorted = numbers.filter(|_| distinct > 2 * GROUPS).unwrap_or_default();
    sorted.sort_by(f64::total_cmp);
    // Equal numbers go into one group, that of the first of them.
    let group = |value: &String| {
        let x: f64 = value.parse().expect("all of them were");
        sorted.partition_point(|other| other.total_cmp(&x).is_lt()) * GROUPS / sorted.len()
    };
    let groups = numbered(values.iter().map(|value| value.filter(|_| !sorted.is_empty()).map(group)));
    let enough = 1 + usize::from(there.len() < values.len());
    let (categories, count) = if groups.1 > enough { groups } else { numbered(values.iter()) };
    (count > 1).then_some((categories, count))
}

/// Numbers the values in their order, and counts the different ones.
fn numbered<T: Ord>(values: impl Iterator<Item = T> + Clone) -> (Vec<usize>, usize) {
    let number: BTreeMap<T, usize> = values.clone().collect::<BTreeSet<T>>().into_iter().zip(0..).collect();
    (values.map(|value| number[&value]).collect(), number.len())
}

/// The warning that prompts of one cohort are longer; None where they are not.
pub(crate) fn told_prompts(a: &str, b: &str, lengths: Lengths) -> Option<String> {
    lengths.confound().then(|| {
        format!(
            "prompts in {a} and {b} differ in length ({}): the cohorts may be other questions, not other answers",
            lengths.told()
        )
    })
}

/// Responses that are word for word like those to other prompts or groups.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LikeResponses {
    /// How many.
    pub(crate) items: usize,
    /// How far the cohorts follow responses, with items that share a prompt or group joined ([`clustering`]).
    pub(crate) clustering: f64,
}

impl LikeResponses {
    /// How many times further than prompts or groups the cohorts may follow responses themselves before there is a warning.
    const LIKE: f64 = 1.5;

    /// For items in these units, each with the number of its response; None where it has no response.
    pub(crate) fn of(labels: &[bool], units: &[usize], responses: &[Option<usize>], strata: Option<&[usize]>) -> Self {
        let mut of_response: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (response, &unit) in responses.iter().zip(units) {
            if let &Some(response) = response {
                of_response.entry(response).or_default().insert(unit);
            }
        }
        let repeated = |response: &&Option<usize>| response.is_some_and(|response| of_response[&response].len() > 1);
        let keys = units.iter().zip(responses);
        let whole = joined(keys.map(|(&unit, &response)| [Some((false, unit)), response.map(|it| (true, it))]));
        Self { items: responses.iter().filter(repeated).count(), clustering: clustering(labels, &whole, strata) }
    }

    /// The warning that they go with the cohorts; `of_units` is how far these follow prompts or groups, and `remedy` is what helps.
    /// None where they do not.
    pub(crate) fn told(self, of_units: f64, groups: Option<&str>, remedy: &str) -> Option<String> {
        let Self { items, clustering } = self;
        (items > 0 && clustering > Self::LIKE * of_units.max(1.0)).then(|| {
            format!(
                "{items} responses are word for word those to other {}, and go with the cohorts: what they have in common \
                 widens differences of nothing {clustering:.1}-fold in variance; {remedy}",
                called(groups)
            )
        })
    }
}

/// What helps where the cohorts follow responses themselves; `compare` is what the verb does, in a word.
pub(crate) fn group_responses(groups: Option<&str>, compare: &str) -> String {
    match groups {
        None => format!("{compare} with --groups {RESPONSE}"),
        Some(field) => format!("a field that joins {field} and {RESPONSE} would group them"),
    }
}

/// The warning that a field goes with the cohorts, and what a head that follows it looks like.
pub(crate) fn told_field(field: &FieldCheck, like: &str) -> String {
    format!(
        "the field '{}' goes with the cohorts (Cramér's V {:.2}, p {:.3}): a head that follows it looks like one that {like}",
        field.field, field.cramers_v, field.p
    )
}
