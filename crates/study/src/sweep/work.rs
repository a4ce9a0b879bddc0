//! Generation of the rows that a log lacks.

use std::collections::BTreeSet;

use headtemper_engine::{Engine, EngineError, Event, FinishReason, GenerateOptions, MemoryPlan, Request};
use headtemper_hook::HeadPlan;

use super::{
    Arm, SweepOptions,
    touched::{check_reach, fired_by_arm},
    wanted::{Wanted, wanted},
};
use crate::{
    HookCounts, Item, Progress, Result, Row, RowLog,
    capture::prompts_of_some,
    error::{back, through},
    progress::Lengths,
};

/// Generates every missing row and returns all, `[arm][seed * items + item]`, with how many head-tokens the plan of each arm
/// was applied to.
///
/// # Errors
/// If a plan or prompt does not fit the model, a plan was applied to nothing, the log cannot be written, or the run is stopped:
/// finished rows stay.
pub fn sweep(
    engine: &Engine,
    items: &[Item],
    arms: &[Arm],
    options: &SweepOptions<'_>,
    log: &mut RowLog,
    progress: &mut dyn Progress,
) -> Result<(Vec<Vec<Row>>, HookCounts)> {
    options.check()?;
    let wanted = wanted(engine, items, &prompts_of_some(engine, items)?, arms, options);
    check_reach(engine, arms, &wanted)?;
    fill(engine, (items, arms), &wanted, options, log, progress)?;
    let keys: Vec<&str> = wanted.iter().map(|w| w.key.as_str()).collect();
    let rows = by_arm(log, &keys, arms.len());
    let fired = fired_by_arm((items, &options.seeds), arms, &rows)?;
    Ok((rows, fired))
}

/// The rows of each arm, `[arm][seed * items + item]`, from a log that has them all.
pub(crate) fn by_arm(log: &RowLog, keys: &[impl AsRef<str>], arms: usize) -> Vec<Vec<Row>> {
    let row = |key: &dyn AsRef<str>| log.get(key.as_ref()).expect("every wanted row is there").clone();
    let rows = keys.len() / arms; // none, if there are no items
    (0..arms).map(|arm| keys[arm * rows..][..rows].iter().map(|key| row(key)).collect()).collect()
}

/// Generates the wanted rows that the log lacks.
///
/// # Errors
/// As [`sweep`], except for plans that were applied to nothing: callers that have all rows check for those.
pub(crate) fn fill(
    engine: &Engine,
    (items, arms): (&[Item], &[Arm]),
    wanted: &[Wanted],
    options: &SweepOptions<'_>,
    log: &mut RowLog,
    progress: &mut dyn Progress,
) -> Result<()> {
    let missing: Vec<&Wanted> = wanted.iter().filter(|w| log.get(&w.key).is_none()).collect();
    let work = Work::of(engine, items, arms, &missing, options)?;
    if let Some(memory) = &work.memory {
        progress.note(&format!("memory     {memory}"));
    }
    progress.begin("generate", wanted.len(), wanted.len() - missing.len());
    work.generate(engine, items, arms, options, log, progress)?;
    progress.end();
    Ok(())
}

/// Refuses items that cannot be answered in the available memory, before anything is written.
pub(crate) fn check_memory(
    engine: &Engine,
    items: &[Item],
    prompts: &[Vec<u32>],
    options: &SweepOptions<'_>,
) -> Result<()> {
    let arms = [Arm::base()];
    let one = SweepOptions { seeds: vec![options.sampling.seed], ..options.clone() };
    let wanted = wanted(engine, items, prompts, &arms, &one);
    Work::of(engine, items, &arms, &wanted.iter().collect::<Vec<_>>(), &one)?;
    Ok(())
}

/// The rows that are missing, and the memory they take.
pub(crate) struct Work<'a> {
    missing: &'a [&'a Wanted],
    pub(crate) requests: Vec<Request>,
    pub(crate) plans: Vec<HeadPlan>,
    /// None if no row is missing.
    pub(crate) memory: Option<MemoryPlan>,
}

impl<'a> Work<'a> {
    /// # Errors
    /// If an item does not fit the memory; the error names it.
    pub(crate) fn of(
        engine: &Engine,
        items: &[Item],
        arms: &[Arm],
        missing: &'a [&'a Wanted],
        options: &SweepOptions<'_>,
    ) -> Result<Self> {
        let used: Vec<usize> = missing.iter().map(|w| w.arm).collect::<BTreeSet<_>>().into_iter().collect();
        let plans: Vec<HeadPlan> = used.iter().map(|&arm| arms[arm].plan.clone()).collect();
        let plan_of = |w: &Wanted| used.binary_search(&w.arm).expect("it is used");
        let requests: Vec<Request> =
            missing.iter().map(|w| Request { plan: plan_of(w), ..w.request.clone() }).collect();
        let name = |row: usize| format!("item '{}'", items[missing[row].item].id);
        let memory = if requests.is_empty() {
            None
        } else {
            Some(engine.plan_generation(&requests, plans.len(), &options.generation(engine), &name)?)
        };
        Ok(Self { missing, requests, plans, memory })
    }

    /// The most tokens that the missing rows can have.
    pub(crate) fn most_new_tokens(&self, engine: &Engine) -> usize {
        let room = |request: &Request| engine.spec().context - request.ids.len();
        self.requests.iter().map(|request| request.max_new_tokens.min(room(request))).sum()
    }

    fn generate(
        &self,
        engine: &Engine,
        items: &[Item],
        arms: &[Arm],
        options: &SweepOptions<'_>,
        log: &mut RowLog,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let Some(memory) = &self.memory else { return Ok(()) };
        let (max_rows, memory) = (memory.rows, memory.limit);
        let settings = GenerateOptions { max_rows, memory, partial: true, ..options.generation(engine) };
        let most = self.most_new_tokens(engine);
        let mut lengths = Lengths::up_to(self.requests.len(), most);
        lengths.tell(progress);
        let done = engine.generate(&self.requests, &self.plans, &settings, |event| {
            let (row, result) = match event {
                Event::Token { .. } => {
                    lengths.token();
                    progress.tokens(1);
                    return Ok(());
                }
                Event::Done { row, result } => (row, result),
            };
            let w = self.missing[row];
            let item = &items[w.item];
            // The last token of a cut-off answer is written but not read; the last one before a stop token is read to choose that token.
            let cut = result.finish_reason == FinishReason::Length && !result.ids.is_empty();
            let read = w.request.ids.len() + result.ids.len() - usize::from(cut);
            let row = Row {
                touched: arms[w.arm].plan.positions().touch(read, w.request.ids.len()),
                key: w.key.clone(),
                id: item.id.clone(),
                variant: arms[w.arm].variant.clone(),
                seed: w.request.sampling.seed,
                prompt: item.prompt_text(),
                response: engine.tokenizer().decode(&result.ids)?,
                finish_reason: result.finish_reason,
                n_tokens: result.ids.len(),
                sum_logprob: result.sum_logprob,
                response_ids: result.ids.clone(),
                fired: Some(result.fired),
            };
            log.append(row).map_err(through)?;
            lengths.done();
            lengths.tell(progress);
            progress.step();
            Ok::<(), EngineError>(())
        });
        done.map(|_| ()).map_err(back)
    }
}
