//! A plan at work: the tap that scales heads.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use candle_core::{Device, Result, Tensor};

use crate::{Batch, HeadPlan, HeadRef, ModelSpec, PlanError, Positions, Site, Tap};

/// Scales each planned head's z by its λ, each row of the batch by its own plan. Made from [`HeadPlan`]s.
///
/// The mixer multiplies as it writes z, so a plan needs no extra pass over the heads. The tap counts how many tokens each
/// planned head was applied to, so that a plan which fired nowhere can be told from a null result: see
/// [`HeadScale::check_fired`].
pub struct HeadScale {
    plans: Vec<HeadPlan>,
    /// One table for all touched sites with the same number of heads: λ `[site, row + 1, head]` f32, 1 where a row does not
    /// touch a head. The last row touches none.
    tables: Vec<Tensor>,
    /// Where a touched site is found: the index of its table, and its index in that table.
    places: BTreeMap<Site, (usize, usize)>,
    /// Per touched site and row: tokens that λ was applied to, at the plan's positions.
    fired: BTreeMap<Site, Vec<u64>>,
    /// Per touched site and row: heads that the plan names there.
    heads: BTreeMap<Site, Vec<u64>>,
    /// Per cache slot: head-tokens that were counted for the sequence it holds.
    of_slot: Vec<u64>,
    /// For the current forward, per table: λ of every token, `[site, n, head]`. All layers are gathered at once, so that tempering
    /// every head launches no more device operations than tempering one.
    gathered: Option<Vec<Tensor>>,
    /// For the current forward: slots with tokens at their plans' positions, each with its row and how many such tokens.
    tokens: Vec<(usize, usize, u64)>,
    /// Whether the current forward is recorded; and the touched sites at which a recorded one has asked for λ.
    recording: bool,
    recorded: BTreeSet<Site>,
    device: Device,
}

impl HeadScale {
    /// Compiles plans against the model, one plan per row: row `i` of the λ table is `plans[i]`.
    ///
    /// # Errors
    /// If a plan names a layer or head that the model does not have.
    pub fn compile(plans: &[HeadPlan], spec: &ModelSpec, device: &Device) -> Result<Self> {
        let mut values: BTreeMap<Site, Vec<f32>> = BTreeMap::new();
        let mut named: BTreeMap<Site, Vec<u64>> = BTreeMap::new();
        for (row, plan) in plans.iter().enumerate() {
            plan.check(spec).map_err(candle_core::Error::wrap)?;
            for (at, lambda) in plan.iter() {
                let heads = spec.head_count(at.layer);
                let table = values.entry(at.site()).or_insert_with(|| vec![1.0; (plans.len() + 1) * heads]);
                table[row * heads + at.head] = lambda;
                named.entry(at.site()).or_insert_with(|| vec![0; plans.len()])[row] += 1;
            }
        }
        let fired = values.keys().map(|&site| (site, vec![0; plans.len()])).collect();
        // Groups the sites by number of heads: that number, how many sites, and their rows.
        let mut groups: Vec<(usize, usize, Vec<f32>)> = Vec::new();
        let mut places = BTreeMap::new();
        for (site, own) in values {
            let heads = own.len() / (plans.len() + 1);
            let table = groups.iter().position(|group| group.0 == heads).unwrap_or(groups.len());
            if table == groups.len() {
                groups.push((heads, 0, Vec::new()));
            }
            let (_, sites, all) = &mut groups[table];
            places.insert(site, (table, *sites));
            *sites += 1;
            all.extend(own);
        }
        let table = |(heads, sites, all)| Tensor::from_vec(all, (sites, plans.len() + 1, heads), device);
        let tables = groups.into_iter().map(table).collect::<Result<_>>()?;
        let (plans, device) = (plans.to_vec(), device.clone());
        Ok(Self {
            plans,
            tables,
            places,
            fired,
            heads: named,
            of_slot: Vec::new(),
            gathered: None,
            tokens: Vec::new(),
            recording: false,
            recorded: BTreeSet::new(),
            device,
        })
    }

    /// The row of the λ table for a token at `position` under plan `plan`: the plan's own, or the last, which touches no head.
    ///
    /// # Panics
    /// If there is no such plan.
    pub fn row_of(&self, plan: usize, position: usize, prompt: usize) -> usize {
        if self.plans[plan].positions().cover(position, prompt) { plan } else { self.plans.len() }
    }

    /// Whether [`HeadScale::row_of`] is the same at all these positions.
    ///
    /// # Panics
    /// If there is no such plan.
    pub fn one_row(&self, plan: usize, positions: Range<usize>, prompt: usize) -> bool {
        self.plans[plan].positions().all_or_none(positions, prompt)
    }

    /// Gathers λ for the current forward; `rows` holds each token's row of the λ table, u32 `[n]`.
    fn gather(&mut self, rows: &Tensor) -> Result<()> {
        self.gathered = Some(self.tables.iter().map(|table| table.index_select(rows, 1)).collect::<Result<_>>()?);
        Ok(())
    }

    /// Drops the tensors of the last forward: what a recorded pass has allocated must not outlive it.
    pub fn rest(&mut self) {
        self.gathered = None;
    }

    /// Counts tokens at a plan's positions that the sequence of a slot has read in played-back passes. Those passes do not call
    /// this tap; they apply λ at every site where the recorded pass asked for it.
    ///
    /// # Panics
    /// If there is no such plan.
    pub fn played(&mut self, slot: usize, plan: usize, tokens: u64) {
        for site in &self.recorded {
            let fired = self.fired.get_mut(site).expect("every touched site is counted");
            fired[plan] += tokens;
            *counted(&mut self.of_slot, slot) += tokens * self.heads[site][plan];
        }
    }

    /// Gives a slot to a new sequence. Its count starts at 0, or at that of the slot `copied`, if it begins as a copy of that.
    pub fn take_slot(&mut self, slot: usize, copied: Option<usize>) {
        let head_tokens = copied.map_or(0, |from| *counted(&mut self.of_slot, from));
        *counted(&mut self.of_slot, slot) = head_tokens;
    }

    /// How many tokens a plan was applied to at each touched site so far.
    ///
    /// # Panics
    /// If there is no such plan.
    pub fn applied(&self, plan: usize) -> Vec<u64> {
        self.fired.values().map(|fired| fired[plan]).collect()
    }

    /// Counts these tokens of a plan's sites once more: those of a sequence that began as a copy of what was read for another.
    ///
    /// # Panics
    /// If there is no such plan, or `tokens` is not of [`HeadScale::applied`].
    pub fn apply_again(&mut self, plan: usize, tokens: &[u64]) {
        assert_eq!(tokens.len(), self.fired.len(), "one number for each touched site");
        for (fired, tokens) in self.fired.values_mut().zip(tokens) {
            fired[plan] += tokens;
        }
    }

    /// Refuses a sequence whose planned heads were not applied to exactly as many tokens as its plan says. Its slot holds `read`
    /// tokens, `prompt` of which are its prompt's. Returns the head-tokens that were counted.
    ///
    /// # Errors
    /// Says how many there were, and how many there must be.
    ///
    /// # Panics
    /// If there is no such plan.
    pub fn check_slot(
        &self,
        slot: usize,
        plan: usize,
        (read, prompt): (usize, usize),
    ) -> std::result::Result<u64, PlanError> {
        let positions = self.plans[plan].positions();
        let heads = self.plans[plan].iter().count();
        let planned = (heads * positions.count(read, prompt)) as u64;
        let applied = self.of_slot.get(slot).copied().unwrap_or_default();
        if applied == planned { Ok(applied) } else { Err(PlanError::Missed { heads, positions, applied, planned }) }
    }

    /// How many tokens each planned head of each row was applied to.
    pub fn fired(&self) -> Vec<BTreeMap<HeadRef, u64>> {
        let of = |row: usize, plan: &HeadPlan| plan.iter().map(|(at, _)| (at, self.fired[&at.site()][row])).collect();
        self.plans.iter().enumerate().map(|(row, plan)| of(row, plan)).collect()
    }

    /// Refuses a run in which a planned head was never applied: its result would look like a null.
    ///
    /// # Errors
    /// Names the heads that never fired.
    pub fn check_fired(&self) -> std::result::Result<(), PlanError> {
        check_fired(&self.plans, &self.fired())
    }

    /// The same for the plans at these places alone, where no row had the others.
    ///
    /// # Errors
    /// Names the heads that never fired.
    pub fn check_fired_in(&self, used: &BTreeSet<usize>) -> std::result::Result<(), PlanError> {
        let fired = self.fired();
        used.iter().try_for_each(|&at| check_fired(&self.plans[at..=at], &fired[at..=at]))
    }
}

/// The count of a slot.
fn counted(of_slot: &mut Vec<u64>, slot: usize) -> &mut u64 {
    if of_slot.len() <= slot {
        of_slot.resize(slot + 1, 0);
    }
    &mut of_slot[slot]
}

/// [`HeadScale::check_fired`] on given counts, one map per plan, such as the sums over a run's parts.
///
/// # Errors
/// Names the heads that never fired.
pub fn check_fired(plans: &[HeadPlan], fired: &[BTreeMap<HeadRef, u64>]) -> std::result::Result<(), PlanError> {
    let idle = plans.iter().zip(fired).flat_map(|(plan, fired)| {
        let idle = plan.iter().map(|(at, _)| at).filter(|at| fired.get(at).is_none_or(|&count| count == 0));
        let positions = plan.positions();
        idle.map(move |at| (at, positions))
    });
    let idle: Vec<(HeadRef, Positions)> = idle.collect();
    let Some(&(_, positions)) = idle.first() else { return Ok(()) };
    // The error names one plan's positions: those of the first plan with a head that never fired.
    let here = idle.into_iter().filter(|&(_, at)| at == positions).map(|(head, _)| head);
    let heads: BTreeSet<HeadRef> = here.collect();
    Err(PlanError::NeverFired { heads: heads.into_iter().collect(), positions })
}

impl Tap for HeadScale {
    fn begin(&mut self, batch: &Batch) -> Result<()> {
        self.recording = batch.on_device().is_some();
        if let Some(recorded) = batch.on_device() {
            // Whoever plays the recording back does the counting: see `played`.
            self.tokens.clear();
            return self.gather(&recorded.rows);
        }
        self.tokens.clear();
        let mut rows: Vec<u32> = Vec::with_capacity(batch.tokens());
        for span in batch.spans() {
            if span.row >= self.plans.len() {
                candle_core::bail!("row {} of the batch has no plan; there are {}", span.row, self.plans.len());
            }
            let untouched = self.plans.len();
            rows.extend(span.positions().map(|position| self.row_of(span.row, position, span.prompt) as u32));
            let covered = rows[rows.len() - span.len..].iter().filter(|&&row| row as usize != untouched).count();
            if covered > 0 {
                self.tokens.push((span.slot, span.row, covered as u64));
            }
        }
        self.gather(&Tensor::from_vec(rows, batch.tokens(), &self.device)?)
    }

    fn wants(&self, _: Site) -> bool {
        false
    }

    fn at(&mut self, _: Site, x: Tensor) -> Result<Tensor> {
        Ok(x)
    }

    fn lambda(&mut self, site: Site) -> Result<Option<Tensor>> {
        let Some(&(table, place)) = self.places.get(&site) else { return Ok(None) };
        let Some(gathered) = &self.gathered else {
            candle_core::bail!("a plan was asked at {site} before a forward began");
        };
        if self.recording {
            self.recorded.insert(site);
        }
        let fired = self.fired.get_mut(&site).expect("every touched site is counted");
        let heads = &self.heads[&site];
        for &(slot, row, tokens) in &self.tokens {
            fired[row] += tokens;
            *counted(&mut self.of_slot, slot) += tokens * heads[row];
        }
        gathered[table].get(place).map(Some) // [n, heads]
    }
}

#[cfg(test)]
mod tests;
