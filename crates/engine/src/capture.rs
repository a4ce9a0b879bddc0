//! Teacher-forced passes over given texts, keeping only what a study needs of each.

use std::{ops::Range, sync::atomic::AtomicBool};

use candle_core::Tensor;
use headtemper_hook::{Batch, HeadPlan, HiddenCapture, Span, Tap, Tee};

use crate::{
    CaptureRow, Encoded, Engine, EngineError, Fired, Keep, MemoryPlan, Pool, Result,
    keep::spread,
    memory::{Limit, Texts, plan_capture},
};

/// What to capture, and how much at once.
#[derive(Clone, Debug)]
pub struct CaptureRequest<'a> {
    /// What is kept of each item.
    pub keep: Keep,
    /// One plan per item, or one for all.
    pub plans: Vec<HeadPlan>,
    /// Whether the items are part of a larger capture. Whoever joins the parts then checks that every planned head fired.
    pub partial: bool,
    /// The most tokens that are read at once, except in an item that is longer; by default [`Engine::tokens_at_once`], or
    /// fewer where memory is short.
    pub batch_tokens: Option<usize>,
    /// The most items that are read at once.
    pub max_rows: usize,
    /// The most memory to take in bytes, the model's included; by default what the machine has available.
    pub memory: Option<u64>,
    /// Whether the caller keeps all that is captured until the end, so that it counts as memory.
    pub kept: bool,
    /// Set from outside to stop after the current batch.
    pub stop: Option<&'a AtomicBool>,
}

impl Default for CaptureRequest<'_> {
    fn default() -> Self {
        Self {
            keep: Keep::default(),
            plans: vec![HeadPlan::none()],
            partial: false,
            batch_tokens: None,
            max_rows: usize::MAX,
            memory: None,
            kept: false,
            stop: None,
        }
    }
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

impl Engine {
    /// Plans the memory of a capture: how many tokens are read at once. `name` names an item by its index in errors.
    ///
    /// # Errors
    /// If the request makes no sense for this model, an item does not fit in memory even alone, or what is kept
    /// does not.
    pub fn plan_capture(
        &self,
        items: &[Encoded],
        request: &CaptureRequest<'_>,
        name: &dyn Fn(usize) -> String,
    ) -> Result<MemoryPlan> {
        self.check_capture(items, request, name)?;
        let tokens: Vec<usize> = items.iter().map(|item| item.ids.len()).collect();
        let texts = Texts {
            tokens: &tokens,
            most: request.max_rows,
            batch: request.batch_tokens.unwrap_or(self.tokens_at_once()),
            numbers: request.keep.numbers(self.spec()),
            read: request.keep.read(self.spec()),
            logits: request.keep.logits,
            kept: if request.kept { items.len() } else { 0 },
        };
        let cost = self.cost();
        plan_capture(&cost, &texts, Limit::of(request.memory, self.model.device(), cost.held), name)
    }

    /// Reads every item once and reports what was asked for, item by item in order. Returns how often each planned head
    /// fired. A head that never fired is an error, unless the items are part of a larger capture.
    ///
    /// # Errors
    /// If a plan does not fit the model, an item does not fit in memory, `on_item` fails, or the run is stopped.
    pub fn capture(
        &self,
        items: &[Encoded],
        request: &CaptureRequest<'_>,
        on_item: impl FnMut(Captured<'_>) -> Result<()>,
    ) -> Result<Fired> {
        let plan = self.plan_capture(items, request, &|item| format!("item {item}"))?;
        self.capture_planned(items, request, &plan, on_item).map_err(|error| error.of_planned(&plan))
    }

    /// [`Engine::capture`], given how much may be read at once.
    fn capture_planned(
        &self,
        items: &[Encoded],
        request: &CaptureRequest<'_>,
        plan: &MemoryPlan,
        mut on_item: impl FnMut(Captured<'_>) -> Result<()>,
    ) -> Result<Fired> {
        let mut scale = self.scale(&request.plans)?;
        let plan_of = |item: usize| if request.plans.len() == 1 { 0 } else { item };
        let mut next = 0;
        while next < items.len() {
            EngineError::if_stopped(request.stop)?;
            let count = fitting(&items[next..], plan, request.max_rows, self.reserves_lazily());
            let group = &items[next..next + count];
            let rows = self.capture_batch(group, &|i| plan_of(next + i), request, &mut scale)?;
            for (i, row) in rows.into_iter().enumerate() {
                on_item(Captured { item: next + i, encoded: &group[i], row })?;
            }
            next += count;
        }
        if !items.is_empty() && !request.partial {
            scale.check_fired()?;
        }
        Ok(scale.fired())
    }

    fn check_capture(
        &self,
        items: &[Encoded],
        request: &CaptureRequest<'_>,
        name: &dyn Fn(usize) -> String,
    ) -> Result<()> {
        request.keep.check(self.spec())?;
        if request.max_rows == 0 {
            return Err(EngineError::Setting { name: "max_rows", found: "0".into(), allowed: "at least 1" });
        }
        if request.plans.len() != 1 && request.plans.len() != items.len() {
            return Err(EngineError::Setting {
                name: "rows of the plan table",
                found: request.plans.len().to_string(),
                allowed: "1, or as many as there are items",
            });
        }
        for (at, item) in items.iter().enumerate() {
            self.of_vocabulary(|| name(at), &item.ids)?;
        }
        match items.iter().position(|item| request.keep.pool.of(item).is_none()) {
            Some(item) => Err(EngineError::NoResponse(name(item))),
            None => Ok(()),
        }
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
        let (spec, device, keep) = (self.spec(), self.model.device(), &request.keep);
        let ids: Vec<u32> = group.iter().flat_map(|item| item.ids.iter().copied()).collect();
        let ids = Tensor::from_vec(ids, batch.tokens(), device)?;

        let packed = |of: &dyn Fn(&Encoded) -> Range<usize>| -> Vec<Range<usize>> {
            let ranges = batch.ranges().zip(group).map(|((_, packed), item)| {
                let own = of(item);
                packed.start + own.start..packed.start + own.end
            });
            ranges.collect()
        };
        let last = Tensor::new(batch.last_tokens(), device)?;
        let hidden = match keep.pool {
            Pool::Last => HiddenCapture::new(last.clone(), keep.sites(spec)),
            pool => {
                let ranges = packed(&|item| pool.of(item).expect("checked when it was planned"));
                HiddenCapture::means(ranges, keep.sites(spec))
            }
        };
        let mut reader = keep.reader(hidden, packed(&|item| item.last(keep.last_n)));
        let capacity = group.iter().map(|item| item.ids.len()).max().unwrap_or(1);
        let mut cache = self.model.new_cache(group.len(), capacity)?;
        // The plan comes first: what is captured is what the output projection receives.
        let mut taps: Vec<&mut dyn Tap> = vec![scale];
        taps.extend(reader.taps());
        let hidden = self.model.forward(&ids, &batch, &mut cache, &mut Tee(taps))?;

        let mut seen = reader.seen(group.len())?;
        if keep.logits {
            let logits = self.model.logits(&hidden.index_select(&last, 0)?)?;
            spread(&logits, &mut seen, |seen, values| seen.logits = values)?;
        }
        Ok(seen.into_iter().map(|seen| keep.row(spec, seen)).collect())
    }
}

/// How many of the next items fit one batch; at least one. Unless memory is taken lazily, as it is written, each item counts
/// as much as the longest.
fn fitting(items: &[Encoded], plan: &MemoryPlan, most: usize, lazy: bool) -> usize {
    let (mut sum, mut longest) = (0, 0);
    let fits = items.iter().take(most).enumerate().take_while(|(before, item)| {
        (sum, longest) = (sum + item.ids.len(), longest.max(item.ids.len()));
        (if lazy { sum } else { (before + 1) * longest }) <= plan.step_tokens
    });
    fits.count().max(1)
}
