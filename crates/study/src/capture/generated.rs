//! Captures of responses that the model writes during the capture, and what reading them again gives.

use headtemper_engine::{
    CaptureRequest, CaptureRow, Encoded, Engine, EngineError, Event, FinishReason, Fired, GenerateOptions, HeadsWanted,
    Input, Keep, Pool, Request, Sampling, StopRule,
};
use headtemper_stats::cosine;
use serde::{Deserialize, Serialize};

use super::{CaptureOptions, check_finite};
use crate::{
    Features, Item, Progress, Result, StudyError, capture::features::GeneratedMeta, error::back,
    items::columns::Answers, progress::Lengths, store::digest::noise_of, text::count,
};

/// How the model answers before it is read.
#[derive(Clone, Debug)]
pub struct Answering {
    /// The most tokens of an answer.
    pub max_new_tokens: usize,
    /// How tokens are chosen.
    pub sampling: Sampling,
    /// Which tokens end an answer before that.
    pub stop: StopRule,
}

impl Answering {
    /// Refuses settings without meaning.
    ///
    /// # Errors
    /// Names the setting and what would have been allowed.
    pub fn check(&self) -> Result<()> {
        self.sampling.check()?;
        if self.max_new_tokens == 0 {
            return Err(StudyError::option("max_new_tokens", "0", "at least 1"));
        }
        Ok(())
    }

    /// As the file's meta has it.
    pub(super) fn meta(&self) -> GeneratedMeta {
        let (max_new_tokens, sampling) = (self.max_new_tokens, self.sampling.clone());
        GeneratedMeta { max_new_tokens, sampling, stop: GeneratedMeta::stop_name(&self.stop) }
    }

    /// The requests for the engine, one per item.
    pub(super) fn requests(&self, items: &[Item], prompts: &[Encoded], plans: usize) -> Vec<Request> {
        let request = |(index, (item, prompt)): (usize, (&Item, &Encoded))| Request {
            ids: prompt.ids.as_slice().into(),
            plan: if plans == 1 { 0 } else { index },
            sampling: self.sampling.clone(),
            noise: noise_of(&item.id),
            max_new_tokens: self.max_new_tokens,
            stop: self.stop.clone(),
        };
        items.iter().zip(prompts).enumerate().map(request).collect()
    }
}

/// How many items of a capture, from the first, are read again from their prompt and response.
pub(super) const READ_AGAIN: usize = 32;

/// How far hidden states read while a response was written differ from those of reading prompt and response at once: the first
/// items of a capture are read both ways. `h_last`, `h_layers` and `h_mean` all count.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GeneratedVsForced {
    /// The very same tokens, read at once.
    #[serde(flatten)]
    pub ids: Difference,
    /// The text of the response, tokenised again, as anyone who stored only texts must do.
    pub from_text: Difference,
    /// Responses whose text is tokenised differently from how it was written.
    pub retokenised_differs: usize,
    /// Out of this many responses.
    pub retokenised_of: usize,
    /// Empty responses: read at the last token of their prompt, where the model chose to stop.
    pub empty: usize,
}

/// A difference of hidden states.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Difference {
    /// Items that were compared.
    pub items: usize,
    /// The largest absolute difference of two numbers.
    pub worst_abs: f64,
    /// The smallest cosine of two vectors.
    pub smallest_cosine: f64,
}

impl Default for Difference {
    fn default() -> Self {
        Self { items: 0, worst_abs: 0.0, smallest_cosine: 1.0 }
    }
}

impl Difference {
    fn and(&self, other: &Self) -> Self {
        Self {
            items: self.items + other.items,
            worst_abs: self.worst_abs.max(other.worst_abs),
            smallest_cosine: self.smallest_cosine.min(other.smallest_cosine),
        }
    }

    /// The difference for one item read both ways.
    fn of(a: &CaptureRow, b: &CaptureRow) -> Self {
        let states = |row: &CaptureRow| -> Vec<Vec<f32>> {
            let single = [&row.h_last, &row.h_mean].into_iter().filter(|h| !h.is_empty());
            row.h_layers.iter().chain(single).cloned().collect()
        };
        let pairs = states(a).into_iter().zip(states(b));
        let one = Self { items: 1, ..Self::default() };
        pairs.fold(one, |all, (a, b)| {
            let abs = a.iter().zip(&b).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
            // Equal vectors have cosine 1, whatever rounding makes of it.
            let smallest_cosine = if a == b { 1.0 } else { of_states(&a, &b) };
            all.and(&Self { items: 0, worst_abs: abs, smallest_cosine })
        })
    }
}

/// The cosine of two states; 0 where one is zero and the other is not, since the smallest of numbers would pass over a NaN.
fn of_states(a: &[f32], b: &[f32]) -> f64 {
    let wide = |state: &[f32]| state.iter().map(|&x| f64::from(x)).collect::<Vec<f64>>();
    let cosine = cosine(&wide(a), &wide(b));
    if cosine.is_nan() { 0.0 } else { cosine }
}

impl GeneratedVsForced {
    /// The same for the items of two pieces together.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self {
            ids: self.ids.and(&other.ids),
            from_text: self.from_text.and(&other.from_text),
            retokenised_differs: self.retokenised_differs + other.retokenised_differs,
            retokenised_of: self.retokenised_of + other.retokenised_of,
            empty: self.empty + other.empty,
        }
    }

    /// For people to read.
    pub fn text(&self) -> String {
        let of = |d: &Difference| {
            let off = if d.worst_abs == 0.0 { "0".into() } else { format!("{:.1e}", d.worst_abs) };
            format!("at most {off} off, cosine at least {:.7} ({})", d.smallest_cosine, count(d.items, "item"))
        };
        let read = [("read again", &self.ids), ("from its text", &self.from_text)];
        let compared = read.into_iter().filter(|(_, d)| d.items > 0);
        let mut parts: Vec<String> = compared.map(|(how, d)| format!("{how} {}", of(d))).collect();
        let (differ, all) = (self.retokenised_differs, count(self.retokenised_of, "response"));
        let are = if differ == 1 { "is" } else { "are" };
        parts.push(format!("{differ} of {all} {are} tokenised otherwise than written"));
        if self.empty > 0 {
            let are = if self.empty == 1 { "is" } else { "are" };
            parts.push(format!("{} {are} empty and read at the last token of their prompt", self.empty));
        }
        parts.join("; ")
    }
}

/// Answers items and puts what is kept of each into its row. The first `again` items are read both ways.
pub(super) fn write_texts(
    engine: &Engine,
    (items, prompts): (&[Item], &[Encoded]),
    (answering, options): (&Answering, &CaptureOptions<'_>),
    settings: &GenerateOptions<'_>,
    again: usize,
    features: &mut Features,
    (lengths, progress): (&mut Lengths, &mut dyn Progress),
) -> Result<(Fired, GeneratedVsForced)> {
    let requests = answering.requests(items, prompts, options.plans.len());
    let mut measured = GeneratedVsForced::default();
    let mut answers =
        Answers { texts: vec![String::new(); items.len()], reasons: vec![FinishReason::Stop; items.len()] };
    let mut first: Vec<Option<Written>> = (0..again).map(|_| None).collect();
    let fired = engine.generate(&requests, &options.plans, settings, |event| {
        let Event::Done { row, result } = event else {
            lengths.token();
            progress.tokens(1);
            return Ok(());
        };
        let kept = result.kept.as_ref().expect("it was asked for");
        check_finite(&items[row], kept)?;
        features.put(row, kept);
        features.total_len[row] = prompts[row].ids.len() + result.ids.len();
        let text = engine.tokenizer().decode(&result.ids)?;
        measured.retokenised_of += 1;
        measured.retokenised_differs += usize::from(engine.tokenizer().encode(&text, false)? != result.ids);
        measured.empty += usize::from(result.ids.is_empty());
        if let Some(place) = first.get_mut(row) {
            *place = Some(Written { ids: result.ids.clone(), text: text.clone(), kept: kept.clone() });
        }
        (answers.texts[row], answers.reasons[row]) = (text, result.finish_reason);
        lengths.done();
        lengths.tell(progress);
        progress.step();
        Ok::<(), EngineError>(())
    });
    let fired = fired.map_err(back)?;
    features.columns.answered(items, answers);
    let first: Vec<Written> = first.into_iter().flatten().collect();
    (measured.ids, measured.from_text) = read_again(engine, items, prompts, options, settings, &first)?;
    Ok((fired, measured))
}

/// An answer, and what was read while it was written.
struct Written {
    ids: Vec<u32>,
    text: String,
    kept: CaptureRow,
}

/// Reads prompts with their answers at once, from the answers' tokens and from their texts, and compares.
fn read_again(
    engine: &Engine,
    items: &[Item],
    prompts: &[Encoded],
    options: &CaptureOptions<'_>,
    settings: &GenerateOptions<'_>,
    written: &[Written],
) -> Result<(Difference, Difference)> {
    let keep = Keep { heads: HeadsWanted::None, logits: false, ..options.keep.clone() };
    let read = |texts: &[(usize, Encoded)]| -> Result<Vec<Difference>> {
        let plan = |&(i, _): &(usize, Encoded)| options.plans[i].clone();
        let plans = if options.plans.len() == 1 { options.plans.clone() } else { texts.iter().map(plan).collect() };
        let (keep, memory) = (keep.clone(), settings.memory);
        let request = CaptureRequest { keep, plans, memory, partial: true, ..CaptureRequest::default() };
        let encoded: Vec<Encoded> = texts.iter().map(|(_, text)| text.clone()).collect();
        let mut differences = Vec::new();
        engine.capture(&encoded, &request, |captured| {
            // The largest and smallest of numbers would pass over a NaN.
            check_finite(&items[texts[captured.item].0], &captured.row)?;
            differences.push(Difference::of(&captured.row, &written[texts[captured.item].0].kept));
            Ok(())
        })?;
        Ok(differences)
    };
    // An empty answer has no tokens to average over, so reading it again would average over others.
    let compared = |i: &usize| options.keep.pool == Pool::Last || !written[*i].ids.is_empty();
    let by_ids = |i: usize| {
        let ids = [&prompts[i].ids[..], &written[i].ids].concat();
        (i, Encoded { ids, prompt_len: prompts[i].prompt_len })
    };
    let by_ids: Vec<_> = (0..written.len()).filter(compared).map(by_ids).collect();
    let of_ids = read(&by_ids)?;
    // A text that gives the same tokens was read already; one that gives no tokens, or more than the context holds, cannot be read.
    let (mut of_texts, mut others) = (Difference::default(), Vec::new());
    for ((i, text), difference) in by_ids.iter().zip(&of_ids) {
        let what = format!("item '{}'", items[*i].id);
        let again = engine.encode(&what, &Input::Ids(prompts[*i].ids.clone()), Some(&written[*i].text));
        match again {
            Ok(again) if again == *text => of_texts = of_texts.and(difference),
            Ok(again) if options.keep.pool.of(&again).is_some() => others.push((*i, again)),
            _ => {}
        }
    }
    let all = |differences: &[Difference]| differences.iter().fold(Difference::default(), |all, one| all.and(one));
    let of_others = read(&others)?;
    Ok((all(&of_ids), of_texts.and(&all(&of_others))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_compared_is_not_told() {
        let mut measured =
            GeneratedVsForced { retokenised_of: 3, retokenised_differs: 1, empty: 2, ..Default::default() };
        let rest = "1 of 3 responses is tokenised otherwise than written; 2 are empty and read at the last token of their prompt";
        assert_eq!(measured.text(), rest);
        measured.ids.items = 1;
        assert_eq!(measured.text(), format!("read again at most 0 off, cosine at least 1.0000000 (1 item); {rest}"));
    }
}
