//! From items to features: one teacher-forced pass over prompt and response.

use std::sync::atomic::AtomicBool;

use headtemper_engine::{CaptureRequest, Encoded, Engine, EngineError, Fired, HeadsWanted, Input, MemoryPlan};
use headtemper_hook::{HeadPlan, Site};

use crate::{
    FeatureMeta, Features, Item, Parts, Progress, Result, Shard,
    digest::digest,
    error::back,
    features::{HeadVectors, ShardMeta},
};

/// What to capture.
pub struct CaptureOptions<'a> {
    /// Layers whose residual stream is kept.
    pub layers: Vec<usize>,
    /// What is kept of the heads.
    pub heads: HeadsWanted,
    /// Over how many of the last response tokens heads are averaged.
    pub last_n: usize,
    /// Whether the last token's logits are kept.
    pub logits: bool,
    /// One plan for all items, or one an item.
    pub plans: Vec<HeadPlan>,
    /// The most items that are read at once.
    pub max_rows: usize,
    /// The most memory to take in bytes; what the machine has available if none is given.
    pub memory: Option<u64>,
    /// Set from outside, stops after the current batch.
    pub stop: Option<&'a AtomicBool>,
}

impl CaptureOptions<'_> {
    /// As the engine asks for it; what is captured is kept until it is written.
    fn request(&self) -> CaptureRequest<'_> {
        CaptureRequest {
            layers: self.layers.clone(),
            heads: self.heads,
            last_n: self.last_n,
            logits: self.logits,
            plans: self.plans.clone(),
            max_rows: self.max_rows,
            memory: self.memory,
            kept: true,
            stop: self.stop,
            ..CaptureRequest::default()
        }
    }

    /// How many tokens are read at once, and the memory that takes.
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
        Self {
            layers: engine.layers,
            heads: engine.heads,
            last_n: engine.last_n,
            logits: engine.logits,
            plans: engine.plans,
            max_rows: engine.max_rows,
            memory: engine.memory,
            stop: None,
        }
    }
}

/// Encodes items; a text that does not fit is named by its id.
pub(crate) fn encode(engine: &Engine, items: &[Item]) -> Result<Vec<Encoded>> {
    items
        .iter()
        .map(|item| {
            let what = format!("item '{}'", item.id);
            let mut encoded = engine.encode(&what, &item.input, item.response.as_deref())?;
            if let (Some(len), Input::Ids(_), None) = (item.prompt_len, &item.input, &item.response) {
                encoded.prompt_len = len;
            }
            Ok(encoded)
        })
        .collect()
}

/// Every item's id, with a hash of its tokens.
pub(crate) fn named_items(items: &[Item], encoded: &[Encoded]) -> Vec<(String, String)> {
    let named = items.iter().zip(encoded);
    named.map(|(item, e)| (item.id.clone(), digest(&(&e.ids, e.prompt_len)))).collect()
}

/// Every item's id, with its label.
pub(crate) fn named_labels(items: &[Item]) -> Vec<(&str, Option<&str>)> {
    items.iter().map(|item| (item.id.as_str(), item.label.as_deref())).collect()
}

/// The token ids of each item's prompt, for something to be generated after it.
///
/// # Errors
/// If a prompt leaves no room for an answer in the model's context: the item is named.
pub fn prompts(engine: &Engine, items: &[Item]) -> Result<Vec<Vec<u32>>> {
    let context = engine.spec().context;
    let bare: Vec<Item> = items.iter().map(|item| Item { response: None, ..item.clone() }).collect();
    let encoded = encode(engine, &bare)?;
    let prompts = encoded.into_iter().zip(items).map(|(encoded, item)| {
        let ids = encoded.ids[..encoded.prompt_len].to_vec();
        if ids.len() < context {
            return Ok(ids);
        }
        let what = format!("the prompt of item '{}', which leaves no room for an answer,", item.id);
        Err(EngineError::TooLong { what, tokens: ids.len(), context }.into())
    });
    prompts.collect()
}

/// Captures every item.
///
/// # Errors
/// If an item does not fit the model's context, a plan does not fit the model, or the run is stopped.
pub fn capture(
    engine: &Engine,
    items: &[Item],
    options: &CaptureOptions<'_>,
    progress: &mut dyn Progress,
) -> Result<(Features, Fired)> {
    let encoded = encode(engine, items)?;
    capture_encoded(engine, items, &encoded, options, progress)
}

/// The items of a shard, as they are and as tokens, and what is captured of them.
///
/// # Errors
/// If the plans are neither one for all items nor one for each, or the part would be empty.
pub(crate) fn part_of<'a>(
    items: &'a [Item],
    encoded: &'a [Encoded],
    options: &CaptureOptions<'a>,
    shard: Shard,
) -> Result<(&'a [Item], &'a [Encoded], CaptureOptions<'a>)> {
    // Plans are checked against all items, then cut as these are.
    if ![1, items.len()].contains(&options.plans.len()) {
        let (found, allowed) = (options.plans.len().to_string(), "1, or as many as there are items");
        return Err(EngineError::Setting { name: "rows of the plan table", found, allowed }.into());
    }
    let plans = if options.plans.len() == 1 { &options.plans[..] } else { shard.part(&options.plans, "items")? };
    let of_part = CaptureOptions { plans: plans.to_vec(), layers: options.layers.clone(), ..*options };
    Ok((shard.part(items, "items")?, shard.part(encoded, "items")?, of_part))
}

/// Captures one part of the items. What the file says of itself is the whole capture's, and which part it is.
///
/// # Errors
/// As [`capture`]; and if a part would be empty.
pub fn capture_shard(
    engine: &Engine,
    items: &[Item],
    options: &CaptureOptions<'_>,
    shard: Shard,
    progress: &mut dyn Progress,
) -> Result<(Features, Fired)> {
    let encoded = encode(engine, items)?;
    let (part, encoded_part, of_part) = part_of(items, &encoded, options, shard)?;
    let (mut features, fired) = capture_encoded(engine, part, encoded_part, &of_part, progress)?;
    let parts = Parts::of(engine.identity())
        .with("items", named_items(items, &encoded))
        .with("labels", named_labels(items))
        .with("plan", options.plans.iter().map(ToString::to_string).collect::<Vec<_>>())
        .with("layers", &options.layers)
        .with("heads", format!("{:?}", options.heads).to_lowercase())
        .with("last_n", options.last_n)
        .with("logits", options.logits);
    features.meta.plan = options.plans.iter().map(ToString::to_string).collect();
    features.meta.shard = Some(ShardMeta { part: shard.to_string(), key: parts.key(), parts });
    Ok((features, fired))
}

/// Captures items that are encoded already, such as those whose response's tokens are known from their generation.
pub(crate) fn capture_encoded(
    engine: &Engine,
    items: &[Item],
    encoded: &[Encoded],
    options: &CaptureOptions<'_>,
    progress: &mut dyn Progress,
) -> Result<(Features, Fired)> {
    let spec = engine.spec();
    let mut features = empty(engine, items, encoded, options);
    let memory = options.plan(engine, items, encoded)?;
    progress.note(&format!("memory     {memory}"));
    let request = CaptureRequest { batch_tokens: memory.step_tokens, memory: memory.limit, ..options.request() };
    progress.begin("capture", items.len(), 0);
    progress.expect(encoded.iter().map(|e| e.ids.len()).sum());
    let fired = engine.capture(encoded, &request, |captured| {
        if !captured.row.h_last.iter().chain(&captured.row.head_norm).all(|x| x.is_finite()) {
            return Err(EngineError::NotANumber { what: format!("item '{}'", items[captured.item].id) });
        }
        features.h_last.extend(captured.row.h_last);
        captured.row.h_layers.iter().for_each(|h| features.h_layers.extend(h));
        features.head_norm.extend(captured.row.head_norm);
        features.head_norm_final.extend(captured.row.head_norm_final);
        features.logits.extend(captured.row.logits);
        for (layer, values) in features.head_vectors.iter_mut().zip(captured.row.head_vectors) {
            layer.values.extend(values);
        }
        progress.tokens(captured.encoded.ids.len());
        progress.step();
        Ok(())
    });
    let fired = fired.map_err(back)?;
    progress.end();
    debug_assert_eq!(features.h_last.len(), items.len() * spec.d_model);
    Ok((features, fired))
}

fn empty(engine: &Engine, items: &[Item], encoded: &[Encoded], options: &CaptureOptions<'_>) -> Features {
    let spec = engine.spec();
    // Room for all at once: a vector that grows takes up to three times what it holds.
    let n = items.len();
    let room = |numbers: usize, wanted: bool| Vec::with_capacity(if wanted { n * numbers } else { 0 });
    let vectors = spec.layers.iter().enumerate().map(|(layer, l)| {
        let site = spec.head_site(layer);
        HeadVectors { site, heads: l.heads.count, dim: l.heads.dim, values: room(l.heads.width(), true) }
    });
    Features {
        ids: items.iter().map(|item| item.id.clone()).collect(),
        labels: items.iter().map(|item| item.label.clone().unwrap_or_default()).collect(),
        prompt_len: encoded.iter().map(|e| e.prompt_len).collect(),
        total_len: encoded.iter().map(|e| e.ids.len()).collect(),
        d_model: spec.d_model,
        h_last: room(spec.d_model, true),
        layers: options.layers.clone(),
        h_layers: room(spec.d_model * options.layers.len(), true),
        slots: if options.heads == HeadsWanted::None { Vec::new() } else { spec.slots() },
        head_norm: room(spec.slots().len(), options.heads != HeadsWanted::None),
        head_norm_final: room(spec.slots().len(), options.heads != HeadsWanted::None),
        head_vectors: if options.heads == HeadsWanted::Vector { vectors.collect() } else { Vec::new() },
        vocab: if options.logits { spec.vocab } else { 0 },
        logits: room(spec.vocab, options.logits),
        meta: FeatureMeta {
            schema: "features/v1".into(),
            identity: engine.identity().clone(),
            plan: options.plans.iter().map(ToString::to_string).collect(),
            site: Site::FinalNorm.to_string(),
            layer_site: "blocks.{layer}.hook_resid_post".into(),
            last_n: options.last_n,
            shard: None,
        },
    }
}

/// The layers a user asks for: `all`, `none`, or numbers and ranges such as `0,4,8..12`.
///
/// # Errors
/// If the text is none of these, or a layer does not exist.
pub fn parse_layers(text: &str, layers: usize) -> Result<Vec<usize>> {
    let wrong = |found: &str| crate::StudyError::Option {
        what: "the list of layers".into(),
        found: found.into(),
        allowed: format!("all, none, or layers from 0 to {} such as 0,4,8..12", layers - 1),
    };
    let number = |text: &str| -> Result<usize> {
        text.trim().parse().ok().filter(|&layer| layer < layers).ok_or_else(|| wrong(text))
    };
    let mut chosen = Vec::new();
    match text {
        "all" => chosen.extend(0..layers),
        "none" => {}
        _ => {
            for part in text.split(',') {
                match part.split_once("..") {
                    None => chosen.push(number(part)?),
                    Some((from, to)) => match (number(from)?, number(to)?) {
                        (from, to) if from <= to => chosen.extend(from..=to),
                        _ => return Err(wrong(part)),
                    },
                }
            }
        }
    }
    chosen.sort_unstable();
    chosen.dedup();
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_listed_as_numbers_and_ranges() {
        assert_eq!(parse_layers("all", 3).unwrap(), [0, 1, 2]);
        assert_eq!(parse_layers("none", 3).unwrap(), Vec::<usize>::new());
        assert_eq!(parse_layers("5,1..3,2", 8).unwrap(), [1, 2, 3, 5]);
        for wrong in ["8", "x", "1..9", "3..1", ""] {
            assert!(parse_layers(wrong, 8).unwrap_err().to_string().contains("from 0 to 7"), "{wrong}");
        }
    }
}
