//! Generations for every prompt under every arm, as rows of one batch; rows that exist are not generated again.

mod answers;
mod arms;
pub(crate) mod asymmetry;
mod beside_random;
mod compare;
pub mod compared;
pub(crate) mod csv;
mod earlier;
pub(crate) mod examples;
pub(crate) mod files;
pub(crate) mod mark;
mod of_seeds;
pub mod outcome;
pub(crate) mod reading;
pub(crate) mod run;
pub(crate) mod text;
mod touched;
mod warnings;
mod withhold;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicBool},
};

use headtemper_engine::{
    Engine, EngineError, Event, FinishReason, GenerateOptions, Identity, MemoryPlan, Request, Sampling, StopRule,
};
use headtemper_hook::HeadPlan;
use serde::{Deserialize, Serialize};

use crate::{
    HookCounts, Item, Progress, Result, Row, RowLog, StudyError,
    capture::prompts,
    error::{back, through},
    progress::Lengths,
    store::digest::{Begun, noise_of},
};

pub use answers::SweptAnswers;
pub use arms::{ArmsWanted, RandomFrom, arms, check_arms};
pub use compare::{Answered, outcomes_of};
pub use mark::{JudgedAnswers, Mark};
pub use run::{SweepRun, merge_sweep, sweep_run};
pub use text::sweep_markdown;
pub(crate) use touched::{check_reach, fired_by_arm, fired_of};

/// What an arm of a sweep is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The untouched model, which all others are compared with.
    Reference,
    /// λ = 1 through every hook: what differs from the reference is rounding and batching alone.
    Control,
    /// A head set that was asked for.
    Tempered,
    /// Heads drawn at random: what any heads would have done.
    Random,
}

/// One arm of a sweep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    /// Its name in the rows.
    pub variant: String,
    /// The name of its head set.
    pub set: String,
    /// λ of the set.
    pub lambda: f32,
    /// What it is for.
    pub role: Role,
    /// Which heads the random sets beside its set are drawn from; for a random set, which heads it was drawn from.
    #[serde(default, skip_serializing_if = "RandomFrom::is_model")]
    pub random_from: RandomFrom,
    /// The plan.
    #[serde(with = "plan_text")]
    pub plan: HeadPlan,
}

/// A plan in a file, as it is written: `L7H6:0.5,L23H1:0.5`, or `none`.
mod plan_text {
    use headtemper_hook::{HeadList, HeadPlan};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(plan: &HeadPlan, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(plan)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<HeadPlan, D::Error> {
        match String::deserialize(from)?.as_str() {
            "none" => Ok(HeadPlan::none()),
            text => HeadList::parse(text).and_then(|list| list.plan(None)).map_err(D::Error::custom),
        }
    }
}

impl Arm {
    /// The untouched model.
    pub fn base() -> Self {
        let (variant, set) = ("base".into(), String::new());
        let (role, random_from) = (Role::Reference, RandomFrom::Model);
        Self { variant, set, lambda: 1.0, role, random_from, plan: HeadPlan::none() }
    }
}

/// How to generate.
#[derive(Clone)]
pub struct SweepOptions<'a> {
    /// Most new tokens per answer.
    pub max_new_tokens: usize,
    /// How tokens are chosen; its seed is replaced by each of `seeds`.
    pub sampling: Sampling,
    /// One generation per item, arm and seed. Greedy decoding needs one seed.
    pub seeds: Vec<u64>,
    /// Which tokens end an answer before the limit.
    pub ends: StopRule,
    /// The most rows that are decoded together; fewer where memory is short. By default, what suits the device.
    pub max_rows: Option<usize>,
    /// The most memory to take, in bytes; by default, what the machine has available.
    pub memory: Option<u64>,
    /// When set from outside, generation stops after the current step.
    pub stop: Option<&'a AtomicBool>,
}

impl SweepOptions<'_> {
    /// The options in the engine's form.
    pub(crate) fn generation(&self, engine: &Engine) -> GenerateOptions<'_> {
        let (max_rows, memory, stop) = (self.max_rows.unwrap_or_else(|| engine.rows_at_once()), self.memory, self.stop);
        GenerateOptions { max_rows, memory, stop, ..GenerateOptions::default() }
    }

    /// Refuses invalid settings.
    ///
    /// # Errors
    /// If a setting is invalid; the error says what is allowed.
    pub fn check(&self) -> Result<()> {
        self.sampling.check()?;
        let wrong = |what: &str, found: String, allowed: &str| Err(StudyError::option(what, found, allowed));
        if self.max_new_tokens == 0 {
            return wrong("max_new_tokens", "0".into(), "at least 1");
        }
        let distinct: BTreeSet<u64> = self.seeds.iter().copied().collect();
        if distinct.len() != self.seeds.len() || distinct.is_empty() {
            return wrong("the list of seeds", format!("{:?}", self.seeds), "different numbers, at least one");
        }
        if self.sampling.temperature == 0.0 && self.seeds.len() > 1 {
            return wrong(
                "the list of seeds",
                format!("{:?}", self.seeds),
                "one, since greedy answers do not depend on it",
            );
        }
        Ok(())
    }
}

/// What determines all rows of an item; what else determines one follows in [`Determinants`].
#[derive(Serialize)]
struct OfItem<'a> {
    identity: &'a Identity,
    ids: &'a [u32],
}

/// What determines a row of an item.
#[derive(Serialize)]
struct Determinants<'a> {
    plan: &'a str,
    sampling: &'a Sampling,
    max_new_tokens: usize,
    #[serde(skip_serializing_if = "is_default")]
    ends: &'a StopRule,
    /// How noise becomes a token; absent for greedy answers, which need none.
    #[serde(skip_serializing_if = "Option::is_none")]
    draw: Option<&'static str>,
    /// Two arms of the same plan are two measurements.
    variant: &'a str,
    item: &'a str,
}

/// The name of the method that turns noise into a token (`headtemper_engine::Sampling::next`).
const DRAW: &str = "gumbel";

/// Whether rows end by the default rule: if so, their keys stay as they always were.
pub(crate) fn is_default(ends: &StopRule) -> bool {
    *ends == StopRule::default()
}

/// A row that is wanted: where it belongs, and what makes it.
pub(crate) struct Wanted {
    pub(crate) arm: usize,
    pub(crate) item: usize,
    pub(crate) key: String,
    pub(crate) request: Request,
}

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
    let wanted = wanted(engine, items, &prompts(engine, items)?, arms, options);
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

/// Every wanted row, arm by arm, so that neighbouring rows share the start of their prompts.
pub(crate) fn wanted(
    engine: &Engine,
    items: &[Item],
    prompts: &[Vec<u32>],
    arms: &[Arm],
    options: &SweepOptions<'_>,
) -> Vec<Wanted> {
    // A prompt is kept and hashed once, however many arms it is answered under.
    let of_item =
        |ids: &Vec<u32>| (Arc::<[u32]>::from(ids.as_slice()), Begun::new(&OfItem { identity: engine.identity(), ids }));
    let prompts: Vec<_> = prompts.iter().map(of_item).collect();
    let mut wanted = Vec::with_capacity(arms.len() * items.len() * options.seeds.len());
    for (arm_index, arm) in arms.iter().enumerate() {
        let plan = arm.plan.to_string();
        for &seed in &options.seeds {
            for (index, item) in items.iter().enumerate() {
                let sampling = Sampling { seed, ..options.sampling.clone() };
                let (ids, begun) = &prompts[index];
                let key = begun.digest(&Determinants {
                    plan: &plan,
                    sampling: &sampling,
                    max_new_tokens: options.max_new_tokens,
                    ends: &options.ends,
                    draw: (sampling.temperature > 0.0).then_some(DRAW),
                    variant: &arm.variant,
                    item: &item.id,
                });
                let request = Request {
                    ids: ids.clone(),
                    plan: arm_index,
                    sampling,
                    noise: noise_of(&item.id),
                    max_new_tokens: options.max_new_tokens,
                    stop: options.ends.clone(),
                };
                wanted.push(Wanted { arm: arm_index, item: index, key, request });
            }
        }
    }
    wanted
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
