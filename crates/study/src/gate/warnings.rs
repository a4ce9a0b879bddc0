//! What a reader must know before any number of a gate: one function per warning.

use headtemper_engine::Engine;

use super::{AtRandom, Contradicted, CutOff, GatedRow, answers::Answers, run::GateRun};
use crate::{
    Grade, Item,
    confounds::{SAY_SO, Truncation},
    falsify::{Outcome, word},
    items::{Systems, answer::gold_warning, cohort::label_counts},
    probe::Probe,
    sweep::outcome::OF_CUT_OFF,
    text::{count, percent, some_of},
};

/// Most other labels that a warning names.
const NAMED: usize = 6;

/// All of them except those about the model, in the order in which they are shown.
pub(super) fn warnings(
    answers: &Answers,
    settings: &GateRun<'_>,
    (seen, measured): (usize, &[GatedRow]),
    cut_off: &CutOff,
    contradicted: Contradicted,
) -> Vec<String> {
    let (all, of) = (answers.items.len(), measured.len());
    gold_warning(&answers.items)
        .into_iter()
        .chain(nothing_known(measured, answers))
        .chain(unknown_prefix(settings))
        .chain(counted_as_asserted(answers, settings))
        .chain(contradictions(contradicted))
        .chain(truncation(cut_off, of))
        .chain(
            (cut_off.unsaid > 0)
                .then(|| format!("whether {} of {of} answers were cut off is not known: {SAY_SO}", cut_off.unsaid)),
        )
        .chain((seen > 0).then(|| {
            let so = if seen == all { "what it does to them is no test" } else { "they take no part in the numbers" };
            format!("the probe was fitted on {seen} of these {all} answers, or on answers to their prompts: {so}")
        }))
        .chain(falsified(settings))
        .chain((answers.silent > 0).then(|| {
            format!("{} answers say nothing (they are empty, or end within a thought) and take no part", answers.silent)
        }))
        .collect()
}

/// A probe that its own falsification did not let pass.
fn falsified(settings: &GateRun<'_>) -> Option<String> {
    let found = settings.probe.verdict.filter(|&found| found != Outcome::Passed)?;
    Some(format!(
        "`temper falsify` says '{}' of this probe: what it does here is no evidence that it knows anything",
        word(found)
    ))
}

/// Where answers say nothing, that is the reason to give.
fn nothing_known(measured: &[GatedRow], Answers { items, silent, .. }: &Answers) -> Option<String> {
    let none = measured.iter().all(|row| row.correct.is_none()) && (*silent == 0 || !measured.is_empty());
    none.then(|| format!("no answer that the numbers would be of is known to be right or wrong: {}", no_grade(items)))
}

/// What items lack of which none can come to be known as right or wrong.
pub(super) fn no_grade(items: &[Item]) -> String {
    let labelled: Vec<_> = items.iter().filter(|item| item.label.is_some()).map(|item| item.label.clone()).collect();
    let counts = label_counts(&labelled).into_iter().filter(|(label, _)| Grade::of_label(label).is_none());
    let others: Vec<String> = counts.map(|(label, n)| format!("{label} ({n})")).collect();
    let has = if others.is_empty() { String::new() } else { format!("; they have {}", some_of(&others, NAMED)) };
    format!(
        "give items gold answers, or finished answers a coverage, correct, or one of the labels cr, cw, hr and hw{has}"
    )
}

/// Answers whose prefix every draw leaves as it is: the null says nothing about them.
pub(super) fn never_dealt(random: &AtRandom) -> Option<String> {
    (random.fixed > 0).then(|| {
        format!(
            "{} of {} asserted answers have, or lack, their prefix however prefixes are dealt, as those of no prompt with as many are prefixed \
             otherwise: what sets them apart is in the null as well, and no p shows it",
            random.fixed, random.answers
        )
    })
}

/// A prefix that the lexicon does not know as a hedge.
fn unknown_prefix(settings: &GateRun<'_>) -> Option<String> {
    settings.hedges.filter(|grader| !grader.grade(settings.prefix, &[]).hedged).map(|_| {
        format!("the lexicon does not know the prefix '{}' as a hedge; here it counts as one", settings.prefix.trim())
    })
}

/// Answers of which nothing says whether they hedge.
fn counted_as_asserted(answers: &Answers, settings: &GateRun<'_>) -> Vec<String> {
    if settings.hedges.is_some() {
        return Vec::new();
    }
    let all = answers.items.len();
    let of = |generated: bool| answers.count(|known| known.generated == generated && known.hedged.is_none());
    let told = |(n, how): (usize, &str)| {
        (n > 0)
            .then(|| format!("{n} of {all} answers {how} without a lexicon (--hedges) all of these count as asserted"))
    };
    [(of(true), "were generated here, and"), (of(false), "come without one of the labels cr, cw, hr and hw, and")]
        .into_iter()
        .filter_map(told)
        .collect()
}

/// Items that contradict what decides about their answers.
fn contradictions(Contradicted { by_gold, by_itself, by_lexicon }: Contradicted) -> Vec<String> {
    let told = |(n, said): (usize, &str)| (n > 0).then(|| format!("{} had {said}", count(n, "item")));
    [
        (by_gold, "a correct, coverage or label that the accepted answers contradict: the accepted answers count"),
        (by_itself, "a correct, coverage or label that contradict each other: the first of them counts"),
        (by_lexicon, "a label whose hedging the lexicon contradicts: the lexicon counts"),
    ]
    .into_iter()
    .filter_map(told)
    .collect()
}

/// Answers that were cut off, among those of which this is known.
fn truncation(cut_off: &CutOff, all: usize) -> Option<String> {
    let CutOff { table, known, .. } = cut_off;
    let right = (table.cr + table.hr, known.cr + known.hr);
    let wrong = (table.cw + table.hw, known.cw + known.hw);
    let of = |(cut, n): (usize, usize)| format!("{cut} of {n}");
    let all = all - cut_off.unsaid;
    let so = if (Truncation { cut: [right.0, wrong.0], known: [right.1, wrong.1] }).unequal() {
        "; right and wrong answers were not cut off alike, so that what the probe doubts, and with it before and after, may be \
         truncation"
    } else {
        ""
    };
    (cut_off.answers > 0).then(|| {
        format!(
            "{} answers ({}) were cut off at a limit of tokens, {} right and {} wrong ones: {OF_CUT_OFF}{so}",
            of((cut_off.answers, all)),
            percent(cut_off.answers as f64 / all as f64),
            of(right),
            of(wrong)
        )
    })
}

/// How answers are read differently here from those that the probe was fitted on, as far as its training file says.
pub(super) fn other_regime(probe: &Probe, engine: &Engine, items: &[Item]) -> Vec<String> {
    let Some(of) = &probe.meta.train.meta else { return Vec::new() };
    let (was, now) = (&of.identity, engine.identity());
    let mut out = Vec::new();
    if was.weights_sha256 != now.weights_sha256 {
        out.push(format!(
            "the probe was fitted on {}, whose weights are others than those of {}",
            was.model, now.model
        ));
    }
    let (held, holds) = (was.arithmetic(), now.arithmetic());
    if held != holds {
        out.push(format!("the probe was fitted on features of another arithmetic: {held} there, {holds} here"));
    }
    if of.plan.iter().any(|plan| plan != "none") {
        out.push(format!("the probe was fitted under {}, and nothing is tempered here", of.plan[0]));
    }
    let systems = Systems::of(items);
    let after = systems.common().unwrap_or_default();
    // Captures of earlier versions do not say.
    if let Some(before) = of.system.as_deref().filter(|before| *before != after) {
        let told = |text: &str| match text {
            "" => "no system message in common".into(),
            text => format!("the system message '{text}'"),
        };
        out.push(format!("the probe was fitted on answers after {}; these are after {}", told(before), told(after)));
    }
    let raw = items.iter().any(Item::is_raw);
    if raw != of.raw || was.thinking != now.thinking {
        let read = |raw: bool, thinking: Option<bool>| match (raw, thinking) {
            (true, _) => "without the chat template",
            (false, None) => "with it",
            (false, Some(true)) => "with it, told to think",
            (false, Some(false)) => "with it, told not to think",
        };
        let (was, now) = (read(of.raw, was.thinking), read(raw, now.thinking));
        out.push(format!("the probe was fitted on prompts {was}, and these are read {now}"));
    }
    out
}
