//! Teacher-forced passes over given texts, keeping what a study needs of each and nothing more.

use std::sync::atomic::{AtomicBool, Ordering};

use candle_core::{DType, Tensor};
use headtemper_hook::{Batch, HeadCapture, HeadPlan, HiddenCapture, ModelSpec, Site, Span, Tee};

use crate::{
    Encoded, Engine, EngineError, Fired, MemoryPlan, Result,
    memory::{Limit, Texts, plan_capture},
};

/// What to keep of each head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum HeadsWanted {
    /// Nothing.
    None,
    /// The mean L2 norm of z over the last tokens.
    #[default]
    Norm,
    /// The mean norm, and the mean of z itself.
    Vector,
}

/// What to keep of each item.
#[derive(Clone, Debug)]
pub struct CaptureRequest<'a> {
    /// Layers whose residual stream is kept at the last token.
    pub layers: Vec<usize>,
    /// What is kept of every head of every layer.
    pub heads: HeadsWanted,
    /// Over how many of the last response tokens heads are averaged; fewer where the response is shorter.
    pub last_n: usize,
    /// Whether the last token's logits are kept.
    pub logits: bool,
    /// One plan an item, or one for all.
    pub plans: Vec<HeadPlan>,
    /// The most tokens that are read at once, except in an item that is longer; fewer where memory is short.
    pub batch_tokens: usize,
    /// The most items that are read at once.
    pub max_rows: usize,
    /// The most memory to take in bytes, the model's included; what the machine has available if none is given.
    pub memory: Option<u64>,
    /// Whether all that is captured is kept until the end, and so takes memory.
    pub kept: bool,
    /// Set from outside, stops after the current batch.
    pub stop: Option<&'a AtomicBool>,
}

impl Default for CaptureRequest<'_> {
    fn default() -> Self {
        Self {
            layers: Vec::new(),
            heads: HeadsWanted::Norm,
            last_n: 32,
            logits: false,
            plans: vec![HeadPlan::none()],
            batch_tokens: 2048,
            max_rows: usize::MAX,
            memory: None,
            kept: false,
            stop: None,
        }
    }
}

/// What was kept of one item; all f32.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CaptureRow {
    /// The final norm's output at the last token, `[d_model]`.
    pub h_last: Vec<f32>,
    /// The residual stream after each asked-for layer at the last token, `[d_model]` each.
    pub h_layers: Vec<Vec<f32>>,
    /// Mean norm of every head, in slot order.
    pub head_norm: Vec<f32>,
    /// Norm of every head at the last token alone, in slot order.
    pub head_norm_final: Vec<f32>,
    /// Mean z of every layer's heads, `[head * head_dim]` each.
    pub head_vectors: Vec<Vec<f32>>,
    /// Logits of the last token, `[vocab]`.
    pub logits: Vec<f32>,
}

/// A captured item.
#[derive(Debug)]
pub struct Captured<'a> {
    /// Its index among the items.
    pub item: usize,
    /// The item itself.
    pub encoded: &'a Encoded,
    /// What was kept.
    pub row: CaptureRow,
}

impl CaptureRequest<'_> {
    /// Numbers that are taken from one item.
    fn numbers(&self, spec: &ModelSpec) -> usize {
        let slots = spec.slots().len();
        let heads = match self.heads {
            HeadsWanted::None => 0,
            HeadsWanted::Norm => 2 * slots,
            HeadsWanted::Vector => 2 * slots + spec.layers.iter().map(|layer| layer.heads.width()).sum::<usize>(),
        };
        let logits = if self.logits { spec.vocab } else { 0 };
        spec.d_model * (1 + self.layers.len()) + heads + logits
    }
}

impl Engine {
    /// Plans the memory of a capture: how many tokens are read at once. `name` names an item by its index in errors.
    ///
    /// # Errors
    /// If the request has no meaning for this model, an item does not fit the memory even alone, or what is kept
    /// does not.
    pub fn plan_capture(
        &self,
        items: &[Encoded],
        request: &CaptureRequest<'_>,
        name: &dyn Fn(usize) -> String,
    ) -> Result<MemoryPlan> {
        self.check_capture(items, request)?;
        let tokens: Vec<usize> = items.iter().map(|item| item.ids.len()).collect();
        let texts = Texts {
            tokens: &tokens,
            most: request.max_rows,
            batch: request.batch_tokens,
            numbers: request.numbers(self.spec()),
            logits: request.logits,
            kept: if request.kept { items.len() } else { 0 },
        };
        plan_capture(&self.cost()?, &texts, Limit::of(request.memory, self.model.device().is_cpu()), name)
    }

    /// Reads every item once and reports what was asked for, item by item in order. Returns how often each planned head
    /// fired; one that never did is an error.
    ///
    /// # Errors
    /// If a plan does not fit the model, an item does not fit the memory, `on_item` fails, or the run is stopped.
    pub fn capture(
        &self,
        items: &[Encoded],
        request: &CaptureRequest<'_>,
        mut on_item: impl FnMut(Captured<'_>) -> Result<()>,
    ) -> Result<Fired> {
        let plan = self.plan_capture(items, request, &|item| format!("item {item}"))?;
        let mut scale = self.scale(&request.plans)?;
        let plan_of = |item: usize| if request.plans.len() == 1 { 0 } else { item };
        let mut next = 0;
        while next < items.len() {
            if request.stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Err(EngineError::Interrupted);
            }
            let count = fitting(&items[next..], &plan, request.max_rows, self.reserves_lazily());
            let group = &items[next..next + count];
            let rows = self.capture_batch(group, &|i| plan_of(next + i), request, &mut scale)?;
            for (i, row) in rows.into_iter().enumerate() {
                on_item(Captured { item: next + i, encoded: &group[i], row })?;
            }
            next += count;
        }
        if !items.is_empty() {
            scale.check_fired()?;
        }
        Ok(scale.fired())
    }

    fn check_capture(&self, items: &[Encoded], request: &CaptureRequest<'_>) -> Result<()> {
        let layers = self.spec().layers.len();
        if let Some(layer) = request.layers.iter().find(|&&layer| layer >= layers) {
            let at = headtemper_hook::HeadRef::query(*layer, 0);
            return Err(headtemper_hook::PlanError::NoSuchLayer { at, layers }.into());
        }
        if request.max_rows == 0 {
            return Err(EngineError::Setting { name: "max_rows", found: "0".into(), allowed: "at least 1" });
        }
        if request.last_n == 0 {
            return Err(EngineError::Setting { name: "last_n", found: "0".into(), allowed: "at least 1" });
        }
        if request.plans.len() != 1 && request.plans.len() != items.len() {
            return Err(EngineError::Setting {
                name: "rows of the plan table",
                found: request.plans.len().to_string(),
                allowed: "1, or as many as there are items",
            });
        }
        Ok(())
    }

    fn capture_batch(
        &self,
        group: &[Encoded],
        plan_of: &dyn Fn(usize) -> usize,
        request: &CaptureRequest<'_>,
        scale: &mut headtemper_hook::HeadScale,
    ) -> Result<Vec<CaptureRow>> {
        let spans = group.iter().enumerate();
        let spans = spans.map(|(i, item)| Span {
            slot: i,
            start: 0,
            len: item.ids.len(),
            row: plan_of(i),
            prompt: item.prompt_len,
        });
        let batch = Batch::new(spans.collect());
        let device = self.model.device();
        let ids: Vec<u32> = group.iter().flat_map(|item| item.ids.iter().copied()).collect();
        let ids = Tensor::from_vec(ids, batch.tokens(), device)?;
        let last = Tensor::from_vec(batch.last_tokens(), group.len(), device)?;

        let ranges = batch.ranges().zip(group).map(|((_, packed), item)| {
            let last = item.last(request.last_n);
            packed.start + last.start..packed.start + last.end
        });
        let mut heads = HeadCapture::new(ranges.collect(), request.heads == HeadsWanted::Vector);
        let sites = request.layers.iter().map(|&layer| Site::ResidPost(layer)).chain([Site::FinalNorm]);
        let mut hidden = HiddenCapture::new(last, sites.collect());
        let capacity = group.iter().map(|item| item.ids.len()).max().unwrap_or(1);
        let mut cache = self.model.new_cache(group.len(), capacity)?;
        // The plan comes first: what is captured is what the output projection receives.
        let mut taps = Tee(vec![scale, &mut hidden]);
        if request.heads != HeadsWanted::None {
            taps.0.push(&mut heads);
        }
        self.model.forward(&ids, &batch, &mut cache, &mut taps)?;

        let mut rows = vec![CaptureRow::default(); group.len()];
        let sites = hidden.into_sites();
        let h_last = &sites[&Site::FinalNorm];
        spread(h_last, &mut rows, |row, values| row.h_last = values)?;
        for layer in &request.layers {
            spread(&sites[&Site::ResidPost(*layer)], &mut rows, |row, values| row.h_layers.push(values))?;
        }
        for (_, layer) in heads.into_layers() {
            spread(&layer.norms, &mut rows, |row, values| row.head_norm.extend(values))?;
            spread(&layer.last_norms, &mut rows, |row, values| row.head_norm_final.extend(values))?;
            if let Some(vectors) = layer.vectors {
                spread(&vectors.flatten_from(1)?, &mut rows, |row, values| row.head_vectors.push(values))?;
            }
        }
        if request.logits {
            let h_last = if self.model.device().is_cpu() {
                h_last.clone()
            } else {
                h_last.to_dtype(self.model.activations())?
            };
            spread(&self.model.logits(&h_last)?, &mut rows, |row, values| row.logits = values)?;
        }
        Ok(rows)
    }
}

/// How many of the next items fit one batch; at least one. Where what is reserved is taken, each counts as much as the
/// longest.
fn fitting(items: &[Encoded], plan: &MemoryPlan, most: usize, lazy: bool) -> usize {
    let (mut sum, mut longest) = (0, 0);
    let fits = items.iter().take(most).enumerate().take_while(|(before, item)| {
        (sum, longest) = (sum + item.ids.len(), longest.max(item.ids.len()));
        (if lazy { sum } else { (before + 1) * longest }) <= plan.step_tokens
    });
    fits.count().max(1)
}

/// Hands each row of a `[item, ..]` tensor to its item.
fn spread(x: &Tensor, rows: &mut [CaptureRow], mut give: impl FnMut(&mut CaptureRow, Vec<f32>)) -> Result<()> {
    for (row, values) in rows.iter_mut().zip(x.to_dtype(DType::F32)?.to_vec2::<f32>()?) {
        give(row, values);
    }
    Ok(())
}
