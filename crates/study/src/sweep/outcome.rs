//! What a sweep did to the answers, arm by arm.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use headtemper_engine::FinishReason;
use headtemper_hook::{HeadRef, Positions};
use headtemper_stats::mean;
use serde::{Deserialize, Serialize};

use super::{
    asymmetry::Stance,
    compared::{Compared, PerOutcome},
    mark::Mark,
};
use crate::{RandomFrom, Role, Row, store::nan::number};

/// Arms whose shares of cut-off answers differ from the reference's by more than this are not compared: a cut-off answer can look wrong, or
/// lose its hedge, and is as long as the limit. Nor are those whose shares of missing verdicts do: a judge's refusals are not drawn by lot.
/// A tempered arm is not compared either if less than this is more than chance.
pub const UNEQUAL_SHARES: f64 = 0.02;

/// The reason given in warnings about cut-off answers.
pub(crate) const OF_CUT_OFF: &str = "a cut-off answer can look wrong, or lose its hedge";

/// All that a sweep found: `sweep.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcomes {
    /// `sweep/v1`.
    pub schema: String,
    /// The limit on new tokens.
    pub max_new_tokens: usize,
    /// How many items every arm answered, once per seed.
    pub items: usize,
    /// How many prompts the items have, or how many groups, if they are grouped: items of one prompt or group are one unit of a comparison.
    pub prompts: usize,
    /// The field that they are grouped by, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub groups: Option<String>,
    /// The seeds.
    pub seeds: Vec<u64>,
    /// The temperature that answers were drawn at; 0 for greedy ones, and in sweeps of earlier versions, which do not say it.
    #[serde(default)]
    pub temperature: f64,
    /// The language model that judged the answers, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judge: Option<String>,
    /// What it was asked for: `coverage`, `delivery`, `rubric`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<String>,
    /// The axes along which it gave levels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub axes: Vec<String>,
    /// What a reader must know about the judging.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub judge_warnings: Vec<String>,
    /// What the p-values are made from.
    pub flips: Flips,
    /// What another seed alone changes in the reference; null if there is one seed.
    pub seed_floor: Option<SeedFloor>,
    /// The reference's accuracy under each of the seeds; null where no answer can be judged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accuracy_by_seed: Vec<Option<f64>>,
    /// One entry per head set, in the order asked for.
    pub tables: Vec<SweepTable>,
    /// The arms of the random head sets.
    pub random: Vec<ArmOutcome>,
    /// Which heads those were drawn from; null if some were drawn from all layers and some from the same.
    pub random_from: Option<RandomFrom>,
    /// Answers that the end of the model's context cut off, before the limit on new tokens.
    #[serde(default)]
    pub at_context: usize,
    /// Answers that end within a thought, and say nothing.
    #[serde(default)]
    pub within_thought: usize,
    /// Arms, and seeds as `seed N`, whose rows lie in the same directory but are in no table here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elsewhere: Vec<String>,
}

/// The sign flips behind the p-values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flips {
    /// The most flips per test; if few items differ there are fewer, and then all are tried.
    pub at_most: usize,
    /// Their seed.
    pub seed: u64,
    /// How many arms the family-wise p-values are corrected for.
    pub family: usize,
}

/// What sweeps of earlier versions do not say.
/// The outcomes of a sweep over one set of heads.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SweepTable {
    /// The heads, such as `L7H6 L20H3`; long sets by number and content.
    pub set: String,
    /// The heads.
    pub heads: Vec<HeadRef>,
    /// The tokens at which they are tempered: `all`, or such as `response` or `window:4..9`.
    #[serde(default)]
    pub positions: Positions,
    /// The limit on new tokens.
    pub max_new_tokens: usize,
    /// The reference, the controls, and the set at every λ in the order asked for.
    pub arms: Vec<ArmOutcome>,
    /// What random sets of the same size do at each λ; none if none were asked for.
    pub bands: Vec<Band>,
}

/// The outcomes of one arm. Shares are of all its answers; what cannot be judged is null.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ArmOutcome {
    /// The arm's name.
    pub variant: String,
    /// What it is for.
    pub role: Role,
    /// λ of the tempered heads.
    pub lambda: f64,
    /// Answers.
    pub n: usize,
    /// Share of correct answers among the items that have accepted answers.
    #[serde(deserialize_with = "number")]
    pub accuracy: f64,
    /// Share of answers without a hedge.
    #[serde(deserialize_with = "number")]
    pub assertion_rate: f64,
    /// Assertion rate among wrong answers minus among right ones.
    pub assertion_asymmetry: Option<f64>,
    /// Mean length in tokens.
    #[serde(deserialize_with = "number")]
    pub mean_tokens: f64,
    /// Mean level along each axis of a judge's, over the answers that it gave one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, Option<f64>>,
    /// Answers of which it is not known what the outcome needs: a verdict is missing, or an empty answer is neither asserted nor hedged.
    /// None if no judge was asked and no answer is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unjudged: Option<PerOutcome<usize>>,
    /// Outcomes that are not compared because that is so more or less often than in the reference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unequally_judged: Vec<String>,
    /// Log-probability per token in nats, under the tempered model, averaged over all tokens.
    #[serde(deserialize_with = "number")]
    pub mean_logprob: f64,
    /// Share of answers that were cut off.
    #[serde(deserialize_with = "number")]
    pub truncated: f64,
    /// Share of answers that differ from the reference's.
    #[serde(deserialize_with = "number")]
    pub changed: f64,
    /// Answers in which its positions have a token; the others are those of the untouched model.
    pub touched: usize,
    /// Why it is not compared with the reference, if it is not.
    pub withheld: Option<String>,
    /// How it differs from the reference, item by item.
    pub difference: PerOutcome<Option<Difference>>,
}

impl ArmOutcome {
    /// Whether an outcome is not compared though it could be: because of what was cut off, or of verdicts that are missing.
    pub(crate) fn withholds(&self, which: Compared<'_>) -> bool {
        self.withheld.is_some() || self.unequally_judged.contains(&which.name())
    }

    /// Answers for which a verdict is missing that the outcome needs.
    pub(crate) fn unjudged(&self, which: Compared<'_>) -> usize {
        self.unjudged.as_ref().and_then(|unjudged| unjudged.get(which)).copied().unwrap_or(0)
    }
}

/// A difference from the reference. The seeds of an item, those for which both are known, are averaged first. Units are items, or prompts where items share them: answers to
/// one prompt are no more independent than answers under several seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Items that can be compared: those with a seed for which both are known.
    pub items: usize,
    /// Those of them that differ.
    pub differing: usize,
    /// Mean difference.
    pub mean: f64,
    /// Lower end of its 95 % interval; null if there is none, because no item differs or all differ by the same amount.
    #[serde(deserialize_with = "number")]
    pub low: f64,
    /// Upper end of its 95 % interval; null likewise.
    #[serde(deserialize_with = "number")]
    pub high: f64,
    /// Sign-flip p, for this arm alone.
    #[serde(deserialize_with = "number")]
    pub p: f64,
    /// The same, corrected for every tempered arm of the sweep.
    pub p_max: Option<f64>,
    /// How it compares with random head sets; none where there are none.
    pub random: Option<BesideRandom>,
}

/// A difference beside those of random head sets at the same λ, with as many heads of each kind. A random set that is not compared, because
/// it was cut off more or less often than the reference, counts as one that differs as much.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BesideRandom {
    /// How many random sets there are.
    pub sets: usize,
    /// How many of them differ as much.
    pub reach: usize,
    /// Share of the sets that differ as much, the arm's own set included.
    pub p: f64,
    /// The same, corrected for looking at every arm of the sweep: how often at least one of as many sets as are tempered, taken from these
    /// and the random ones together, stands out as far at any λ; times the number of ways in which sets are alike.
    pub p_max: f64,
    /// How many random sets it takes for a `p_max` of 0.05; 0 in files of earlier versions.
    #[serde(default)]
    pub enough: usize,
}

/// What random head sets of one size do at one λ.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Band {
    /// λ of the random sets.
    pub lambda: f64,
    /// How many there are.
    pub sets: usize,
    /// How many of them can be compared, by outcome.
    pub compared: PerOutcome<usize>,
    /// The lowest and the highest of their mean differences to the reference.
    pub range: PerOutcome<Option<(f64, f64)>>,
}

impl Band {
    /// How many of its sets are not compared by an outcome.
    pub(crate) fn lacking(&self, which: Compared<'_>) -> usize {
        self.sets - self.compared.get(which).copied().unwrap_or(0).min(self.sets)
    }
}

/// What another seed alone changes: answers of the reference under one seed against those under another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SeedFloor {
    /// Pairs of seeds.
    pub pairs: usize,
    /// Share of answers that differ, averaged over the pairs.
    pub changed: f64,
    /// The largest |difference| of two seeds' means.
    pub largest: PerOutcome<Option<f64>>,
}

impl SweepTable {
    /// Where its heads are tempered; none if at every token.
    pub fn at(&self) -> Option<Positions> {
        (self.positions != Positions::All).then_some(self.positions)
    }

    /// The heads, with where they are tempered if that is not at every token.
    pub fn name(&self) -> String {
        self.at().map_or_else(|| self.set.clone(), |at| format!("{} at {at}", self.set))
    }
}

impl Outcomes {
    /// The outcomes that arms may be compared by.
    pub fn compared(&self) -> impl Iterator<Item = Compared<'_>> {
        Compared::all(&self.axes)
    }

    /// The arms of all sets, each once: the reference and the controls come first.
    pub fn arms(&self) -> impl Iterator<Item = (&SweepTable, &ArmOutcome)> {
        let mut seen = BTreeSet::new();
        let all = self.tables.iter().flat_map(|table| table.arms.iter().map(move |arm| (table, arm)));
        all.filter(move |(_, arm)| arm.role == Role::Tempered || seen.insert(arm.variant.as_str()))
            .filter(|(_, arm)| arm.role != Role::Random)
    }

    /// The control, if there is one; of several, the one that changes most.
    pub fn control(&self) -> Option<&ArmOutcome> {
        let controls = self.arms().map(|(_, arm)| arm).filter(|arm| arm.role == Role::Control);
        controls.reduce(|most, arm| if arm.changed > most.changed { arm } else { most })
    }

    /// Where the heads of all tables are tempered, such as `response` or `window:4..9`; none if at every token, or if it is not the same
    /// in all.
    pub fn positions(&self) -> Option<Positions> {
        let first = self.tables.first()?.at();
        first.filter(|_| !self.in_places())
    }

    /// Whether some tables are of other positions than others.
    pub fn in_places(&self) -> bool {
        self.tables.windows(2).any(|pair| pair[0].positions != pair[1].positions)
    }

    /// A table's heads, with where they are tempered if tables differ in that.
    pub fn told<'a>(&self, table: &'a SweepTable) -> Cow<'a, str> {
        if self.in_places() { table.name().into() } else { table.set.as_str().into() }
    }

    /// How many head sets are tempered.
    pub fn sets(&self) -> usize {
        self.tables.iter().map(|table| &table.set).collect::<BTreeSet<_>>().len()
    }
}

/// The values that arms are compared by: one per answer, `[seed * items + item]`; NaN where it is not known. No answer has an asymmetry, so
/// its values only say whether the answer can be judged.
pub(crate) type Values = PerOutcome<Vec<f64>>;

/// The answers of one arm, in the order `[seed * items + item]`.
#[derive(Clone, Copy)]
pub(crate) struct Marked<'a> {
    pub(crate) rows: &'a [Row],
    pub(crate) marks: &'a [Mark],
}

/// The outcome of one arm by itself; its values for the comparison; and the stance of each answer. `reference` holds the reference's rows,
/// in the same order as the arm's.
pub(crate) fn outcome(
    (variant, lambda, role): (&str, f64, Role),
    Marked { rows, marks }: Marked<'_>,
    axes: &[String],
    reference: Option<&[Row]>,
) -> (ArmOutcome, Values, Vec<Stance>) {
    let share = |hits: usize, of: usize| if of == 0 { f64::NAN } else { hits as f64 / of as f64 };
    let rate = |hits: &mut dyn Iterator<Item = bool>| {
        let (mut of, mut held) = (0, 0);
        hits.for_each(|hit| (of, held) = (of + 1, held + usize::from(hit)));
        share(held, of)
    };
    let asserted_where = |wanted: bool| {
        let rate = rate(&mut marks.iter().filter(|mark| mark.right == Some(wanted)).filter_map(|mark| mark.asserted));
        rate.is_finite().then_some(rate)
    };
    let tokens: usize = rows.iter().map(|row| row.n_tokens).sum();
    let logprob: f64 = rows.iter().map(|row| row.sum_logprob).sum();
    let changed = |reference: &[Row]| {
        rows.iter().zip(reference).filter(|(row, other)| row.response_ids != other.response_ids).count()
    };
    let known = |of: &mut dyn Iterator<Item = Option<f64>>| of.map(|x| x.unwrap_or(f64::NAN)).collect::<Vec<f64>>();
    let number = |hit: Option<bool>| hit.map(|hit| f64::from(u8::from(hit)));
    let stances: Vec<Stance> = marks.iter().map(|mark| mark.right.zip(mark.asserted)).collect();
    let level = |axis: usize| marks.iter().map(move |mark| mark.levels[axis]);
    let values = PerOutcome {
        accuracy: known(&mut marks.iter().map(|mark| number(mark.right))),
        assertion_rate: known(&mut marks.iter().map(|mark| number(mark.asserted))),
        assertion_asymmetry: known(&mut stances.iter().map(|stance| stance.map(|_| 0.0))),
        mean_tokens: known(&mut rows.iter().map(|row| Some(row.n_tokens as f64))),
        scores: axes.iter().enumerate().map(|(at, axis)| (axis.clone(), known(&mut level(at)))).collect(),
    };
    let mean_level = |at: usize| {
        let known: Vec<f64> = level(at).flatten().collect();
        (!known.is_empty()).then(|| mean(&known))
    };
    let arm = ArmOutcome {
        variant: variant.into(),
        role,
        lambda,
        n: rows.len(),
        accuracy: rate(&mut marks.iter().filter_map(|mark| mark.right)),
        assertion_rate: rate(&mut marks.iter().filter_map(|mark| mark.asserted)),
        assertion_asymmetry: asserted_where(false).zip(asserted_where(true)).map(|(wrong, right)| wrong - right),
        mean_tokens: if rows.is_empty() { f64::NAN } else { tokens as f64 / rows.len() as f64 },
        scores: axes.iter().enumerate().map(|(at, axis)| (axis.clone(), mean_level(at))).collect(),
        unjudged: None,
        unequally_judged: Vec::new(),
        mean_logprob: if tokens == 0 { f64::NAN } else { logprob / tokens as f64 },
        truncated: rate(&mut rows.iter().map(|row| row.finish_reason == FinishReason::Length)),
        changed: reference.map_or(f64::NAN, |reference| share(changed(reference), rows.len())),
        touched: rows.iter().filter(|row| row.touched).count(),
        withheld: None,
        difference: PerOutcome::default(),
    };
    (arm, values, stances)
}
