//! The memory that scoring holds at its peak, computed from the very groups and chunks that it will read.

use std::collections::BTreeSet;

use headtemper_model::{GPU_LOGITS, Kernels};

use crate::{
    Encoded, Engine, EngineError, MemoryPlan, Result,
    memory::{ALLOCATOR, Cost, Limit},
    score::{
        ScoreRequest,
        branched::{Group, Variant},
        plain::{LOGITS, fitting},
    },
};

/// Bytes for a scored row besides its logits, and for a base row: what each of up to 128 stretches of the vocabulary
/// yields for the row (`headtemper_kernels::score_head`).
const HEAD_ROW: u64 = 128 * 56;
const HEAD_BASE_ROW: u64 = 128 * 8;
/// On every thread, for a base row: logits and probabilities of 192 tokens.
const HEAD_THREAD: u64 = 2 * 192 * 4 + 8;
/// Bytes per logit with candle's own operations, which hold whole logits of a few rows and sum in f64.
const HEAD_LOGIT: u64 = 64;

/// The peak of each kind of memory.
#[derive(Clone, Copy, Debug, Default)]
struct Peak {
    cells: usize,
    cache: u64,
    activations: u64,
    /// The largest tensor of a cache.
    reserved: u64,
}

impl Peak {
    fn max(self, other: Self) -> Self {
        Self {
            cells: self.cells.max(other.cells),
            cache: self.cache.max(other.cache),
            activations: self.activations.max(other.activations),
            reserved: self.reserved.max(other.reserved),
        }
    }
}

impl Engine {
    /// Plans the memory of a scoring run. `step_tokens` of the plan is how many tokens are read at once; an item that is longer
    /// is read alone. `rows` is how many cells are read at once. `name` names an item by its index in errors.
    ///
    /// # Errors
    /// As [`Engine::check_score`]; if an item does not fit in memory even alone, or if what is kept does not.
    pub fn plan_score(
        &self,
        items: &[Encoded],
        request: &ScoreRequest<'_>,
        plain: bool,
        name: &dyn Fn(usize) -> String,
    ) -> Result<MemoryPlan> {
        self.check_score(items, request)?;
        let cost = self.cost();
        let limit = Limit::of(request.memory, self.model().device(), cost.held);
        let wanted: Vec<usize> = (0..items.len()).filter(|&item| request.wants(item)).collect();
        let longest = wanted.iter().copied().max_by_key(|&item| (items[item].ids.len(), std::cmp::Reverse(item)));
        let longest_tokens = longest.map_or(0, |item| items[item].ids.len());
        let plan = |batch_tokens: usize| {
            let request = ScoreRequest { batch_tokens, ..*request };
            let peak = if plain {
                self.plain_peak(items, &request, &cost)
            } else {
                self.branched_peak(items, &wanted, &request, &cost)
            };
            let plan = MemoryPlan {
                rows: peak.cells,
                step_tokens: batch_tokens,
                held: cost.held,
                row: longest_tokens as u64 * cost.cache_token + cost.cache_sequence,
                cache: peak.cache,
                activations: peak.activations,
                results: request.kept,
                total: 0,
                limit: limit.0,
            };
            // Even where memory is taken only as it is written, a system refuses to reserve more at once than it has.
            let reservable = limit.0.is_none_or(|limit| peak.reserved <= limit);
            (plan.of(), reservable)
        };
        let fits = |(plan, reservable): &(MemoryPlan, bool)| plan.fits() && *reservable;
        let all = plan(request.batch_tokens);
        if fits(&all) {
            return Ok(all.0);
        }
        // One token at once means every item alone.
        let mut best = plan(1);
        if !fits(&best) {
            let MemoryPlan { total, held, results, .. } = best.0;
            let what = match longest {
                Some(item) if results <= total - results - held => {
                    format!("{} with {longest_tokens} tokens", name(item))
                }
                _ => "what is kept of all cells".into(),
            };
            return Err(EngineError::Memory { what, needs: total, limit: limit.0.unwrap_or(0), held });
        }
        let (mut least, mut beyond) = (1, request.batch_tokens);
        while beyond - least > 1 {
            let tokens = usize::midpoint(least, beyond);
            let tried = plan(tokens);
            if fits(&tried) {
                (least, best) = (tokens, tried);
            } else {
                beyond = tokens;
            }
        }
        Ok(best.0)
    }

    fn branched_peak(&self, items: &[Encoded], wanted: &[usize], request: &ScoreRequest<'_>, cost: &Cost) -> Peak {
        let (mut peak, mut rest) = (Peak::default(), wanted);
        while !rest.is_empty() {
            let group = Group::first_of(self, items, rest, request);
            rest = &rest[group.places.len()..];
            peak = peak.max(self.group_peak(&group, cost));
        }
        peak
    }

    fn group_peak(&self, group: &Group<'_>, cost: &Cost) -> Peak {
        let (spec, size) = (self.spec(), self.model().activations().size_in_bytes() as u64);
        let width = spec.d_model as u64 * size;
        let lengths = group.places.iter().map(|(_, item)| item.ids.len());
        let (tokens, capacity) = (lengths.clone().sum::<usize>() as u64, lengths.max().unwrap_or(0) as u64);
        let scored: usize = group.places.iter().map(|(_, item)| item.scored().len()).sum();
        // z and the residual stream below, for every layer with a requested head; the embeddings; and the final hidden states.
        let layers: BTreeSet<usize> = group.request.heads.iter().map(|at| at.layer).collect();
        let z: usize = layers.iter().map(|&layer| spec.layers[layer].heads.width()).sum();
        let kept = tokens * (width * (1 + layers.len() as u64) + z as u64 * size) + scored as u64 * width;
        let base = cache(cost, tokens, group.places.len(), capacity);
        // The untempered pass, and its logits.
        let mut most = Peak {
            cells: group.places.len(),
            cache: 0,
            activations: tokens * cost.token
                + cost.partial(tokens as usize, capacity as usize)
                + self.head_peak(scored, 0),
            reserved: group.places.len() as u64 * capacity * cost.cache_widest,
        };
        for (_, variants) in group.variants() {
            for chunk in group.chunks(&variants) {
                most = most.max(self.chunk_peak(group, chunk, (tokens, scored), cost));
            }
        }
        let activations = (kept as f64 * ALLOCATOR) as u64 + most.activations;
        Peak { cache: base + most.cache, activations, ..most }
    }

    /// What the variants of a chunk take, besides what the untempered pass over `tokens` tokens has left.
    fn chunk_peak(&self, group: &Group<'_>, chunk: &[Variant], (tokens, scored): (u64, usize), cost: &Cost) -> Peak {
        let (mut cells, mut read, mut written, mut rows, mut capacity) = (0, 0, 0, 0, 0);
        for variant in chunk {
            let start = group.start_of(variant) as u64;
            (read, written) = (read + start, written + start);
            for item in variant.places.iter().map(|&place| group.places[place].1) {
                let length = item.ids.len() as u64;
                read += length - start;
                written += length;
                rows += item.scored().len();
                capacity = capacity.max(group.capacity() as u64);
            }
            cells += variant.places.len();
        }
        let heads = chunk.iter().map(|variant| variant.head).collect::<BTreeSet<_>>().len() as u64;
        let width = self.spec().d_model as u64 * self.model().activations().size_in_bytes() as u64;
        // The projection of all heads and of each head; the residual and mixed streams, the latter also in parts; what is scored.
        let copies = (tokens * (1 + heads) + 4 * read + rows as u64) * width;
        let slots = cells + chunk.len();
        Peak {
            cells,
            cache: cache(cost, written, slots, capacity),
            activations: read * cost.token
                + cost.partial(read as usize, capacity as usize)
                + (copies as f64 * ALLOCATOR) as u64
                + self.head_peak(rows, scored),
            reserved: slots as u64 * capacity * cost.cache_widest,
        }
    }

    fn plain_peak(&self, items: &[Encoded], request: &ScoreRequest<'_>, cost: &Cost) -> Peak {
        let (spec, size) = (self.spec(), self.model().activations().size_in_bytes() as u64);
        let (mut peak, mut next) = (Peak::default(), 0);
        while next < items.len() {
            let count = fitting(&items[next..], request.batch_tokens);
            let group = (next..next + count).filter(|&item| request.wants(item)).map(|item| &items[item]);
            let group: Vec<&Encoded> = group.collect();
            next += count;
            let lengths = group.iter().map(|item| item.ids.len());
            let (tokens, capacity) = (lengths.clone().sum::<usize>() as u64, lengths.max().unwrap_or(0) as u64);
            let scored = group.iter().map(|item| item.scored().len());
            let hidden = 2 * scored.clone().sum::<usize>() as u64 * spec.d_model as u64 * size;
            // Logits of both models, each as the LM head gives them and as rows on the host.
            let rows = scored.max().unwrap_or(0).min((LOGITS / spec.vocab).max(1)) as u64;
            let logits = 2 * 2 * 4 * rows * spec.vocab as u64;
            peak = peak.max(Peak {
                cells: group.len(),
                cache: cache(cost, tokens, group.len(), capacity),
                activations: tokens * cost.token
                    + cost.partial(tokens as usize, capacity as usize)
                    + (hidden as f64 * ALLOCATOR) as u64
                    + logits,
                reserved: group.len() as u64 * capacity * cost.cache_widest,
            });
        }
        peak
    }

    /// What the LM head takes for `rows` rows and `base_rows` base rows.
    fn head_peak(&self, rows: usize, base_rows: usize) -> u64 {
        let (spec, device) = (self.spec(), self.model().device());
        let (rows, base) = (rows as u64, base_rows as u64);
        if Kernels::serve_gpu(device) {
            let at_once = (rows + base).min((GPU_LOGITS / spec.vocab).max(2) as u64);
            return at_once * 4 * spec.vocab as u64;
        }
        if device.is_cpu() {
            let threads = rayon::current_num_threads() as u64;
            return rows * HEAD_ROW + base * (HEAD_BASE_ROW + threads * HEAD_THREAD);
        }
        let at_once = rows.min((LOGITS / spec.vocab).max(1) as u64);
        at_once * spec.vocab as u64 * HEAD_LOGIT + 4 * (spec.vocab * spec.d_model) as u64
    }
}

/// Bytes of a cache of `slots` slots in which `tokens` tokens are written.
fn cache(cost: &Cost, tokens: u64, slots: usize, capacity: u64) -> u64 {
    let slots = slots as u64;
    (if cost.lazy { tokens } else { slots * capacity }) * cost.cache_token + slots * cost.cache_sequence
}
