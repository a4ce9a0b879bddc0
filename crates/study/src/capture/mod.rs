//! From items to features: one teacher-forced pass over prompt and response, or the passes that write the response.

mod answers;
pub(crate) mod features;
mod file;
mod generated;
pub(crate) mod join;
mod kept;
mod layers;
mod lengths;
mod pieces;
mod prepared;
mod survey;

use std::sync::atomic::AtomicBool;

use headtemper_engine::{
    CaptureRequest, CaptureRow, Encoded, Engine, EngineError, Fired, HeadsWanted, Input, Keep, MemoryPlan,
};
use headtemper_hook::{HeadPlan, Site};
use rayon::prelude::*;

use crate::{
    Item, Progress, Result, StudyError,
    error::back,
    items::{
        Systems,
        columns::{ColumnNames, Columns},
    },
    store::digest::digest,
};

pub use answers::WrittenAnswers;
pub use features::{FeatureMeta, Features, GeneratedMeta, HeadVectors, PieceMeta};
pub use file::{CaptureJob, Captured, capture_file};
pub use generated::{Answering, Difference, GeneratedVsForced};
pub use join::merge_features;
pub(crate) use kept::Kept;
pub use layers::{check_layers, parse_layers};
pub(crate) use lengths::{LENGTHS, lengths};
pub(crate) use prepared::{Prepared, ToDo};

/// What to capture.
pub struct CaptureOptions<'a> {
    /// What is kept of each text.
    pub keep: Keep,
    /// One plan for all items, or one per item.
    pub plans: Vec<HeadPlan>,
    /// The most items that are read at once.
    pub max_rows: usize,
    /// The most memory to take in bytes; what the machine has available if none is given.
    pub memory: Option<u64>,
    /// Set from outside, stops after the current batch.
    pub stop: Option<&'a AtomicBool>,
}

impl CaptureOptions<'_> {
    /// The request for the engine; what is captured is held in memory until it is written.
    pub(crate) fn request(&self) -> CaptureRequest<'_> {
        CaptureRequest {
            keep: self.keep.clone(),
            plans: self.plans.clone(),
            max_rows: self.max_rows,
            memory: self.memory,
            kept: true,
            stop: self.stop,
            ..CaptureRequest::default()
        }
    }

    /// The plans in writing.
    pub(crate) fn plan_names(&self) -> Vec<String> {
        self.plans.iter().map(ToString::to_string).collect()
    }

    /// How many tokens are read at once, and the memory that this takes.
    ///
    /// # Errors
    /// If an item does not fit the memory: it is named.
    pub(crate) fn plan(&self, engine: &Engine, items: &[Item], encoded: &[Encoded]) -> Result<MemoryPlan> {
        let name = |item: usize| format!("item '{}'", items[item].id);
        Ok(engine.plan_capture(encoded, &self.request(), &name)?)
    }
}

impl Default for CaptureOptions<'_> {
    fn default() -> Self {
        let engine = CaptureRequest::default();
        Self { keep: engine.keep, plans: engine.plans, max_rows: engine.max_rows, memory: engine.memory, stop: None }
    }
}

/// Whether a chat template writes the item's prompt.
pub(crate) fn is_rendered(item: &Item) -> bool {
    matches!(item.input, Input::Prompt(_) | Input::Messages(_))
}

/// Refuses a template's switch that no template acts on: results would say that it was on.
pub(crate) fn check_thinking(engine: &Engine, any_rendered: bool) -> Result<()> {
    let Some(thinking) = engine.identity().thinking.filter(|_| !any_rendered) else { return Ok(()) };
    let allowed = "left out where no item's prompt goes through the chat template, as those of input_ids do not";
    Err(StudyError::option("--thinking, or thinking of [model],", if thinking { "on" } else { "off" }, allowed))
}

/// Encodes items; a text that does not fit is named by its id.
pub(crate) fn encode(engine: &Engine, items: &[Item]) -> Result<Vec<Encoded>> {
    check_thinking(engine, items.is_empty() || items.iter().any(is_rendered))?;
    in_order(items, |item| encode_one(engine, item, item.response.as_deref()))
}

/// What `of` makes of every item, in parallel; if several fail, the error is the first one's.
fn in_order<T: Send>(items: &[Item], of: impl Fn(&Item) -> Result<T> + Send + Sync) -> Result<Vec<T>> {
    let made: Vec<Result<T>> = items.par_iter().map(of).collect();
    made.into_iter().collect()
}

/// Whether an item brings tokens of its response that it is not read by.
pub(crate) fn leaves_ids(item: &Item, encoded: &Encoded) -> bool {
    let tail = encoded.ids.get(encoded.prompt_len..).unwrap_or_default();
    item.response.is_some() && item.response_ids.as_ref().is_some_and(|ids| ids != tail)
}

/// A note on how many of `of` items do: the states of other tokens are others.
pub(crate) fn left_ids(count: usize, of: usize) -> Option<String> {
    (count > 0).then(|| {
        format!(
            "note: {count} of {of} items are read by the text of their response, not by their response_ids: these do not decode to it with \
             this tokenizer, or end with a stop token"
        )
    })
}

/// Encodes an item with this response: the tokens that it brings, if they are those of the response under this tokenizer, or else its
/// text.
pub(crate) fn encode_one(engine: &Engine, item: &Item, response: Option<&str>) -> Result<Encoded> {
    // Other servers' ids may hold the token that ends an answer, whose text is none: the state there is another.
    if let (Some(ids), Some(response)) = (&item.response_ids, response)
        && ids.last().is_some_and(|&last| !engine.stop().contains(last))
        && engine.tokenizer().decode(ids).is_ok_and(|text| text == response)
    {
        return encode_answered(engine, item, ids);
    }
    let mut encoded = engine.encode(&format!("item '{}'", item.id), &item.input, response)?;
    if let (Some(len), Input::Ids(_), None) = (item.prompt_len, &item.input, response) {
        encoded.prompt_len = len;
    }
    Ok(encoded)
}

/// Encodes an item with a generated response: its very tokens, not what its text would be tokenised to.
///
/// # Errors
/// If they are not tokens of the model, or too many: the item is named.
pub(crate) fn encode_answered(engine: &Engine, item: &Item, response_ids: &[u32]) -> Result<Encoded> {
    let mut encoded = encode_one(engine, item, None)?;
    encoded.ids.truncate(encoded.prompt_len);
    encoded.ids.extend(response_ids);
    Ok(engine.checked(&format!("item '{}'", item.id), encoded)?)
}

/// Every item's id, with a hash of its tokens.
pub(crate) fn named_items(items: &[Item], encoded: &[Encoded]) -> Vec<(String, String)> {
    let named = items.iter().zip(encoded);
    named.map(|(item, e)| (item.id.clone(), digest(&(&e.ids, e.prompt_len)))).collect()
}

/// The token ids of each item's prompt, to generate after it.
///
/// # Errors
/// If a prompt leaves no room for an answer in the model's context: the item is named. Or if the template's switch is set, and no item's
/// prompt goes through a template.
pub fn prompts(engine: &Engine, items: &[Item]) -> Result<Vec<Vec<u32>>> {
    check_thinking(engine, items.is_empty() || items.iter().any(is_rendered))?;
    prompts_of_some(engine, items)
}

/// The same for some of the items: the chat template may be for the others.
pub(crate) fn prompts_of_some(engine: &Engine, items: &[Item]) -> Result<Vec<Vec<u32>>> {
    in_order(items, |item| prompt(engine, item))
}

/// The token ids of an item's prompt, without its response.
fn prompt(engine: &Engine, item: &Item) -> Result<Vec<u32>> {
    let context = engine.spec().context;
    let Encoded { mut ids, prompt_len } = encode_one(engine, item, None)?;
    ids.truncate(prompt_len);
    if ids.len() < context {
        return Ok(ids);
    }
    let what = format!("the prompt of item '{}', which leaves no room for an answer,", item.id);
    Err(EngineError::TooLong { what, tokens: ids.len(), context }.into())
}

/// Captures items that are encoded already, such as those whose response tokens are known from generation.
///
/// # Errors
/// If an item does not fit the memory, a plan does not fit the model, or the run is stopped.
pub(crate) fn capture_encoded(
    engine: &Engine,
    items: &[Item],
    encoded: &[Encoded],
    options: &CaptureOptions<'_>,
    progress: &mut dyn Progress,
) -> Result<(Features, Fired)> {
    let memory = options.plan(engine, items, encoded)?;
    progress.note(&format!("memory     {memory}"));
    progress.begin("capture", items.len(), 0);
    progress.expect(encoded.iter().map(|e| e.ids.len()).sum());
    let mut features = empty(engine, items, encoded, options, &ColumnNames::of(items));
    let request = CaptureRequest { batch_tokens: Some(memory.step_tokens), memory: memory.limit, ..options.request() };
    let fired = read_texts(engine, items, encoded, &request, &mut features, progress)?;
    progress.end();
    Ok((features, fired))
}

/// Reads every text once and puts what is kept into its row.
fn read_texts(
    engine: &Engine,
    items: &[Item],
    encoded: &[Encoded],
    request: &CaptureRequest<'_>,
    features: &mut Features,
    progress: &mut dyn Progress,
) -> Result<Fired> {
    let fired = engine.capture(encoded, request, |captured| {
        check_finite(&items[captured.item], &captured.row)?;
        features.put(captured.item, &captured.row);
        progress.tokens(captured.encoded.ids.len());
        progress.step();
        Ok(())
    });
    fired.map_err(back)
}

/// Refuses activations that are not numbers.
fn check_finite(item: &Item, row: &CaptureRow) -> std::result::Result<(), EngineError> {
    if row.is_finite() { Ok(()) } else { Err(EngineError::NotANumber { what: format!("item '{}'", item.id) }) }
}

/// The features of items whose rows are still to be filled.
fn empty(
    engine: &Engine,
    items: &[Item],
    encoded: &[Encoded],
    options: &CaptureOptions<'_>,
    columns: &[String],
) -> Features {
    let spec = engine.spec();
    // Room for all items at once: a vector that grows takes up to three times what it holds.
    let n = items.len();
    let room = |numbers: usize, wanted: bool| vec![0.0; if wanted { n * numbers } else { 0 }];
    let vectors = spec.layers.iter().enumerate().map(|(layer, l)| {
        let site = spec.head_site(layer);
        HeadVectors { site, heads: l.heads.count, dim: l.heads.dim, values: room(l.heads.width(), true) }
    });
    let heads = options.keep.heads != HeadsWanted::None;
    Features {
        ids: items.iter().map(|item| item.id.clone()).collect(),
        labels: items.iter().map(|item| item.label.clone().unwrap_or_default()).collect(),
        prompt_len: encoded.iter().map(|e| e.prompt_len).collect(),
        total_len: encoded.iter().map(|e| e.ids.len()).collect(),
        d_model: spec.d_model,
        h_last: room(spec.d_model, true),
        layers: options.keep.layers.clone(),
        h_layers: room(spec.d_model * options.keep.layers.len(), true),
        h_mean: room(spec.d_model, options.keep.mean_layers.is_some()),
        slots: if heads { spec.slots() } else { Vec::new() },
        head_norm: room(spec.slots().len(), heads),
        head_norm_final: room(spec.slots().len(), heads),
        head_vectors: if options.keep.heads == HeadsWanted::Vector { vectors.collect() } else { Vec::new() },
        vocab: if options.keep.logits { spec.vocab } else { 0 },
        logits: room(spec.vocab, options.keep.logits),
        columns: Columns::of(items, columns),
        meta: FeatureMeta {
            schema: "features/v1".into(),
            identity: engine.identity().clone(),
            plan: options.plan_names(),
            raw: items.iter().any(Item::is_raw),
            system: Some(Systems::of(items).common().unwrap_or_default().into()),
            site: Site::FinalNorm.to_string(),
            layer_site: "blocks.{layer}.hook_resid_post".into(),
            last_n: options.keep.last_n,
            pool: options.keep.pool.to_string(),
            mean_layers: options.keep.mean_layers,
            generated: None,
            generated_vs_forced: None,
            fired: None,
            key: None,
            parts: None,
            shard: None,
            piece: None,
        },
    }
}
