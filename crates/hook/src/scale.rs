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
mod tests {
    use candle_core::DType;

    use super::*;
    use crate::{Recorded, Span, spec::tests::hybrid};

    fn plan(text: &str) -> HeadPlan {
        crate::HeadList::parse(text).unwrap().plan(None).unwrap()
    }

    fn scale(plans: &[HeadPlan]) -> Result<HeadScale> {
        HeadScale::compile(plans, &hybrid(), &Device::Cpu)
    }

    fn span(slot: usize, len: usize, row: usize) -> Span {
        Span { slot, start: 0, len, row, prompt: Span::ALL_PROMPT }
    }

    #[test]
    fn a_window_that_nothing_reaches_is_named_before_its_heads_fill_the_screen() {
        let heads: Vec<HeadRef> = (0..9).map(|head| HeadRef::query(0, head)).collect();
        let plan = HeadPlan::uniform(&heads, 1.0).unwrap().at(Positions::Window { first: 500, last: 600 });
        let error = check_fired(&[plan], &[BTreeMap::new()]).unwrap_err();
        let named =
            "the plan names L0H0, L0H1, L0H2, L0H3, L0H4 and 4 more at window:500..600 but the hook never fired there";
        assert!(error.to_string().starts_with(named), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("reaches the window")));
    }

    #[test]
    fn each_row_gets_its_own_lambda_and_only_planned_heads_move() -> Result<()> {
        let mut tap = scale(&[HeadPlan::none(), plan("L2H1:0.5"), plan("L2H0:0,L2H2:-2")])?;
        tap.begin(&Batch::new(vec![span(0, 1, 1), span(1, 2, 2), span(2, 1, 0)]))?;
        assert!(tap.lambda(Site::Z(0))?.is_none() && tap.lambda(Site::ResidPost(2))?.is_none());
        let lambda = tap.lambda(Site::Z(2))?.expect("the plans touch layer 2");
        assert_eq!(lambda.to_vec2::<f32>()?, [[1., 0.5, 1.], [0., 1., -2.], [0., 1., -2.], [1., 1., 1.]]);
        assert_eq!(tap.fired()[2].values().copied().collect::<Vec<_>>(), [2, 2]);
        tap.check_fired().map_err(candle_core::Error::wrap)
    }

    #[test]
    fn every_site_has_its_own_factors_whatever_its_heads() -> Result<()> {
        let spec = hybrid();
        let heads: Vec<HeadRef> = (0..spec.layers.len()).flat_map(|layer| spec.heads_of(layer)).collect();
        let factor = |i: usize| 2.0 + i as f32;
        let all = |i: usize| HeadPlan::uniform(&[heads[i]], factor(i)).unwrap();
        let plans: Vec<HeadPlan> = (0..heads.len()).map(all).collect();
        let mut tap = scale(&plans)?;
        let spans = (0..heads.len()).map(|row| span(row, 1, row));
        tap.begin(&Batch::new(spans.collect()))?;
        for (i, at) in heads.iter().enumerate() {
            let lambda = tap.lambda(at.site())?.expect("a plan touches it");
            assert!(lambda.is_contiguous());
            for (row, own) in lambda.to_vec2::<f32>()?.into_iter().enumerate() {
                let expected = if row == i { factor(i) } else { 1.0 };
                assert_eq!(own[at.head], expected, "{at} in row {row}");
            }
        }
        tap.check_fired().map_err(candle_core::Error::wrap)
    }

    #[test]
    fn at_rest_nothing_of_a_forward_is_held() -> Result<()> {
        let mut tap = scale(&[plan("L0H1:0.5")])?;
        tap.begin(&Batch::new(vec![span(0, 2, 0)]))?;
        assert!(tap.lambda(Site::Z(0))?.is_some());
        tap.rest();
        assert!(tap.gathered.is_none());
        let error = tap.lambda(Site::Z(0)).unwrap_err().to_string();
        assert!(error.contains("before a forward began"), "{error}");
        Ok(())
    }

    #[test]
    fn a_plan_touches_and_counts_its_positions_only() -> Result<()> {
        let at = |positions: &str| plan("L0H1:0.5").at(positions.parse().unwrap());
        let mut tap = scale(&[at("prompt"), at("response"), at("window:5..8")])?;
        let spans = (0..3).map(|row| Span { slot: row, start: 4, len: 3, row, prompt: 5 });
        tap.begin(&Batch::new(spans.collect()))?; // positions 4, 5, 6 of each
        let lambda = tap.lambda(Site::Z(0))?.expect("the plans touch layer 0").narrow(1, 1, 1)?;
        let lambda = lambda.flatten_all()?.to_vec1::<f32>()?;
        assert_eq!(lambda, [0.5, 1., 1., 1., 0.5, 0.5, 1., 0.5, 0.5]);
        let fired: Vec<u64> = tap.fired().iter().flat_map(|row| row.values().copied()).collect();
        assert_eq!(fired, [1, 2, 2]);
        Ok(())
    }

    #[test]
    fn a_plan_outside_its_positions_has_not_fired() -> Result<()> {
        let mut tap = scale(&[plan("L0H1:0.5").at("response".parse().unwrap())])?;
        tap.begin(&Batch::new(vec![span(0, 4, 0)]))?;
        let lambda = tap.lambda(Site::Z(0))?.expect("the plan touches layer 0");
        assert_eq!(lambda.sum_all()?.to_scalar::<f32>()?, 8.0);
        assert!(tap.check_fired().unwrap_err().to_string().contains("L0H1"));
        Ok(())
    }

    #[test]
    fn value_heads_of_a_delta_net_are_scaled_at_their_own_site() -> Result<()> {
        let mut tap = scale(&[plan("L1V2:0.5")])?;
        tap.begin(&Batch::single(1))?;
        assert!(tap.lambda(Site::Z(1))?.is_none());
        let lambda = tap.lambda(Site::LinearZ(1))?.expect("the plan touches layer 1");
        assert_eq!(lambda.to_vec2::<f32>()?, [[1., 1., 0.5, 1.]]);
        tap.check_fired().map_err(candle_core::Error::wrap)
    }

    #[test]
    fn every_sequence_is_counted_by_itself_and_with_what_it_was_copied_from() -> Result<()> {
        let plans = [plan("L0H1:0.5,L2H1:0.5"), plan("L2H0:1").at("response".parse().unwrap())];
        let mut tap = scale(&plans)?;
        let mut read = |spans: Vec<Span>, sites: &[Site]| -> Result<()> {
            tap.begin(&Batch::new(spans))?;
            sites.iter().try_for_each(|&site| tap.lambda(site).map(|_| ()))
        };
        let both = [Site::Z(0), Site::Z(2)];
        read(vec![span(0, 3, 0)], &both)?; // a start that others share
        let of = |slot, start, len, row| Span { slot, start, len, row, prompt: 4 };
        tap.take_slot(1, Some(0));
        tap.take_slot(2, None);
        let mut read = |spans: Vec<Span>, sites: &[Site]| -> Result<()> {
            tap.begin(&Batch::new(spans))?;
            sites.iter().try_for_each(|&site| tap.lambda(site).map(|_| ()))
        };
        read(vec![of(1, 3, 2, 0), of(2, 0, 6, 1)], &both)?;
        assert_eq!(tap.check_slot(1, 0, (5, 4)).ok(), Some(10), "five tokens by two heads, three of them copied");
        assert_eq!(tap.check_slot(2, 1, (6, 4)).ok(), Some(2), "two tokens behind its prompt");
        tap.take_slot(2, None);
        assert_eq!(tap.check_slot(2, 1, (4, 4)).ok(), Some(0), "a new sequence, of which nothing is planned yet");
        // A layer does not ask for λ: the sequence is refused, whichever other heads of its plan were applied.
        tap.take_slot(1, None);
        tap.begin(&Batch::new(vec![of(1, 0, 4, 0)]))?;
        tap.lambda(Site::Z(0))?;
        let error = tap.check_slot(1, 0, (4, 4)).unwrap_err().to_string();
        assert!(error.contains("2 heads at all positions") && error.contains("applied to 4 of 8"), "{error}");
        Ok(())
    }

    #[test]
    fn a_plan_that_never_fired_is_an_error() -> Result<()> {
        let mut tap = scale(&[plan("L0H1:0.5,L2H1:0.5")])?;
        tap.begin(&Batch::single(1))?;
        tap.lambda(Site::Z(0))?;
        let message = tap.check_fired().unwrap_err().to_string();
        assert!(message.contains("L2H1") && !message.contains("L0H1"), "{message}");
        Ok(())
    }

    #[test]
    fn steps_that_are_played_count_where_the_recorded_one_asked() -> Result<()> {
        let mut tap = scale(&[plan("L0H1:0.5,L2H1:0.5")])?;
        let numbers = || Tensor::zeros(1, DType::U32, &Device::Cpu);
        let recorded = Recorded { positions: numbers()?, rows: numbers()?, attention: numbers()?, states: numbers()? };
        tap.begin(&Batch::recorded(vec![span(0, 1, 0)], recorded))?;
        assert!(tap.lambda(Site::Z(0))?.is_some());
        assert!(tap.fired()[0].values().all(|&tokens| tokens == 0), "recording is not reading");
        tap.played(0, 0, 3);
        assert_eq!(tap.fired()[0].values().copied().collect::<Vec<_>>(), [3, 0]);
        let error = tap.check_slot(0, 0, (3, 3)).unwrap_err().to_string();
        assert!(error.contains("applied to 3 of 6 head-tokens"), "{error}");
        assert!(tap.check_fired().unwrap_err().to_string().contains("L2H1"));
        Ok(())
    }

    #[test]
    fn whoever_reads_sees_what_the_plan_left() -> Result<()> {
        let (mut plan, mut seen) = (scale(&[plan("L0H1:0.5")])?, crate::Recorder::default());
        let mut taps = crate::Tee(vec![&mut seen, &mut plan]);
        let tap: &mut dyn Tap = &mut taps;
        tap.begin(&Batch::single(1))?;
        let ones = Tensor::ones((1, 2, 4), DType::F32, &Device::Cpu)?;
        tap.heads(Site::Z(0), |lambda| ones.broadcast_mul(&lambda.expect("planned").unsqueeze(2)?))?;
        assert_eq!(seen.0[0].1.sum(2)?.to_vec2::<f32>()?, [[4., 2.]]);
        Ok(())
    }

    #[test]
    fn a_plan_for_another_model_is_refused_before_anything_runs() {
        let message = scale(&[plan("L1H0:0.5")]).err().expect("layer 1 is a delta net").to_string();
        assert!(message.contains("the heads of layer 1 are L1V0 to L1V3"), "{message}");
    }
}
