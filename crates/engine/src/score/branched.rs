//! The fast way to score: every cell branches off one untempered pass at its head's layer.
//!
//! Tempering a head of layer `l` leaves everything below that layer's output projection as it was. So the untempered
//! pass keeps the residual stream and z of each layer. A layer's heads share its attention and its output projection,
//! whose output is linear in λ: `out(λ) = out + (λ - 1) W_h z_h`. Each cell then runs the layers above. A start that all
//! items share, such as a system message, is read once for each head and λ. Logits are streamed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use candle_core::Tensor;
use headtemper_hook::{Batch, HeadRef, PlanError, Positions, Site, Span, Tap};
use headtemper_model::{BaseRows, Branch, Cache, CausalLm, HeadScore, SpoiltRow, add, spoilt_row};

use crate::{
    Encoded, Engine, EngineError, Result,
    score::{BaseScore, Cell, CellScore, ScoreEvent, ScoreRequest},
};

/// The most bytes that the untempered pass may keep: items are grouped to stay below it. A GPU works on more at once.
const KEPT: usize = 512 << 20;
const KEPT_ON_DEVICE: usize = 4 << 30;
/// The shortest common start of items that is worth a pass of its own.
const SHORTEST_START: usize = 8;

impl Engine {
    /// Scores every wanted cell, each branched off one untempered pass. Up to rounding, it gives the numbers of
    /// [`Engine::score_plain`], its oracle. On the CPU, λ = 1 gives the untempered model's numbers bit for bit here too.
    ///
    /// # Errors
    /// As [`Engine::score_plain`].
    pub fn score(
        &self,
        items: &[Encoded],
        request: &ScoreRequest<'_>,
        mut on: impl FnMut(ScoreEvent) -> Result<()>,
    ) -> Result<()> {
        let memory = self.plan_score(items, request, false, &|item| format!("item {item}"))?;
        let request = &ScoreRequest { batch_tokens: memory.step_tokens, ..*request };
        let wanted: Vec<usize> = (0..items.len()).filter(|&item| request.wants(item)).collect();
        let mut rest = &wanted[..];
        while !rest.is_empty() {
            let group = Group::first_of(self, items, rest, request);
            rest = &rest[group.places.len()..];
            group.score(&mut on).map_err(|error| error.of_planned(&memory))?;
        }
        Ok(())
    }
}

/// Items that are scored together.
pub(super) struct Group<'a> {
    engine: &'a Engine,
    pub(super) request: &'a ScoreRequest<'a>,
    /// The items, each with its index and tokens.
    pub(super) places: Vec<(usize, &'a Encoded)>,
    /// How many tokens all of them begin with; 0 if they are not worth a pass.
    start: usize,
}

/// One head at one λ, on those places (indices into [`Group::places`]) where it is wanted.
pub(super) struct Variant {
    pub(super) head: usize,
    lambda: usize,
    pub(super) places: Vec<usize>,
}

/// What the untempered pass leaves.
struct Untempered {
    cache: Cache,
    kept: Kept,
    /// Packed tokens of each place.
    ranges: Vec<Range<usize>>,
    /// Final hidden states from which scored tokens are predicted, `[scored, d_model]`, place after place.
    hidden: Tensor,
    /// Where each place's rows of `hidden` begin.
    first: Vec<usize>,
    scores: Vec<HeadScore>,
    log_sum_exp: Vec<f64>,
}

/// A run of tokens of a place, read under a variant.
struct Part {
    place: usize,
    tokens: Range<usize>,
    head: usize,
    lambda: usize,
    slot: usize,
}

impl<'a> Group<'a> {
    /// As many of the next items as may be read at once; at least one.
    pub(super) fn first_of(
        engine: &'a Engine,
        items: &'a [Encoded],
        wanted: &[usize],
        request: &'a ScoreRequest<'a>,
    ) -> Self {
        let spec = engine.spec();
        let layers: BTreeSet<usize> = request.heads.iter().map(|at| at.layer).collect();
        let widths = layers.iter().map(|&layer| spec.d_model + spec.layers[layer].heads.width());
        let kept = if engine.on_own_device_kernels() { KEPT_ON_DEVICE } else { KEPT };
        let token = widths.sum::<usize>() * engine.model().activations().size_in_bytes();
        let most = request.batch_tokens.min(kept / token);
        let mut tokens = 0;
        let fits = wanted.iter().take_while(|&&item| {
            tokens += items[item].ids.len();
            tokens <= most
        });
        let count = fits.count().max(1);
        let places: Vec<_> = wanted[..count].iter().map(|&item| (item, &items[item])).collect();
        let start = common_start(&places);
        Self { engine, request, places, start }
    }

    fn score(&self, on: &mut impl FnMut(ScoreEvent) -> Result<()>) -> Result<()> {
        let base = self.untempered()?;
        for (place, &(item, _)) in self.places.iter().enumerate() {
            let scores = &base.scores[base.rows(place)];
            let sum_logprob = scores.iter().map(|score| score.target_logprob).sum();
            on(ScoreEvent::Base { item, score: BaseScore { tokens: scores.len(), sum_logprob } })?;
        }
        for (layer, variants) in self.variants() {
            let site = self.engine.spec().head_site(layer);
            let z = &base.kept.seen[&site]; // [n, head, dim]
            let mixed = self.model().project(layer, &z.flatten_from(1)?)?; // [n, d_model]
            for chunk in self.chunks(&variants) {
                EngineError::if_stopped(self.request.stop)?;
                self.score_chunk(layer, chunk, (z, &mixed), &base, on)?;
            }
        }
        Ok(())
    }

    fn model(&self) -> &'a dyn CausalLm {
        self.engine.model()
    }

    /// The wanted cells by layer, the last layer first: branches at high layers cost least.
    pub(super) fn variants(&self) -> Vec<(usize, Vec<Variant>)> {
        let mut layers: BTreeMap<usize, Vec<Variant>> = BTreeMap::new();
        for (head, lambda) in self.request.cells() {
            let wanted = |place: &usize| (self.request.wanted)(Cell { item: self.places[*place].0, head, lambda });
            let places: Vec<usize> = (0..self.places.len()).filter(wanted).collect();
            if !places.is_empty() {
                layers.entry(self.request.heads[head].layer).or_default().push(Variant { head, lambda, places });
            }
        }
        layers.into_iter().rev().collect()
    }

    /// Splits variants into chunks that are read at once: as many as the tokens allow, at least one.
    pub(super) fn chunks<'v>(&self, variants: &'v [Variant]) -> Vec<&'v [Variant]> {
        let tokens = |variant: &Variant| {
            let start = self.start_of(variant);
            start + variant.places.iter().map(|&place| self.places[place].1.ids.len() - start).sum::<usize>()
        };
        let (mut chunks, mut first, mut sum) = (Vec::new(), 0, 0);
        for (i, variant) in variants.iter().enumerate() {
            if i > first && sum + tokens(variant) > self.request.batch_tokens {
                chunks.push(&variants[first..i]);
                (first, sum) = (i, 0);
            }
            sum += tokens(variant);
        }
        chunks.push(&variants[first..]);
        chunks
    }

    /// How many tokens a variant reads once for all of its places.
    pub(super) fn start_of(&self, variant: &Variant) -> usize {
        if variant.places.len() > 1 { self.start } else { 0 }
    }

    /// Runs the ordinary pass over all places; each place uses the slot of the same index.
    fn untempered(&self) -> Result<Untempered> {
        let model = self.model();
        let span = |(slot, &(_, item)): (usize, &(usize, &Encoded))| Span {
            slot,
            start: 0,
            len: item.ids.len(),
            row: 0,
            prompt: item.prompt_len,
        };
        let batch = Batch::new(self.places.iter().enumerate().map(span).collect());
        let ids: Vec<u32> = self.places.iter().flat_map(|(_, item)| item.ids.iter().copied()).collect();
        let ids = Tensor::from_vec(ids, batch.tokens(), model.device())?;
        let mut cache = model.new_cache(self.places.len(), self.capacity())?;
        let layers: BTreeSet<usize> = self.request.heads.iter().map(|at| at.layer).collect();
        let sites = layers.iter().flat_map(|&layer| {
            let below = layer.checked_sub(1).map(Site::ResidPost);
            below.into_iter().chain([model.spec().head_site(layer)])
        });
        let mut kept = Kept { sites: sites.collect(), seen: BTreeMap::new(), embedded: model.embed(&ids)? };
        let hidden = model.forward(&ids, &batch, &mut cache, &mut kept)?;
        let ranges: Vec<_> = batch.ranges().map(|(_, range)| range).collect();
        let (mut rows, mut first, mut targets) = (Vec::<u32>::new(), Vec::new(), Vec::new());
        for ((_, item), range) in self.places.iter().zip(&ranges) {
            first.push(rows.len());
            rows.extend(item.scored().map(|token| (range.start + token - 1) as u32));
            targets.extend(&item.ids[item.scored()]);
        }
        let hidden = select(&hidden, rows)?;
        let scores = model.score(&hidden, &targets, None).map_err(|error| match spoilt_row(&error) {
            Some(SpoiltRow::Row(row)) => self.spoilt_base(place_of(&first, row)),
            _ => error.into(),
        })?;
        let log_sum_exp = scores.iter().map(|score| score.log_sum_exp).collect();
        Ok(Untempered { cache, kept, ranges, hidden, first, scores, log_sum_exp })
    }

    /// The error for a place whose untempered logits are not numbers.
    fn spoilt_base(&self, place: usize) -> EngineError {
        EngineError::SpoiltScore { item: self.places[place].0, tempered: None }
    }

    /// The error for a part whose logits are not numbers.
    fn spoilt_part(&self, part: &Part) -> EngineError {
        let tempered = Some((self.request.heads[part.head], self.request.lambdas[part.lambda]));
        EngineError::SpoiltScore { item: self.places[part.place].0, tempered }
    }

    pub(super) fn capacity(&self) -> usize {
        self.places.iter().map(|(_, item)| item.ids.len()).max().unwrap_or(1)
    }

    /// Scores the variants of one layer that are read at once.
    fn score_chunk(
        &self,
        layer: usize,
        variants: &[Variant],
        layer_outputs: (&Tensor, &Tensor),
        base: &Untempered,
        on: &mut impl FnMut(ScoreEvent) -> Result<()>,
    ) -> Result<()> {
        // Slots: one per cell, then one per variant for the start that its places share.
        let cells: usize = variants.iter().map(|variant| variant.places.len()).sum();
        let (mut starts, mut copies, mut rests, mut slot) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (index, variant) in variants.iter().enumerate() {
            let Variant { head, lambda, ref places } = *variant;
            let start = self.start_of(variant);
            let part = |place, tokens, slot| Part { place, tokens, head, lambda, slot };
            if start > 0 {
                starts.push(part(places[0], 0..start, cells + index));
            }
            for &place in places {
                if start > 0 {
                    copies.push((cells + index, slot));
                }
                rests.push(part(place, start..self.places[place].1.ids.len(), slot));
                slot += 1;
            }
        }
        let mut cache = self.model().new_cache(cells + variants.len(), self.capacity())?;
        let fired = vec![0; cells + variants.len()];
        let mut outputs = HeadOutputs { group: self, layer, of: layer_outputs, heads: BTreeMap::new(), fired };
        if !starts.is_empty() {
            self.branch(&starts, &mut outputs, base, &mut cache)?;
            for (from, to) in copies {
                cache.copy_slot(from, to)?;
                outputs.fired[to] = outputs.fired[from];
            }
        }
        let hidden = self.branch(&rests, &mut outputs, base, &mut cache)?;
        self.report(&rests, &hidden, base, &outputs.fired, on)
    }

    /// Reads parts of places, each under its head and λ, from the layer's output projection on.
    fn branch(
        &self,
        parts: &[Part],
        outputs: &mut HeadOutputs<'_, '_>,
        base: &Untempered,
        cache: &mut Cache,
    ) -> Result<Tensor> {
        let (model, layer) = (self.model(), outputs.layer);
        let below = match layer.checked_sub(1) {
            Some(below) => &base.kept.seen[&Site::ResidPost(below)],
            None => &base.kept.embedded,
        };
        let (mut ids, mut residual, mut mixed) = (Vec::<u32>::new(), Vec::new(), Vec::new());
        for part in parts {
            let first = base.ranges[part.place].start;
            let packed = first + part.tokens.start..first + part.tokens.end;
            ids.extend(&self.places[part.place].1.ids[part.tokens.clone()]);
            residual.push(below.narrow(0, packed.start, packed.len())?);
            mixed.push(outputs.tempered(part, packed)?);
        }
        let span = |part: &Part| {
            let prompt = self.places[part.place].1.prompt_len;
            Span { slot: part.slot, start: part.tokens.start, len: part.tokens.len(), row: 0, prompt }
        };
        let batch = Batch::new(parts.iter().map(span).collect());
        let ids = Tensor::from_vec(ids, batch.tokens(), model.device())?;
        let slots: Vec<usize> = parts.iter().map(|part| part.place).collect();
        let (residual, mixed) = (Tensor::cat(&residual, 0)?, Tensor::cat(&mixed, 0)?);
        let from = Branch { layer, residual: &residual, mixed: &mixed, cache: &base.cache, slots: &slots };
        Ok(model.branch(&ids, &from, &batch, cache, &mut ())?)
    }

    /// Scores the hidden states `[n, d_model]` of parts that reach the ends of their places, and reports each cell with how many
    /// tokens its slot was tempered on.
    fn report(
        &self,
        parts: &[Part],
        hidden: &Tensor,
        base: &Untempered,
        fired: &[u64],
        on: &mut impl FnMut(ScoreEvent) -> Result<()>,
    ) -> Result<()> {
        let (mut rows, mut targets, mut of, mut offset) =
            (Vec::<u32>::new(), Vec::<u32>::new(), Vec::<usize>::new(), 0);
        let mut firsts = Vec::new();
        for part in parts {
            let item = self.places[part.place].1;
            firsts.push(rows.len());
            rows.extend(item.scored().map(|token| (offset + token - 1 - part.tokens.start) as u32));
            targets.extend(&item.ids[item.scored()]);
            of.extend(base.rows(part.place));
            offset += part.tokens.len();
        }
        let compared = BaseRows { hidden: &base.hidden, log_sum_exp: &base.log_sum_exp, of: &of };
        let scores = self.model().score(&select(hidden, rows)?, &targets, Some(compared));
        let scores = scores.map_err(|error| match spoilt_row(&error) {
            Some(SpoiltRow::Row(row)) => self.spoilt_part(&parts[place_of(&firsts, row)]),
            Some(SpoiltRow::Base(row)) => self.spoilt_base(place_of(&base.first, row)),
            None => error.into(),
        })?;
        let mut scores = scores.iter().zip(&of);
        for part in parts {
            let (item, encoded) = self.places[part.place];
            let (fired, planned) = (fired[part.slot], encoded.ids.len() as u64);
            if fired != planned {
                return Err(PlanError::Missed { heads: 1, positions: Positions::All, applied: fired, planned }.into());
            }
            let mut sum = CellScore { sum_logprob: 0.0, kl: 0.0, agree: 0, fired };
            for (score, &row) in scores.by_ref().take(encoded.scored().len()) {
                sum.sum_logprob += score.target_logprob;
                sum.kl += score.kl;
                sum.agree += usize::from(score.argmax == base.scores[row].argmax);
            }
            let cell = Cell { item, head: part.head, lambda: part.lambda };
            on(ScoreEvent::Cell { cell, score: sum })?;
        }
        Ok(())
    }
}

/// The stretch of rows that holds `row`, given where each stretch begins.
fn place_of(firsts: &[usize], row: usize) -> usize {
    firsts.partition_point(|&first| first <= row).saturating_sub(1)
}

impl Untempered {
    /// The rows of `hidden` that belong to a place.
    fn rows(&self, place: usize) -> Range<usize> {
        self.first[place]..self.first.get(place + 1).copied().unwrap_or(self.scores.len())
    }
}

/// The output of a layer's output projection, and each head's share of it.
struct HeadOutputs<'g, 'a> {
    group: &'g Group<'a>,
    layer: usize,
    /// z `[n, head, dim]`, and the projection of all heads, `[n, d_model]`.
    of: (&'g Tensor, &'g Tensor),
    /// Each head's share of the projection, `[n, d_model]`, by index into the request's heads.
    heads: BTreeMap<usize, Tensor>,
    /// Tokens of each slot that its head was tempered on.
    fired: Vec<u64>,
}

impl HeadOutputs<'_, '_> {
    /// The projection of a part's packed tokens with its head at its λ.
    fn tempered(&mut self, part: &Part, packed: Range<usize>) -> Result<Tensor> {
        let (z, mixed) = self.of;
        let share = match self.heads.entry(part.head) {
            std::collections::btree_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::btree_map::Entry::Vacant(new) => {
                let at: HeadRef = self.group.request.heads[part.head];
                let z = z.narrow(1, at.head, 1)?.squeeze(1)?.contiguous()?;
                new.insert(self.group.model().head_output(at, &z)?)
            }
        };
        let lambda = self.group.request.lambdas[part.lambda];
        let read = |x: &Tensor| x.narrow(0, packed.start, packed.len());
        let tempered = add(&read(mixed)?, &(read(share)? * f64::from(lambda - 1.0))?)?;
        self.fired[part.slot] += tempered.dim(0)? as u64;
        Ok(tempered)
    }
}

/// A tap that keeps what branches start from: z, and the residual stream below.
struct Kept {
    sites: BTreeSet<Site>,
    seen: BTreeMap<Site, Tensor>,
    /// What the first layer reads.
    embedded: Tensor,
}

impl Tap for Kept {
    fn wants(&self, site: Site) -> bool {
        self.sites.contains(&site)
    }

    fn at(&mut self, site: Site, x: Tensor) -> candle_core::Result<Tensor> {
        self.seen.insert(site, x.clone());
        Ok(x)
    }
}

/// Selects rows of a matrix.
fn select(x: &Tensor, rows: Vec<u32>) -> candle_core::Result<Tensor> {
    let count = rows.len();
    x.index_select(&Tensor::from_vec(rows, count, x.device())?, 0)
}

/// How many tokens all items begin with; 0 if they are not worth a pass. The token before the first scored one stays outside:
/// it must be read in the pass whose hidden states are scored.
fn common_start(places: &[(usize, &Encoded)]) -> usize {
    let [(_, first), others @ ..] = places else { return 0 };
    let own = |item: &Encoded| item.scored().start - 1;
    let most = places.iter().map(|(_, item)| own(item)).min().unwrap_or(0);
    let same = |item: &Encoded| first.ids[..most].iter().zip(&item.ids).take_while(|(a, b)| a == b).count();
    let start = others.iter().map(|(_, item)| same(item)).min().unwrap_or(0);
    if start < SHORTEST_START { 0 } else { start }
}
