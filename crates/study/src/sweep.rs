//! Generations for every prompt under every arm, as rows of one batch; what is there already is not done again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicBool,
};

use headtemper_engine::{
    Engine, EngineError, Event, GenerateOptions, Identity, MemoryPlan, Request, Sampling, StopRule,
};
use headtemper_hook::{HeadPlan, HeadRef};
use serde::Serialize;

use crate::{
    Item, Judge, Progress, Result, Row, RowLog, StudyError,
    capture::prompts,
    digest::{digest, noise_of},
    error::{back, through},
    outcome::{SweepTable, outcome},
    progress::Lengths,
};

/// One plan of a sweep.
#[derive(Clone, Debug, PartialEq)]
pub struct Arm {
    /// Its name in the rows.
    pub variant: String,
    /// The name of its head set.
    pub set: String,
    /// λ of the set.
    pub lambda: f32,
    /// Whether the same λ stands before it: what differs from the first is batching and rounding alone.
    pub control: bool,
    /// The plan.
    pub plan: HeadPlan,
}

impl Arm {
    /// The untouched model.
    pub fn base() -> Self {
        Self { variant: "base".into(), set: String::new(), lambda: 1.0, control: false, plan: HeadPlan::none() }
    }
}

/// Heads of a set that are written out in its name; longer sets are numbered by their content.
const NAMED_HEADS: usize = 8;

/// The name of a head set.
pub(crate) fn set_name(heads: &[HeadRef]) -> String {
    if heads.len() <= NAMED_HEADS {
        return heads.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
    }
    let names: Vec<String> = heads.iter().map(ToString::to_string).collect();
    format!("{}heads-{}", heads.len(), &digest(&names)[..8])
}

/// Every λ of every set. A λ that is listed again becomes a control arm.
///
/// # Errors
/// If λ is not finite, or nothing is listed.
pub fn arms(sets: &[Vec<HeadRef>], lambdas: &[f32]) -> Result<Vec<Arm>> {
    let mut arms: Vec<Arm> = Vec::new();
    for heads in sets {
        let set = set_name(heads);
        for &lambda in lambdas {
            let before = arms.iter().filter(|arm| arm.set == set && arm.lambda == lambda).count();
            let again = if before == 0 { String::new() } else { format!("#{}", before + 1) };
            arms.push(Arm {
                variant: format!("{set}@{lambda}{again}"),
                set: set.clone(),
                lambda,
                control: before > 0,
                plan: HeadPlan::uniform(heads, lambda)?,
            });
        }
    }
    if arms.is_empty() {
        let allowed = "at least one head set and one lambda".into();
        return Err(StudyError::Option { what: "the sweep".into(), found: "empty".into(), allowed });
    }
    Ok(arms)
}

/// How many head-tokens the hooks of each arm fired on.
pub type FiredByArm = BTreeMap<String, u64>;

/// How to generate.
#[derive(Clone)]
pub struct SweepOptions<'a> {
    /// The most tokens of an answer.
    pub max_new_tokens: usize,
    /// How tokens are chosen; its seed is replaced by each of `seeds`.
    pub sampling: Sampling,
    /// One generation an item, arm and seed. Greedy decoding needs one.
    pub seeds: Vec<u64>,
    /// Which tokens end an answer before that.
    pub ends: StopRule,
    /// The most rows that are decoded together; fewer where memory is short.
    pub max_rows: usize,
    /// The most memory to take in bytes; what the machine has available if none is given.
    pub memory: Option<u64>,
    /// Set from outside, stops after the current step.
    pub stop: Option<&'a AtomicBool>,
}

impl SweepOptions<'_> {
    /// As the engine asks for it.
    pub(crate) fn generation(&self) -> GenerateOptions<'_> {
        let (max_rows, memory, stop) = (self.max_rows, self.memory, self.stop);
        GenerateOptions { max_rows, memory, stop, ..GenerateOptions::default() }
    }

    /// Refuses settings without meaning.
    ///
    /// # Errors
    /// Names the setting and what would have been allowed.
    pub fn check(&self) -> Result<()> {
        self.sampling.check()?;
        let wrong = |what: &str, found: String, allowed: &str| {
            Err(StudyError::Option { what: what.into(), found, allowed: allowed.into() })
        };
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

/// Everything that determines a row.
#[derive(Serialize)]
struct Determinants<'a> {
    identity: &'a Identity,
    ids: &'a [u32],
    plan: String,
    sampling: &'a Sampling,
    max_new_tokens: usize,
    #[serde(skip_serializing_if = "is_default")]
    ends: &'a StopRule,
    /// How noise becomes a token; greedy answers need none.
    #[serde(skip_serializing_if = "Option::is_none")]
    draw: Option<&'static str>,
    /// Two arms of the same plan are two measurements.
    variant: &'a str,
    item: &'a str,
}

/// The name of the way in which noise becomes a token (`headtemper_engine::Sampling::next`).
const DRAW: &str = "gumbel";

/// Whether rows end as they always did: their keys are then what they were.
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

/// Generates every missing row and returns all, `[arm][seed * items + item]`, with how many tokens each planned head
/// was applied to in this call.
///
/// # Errors
/// If a plan or prompt does not fit the model, the log cannot be written, or the run is stopped: finished rows stay.
pub fn sweep(
    engine: &Engine,
    items: &[Item],
    arms: &[Arm],
    options: &SweepOptions<'_>,
    log: &mut RowLog,
    progress: &mut dyn Progress,
) -> Result<(Vec<Vec<Row>>, FiredByArm)> {
    options.check()?;
    let wanted = wanted(engine, items, arms, options)?;
    let missing: Vec<&Wanted> = wanted.iter().filter(|w| log.get(&w.key).is_none()).collect();
    let work = Work::of(engine, items, arms, &missing, options)?;
    if let Some(memory) = &work.memory {
        progress.note(&format!("memory     {memory}"));
    }
    progress.begin("generate", wanted.len(), wanted.len() - missing.len());
    let fired = work.generate(engine, items, arms, options, log, progress)?;
    progress.end();
    let mut rows: Vec<Vec<Row>> = vec![Vec::new(); arms.len()];
    for w in &wanted {
        rows[w.arm].push(log.get(&w.key).expect("every wanted row was there or was made").clone());
    }
    Ok((rows, fired))
}

/// Refuses items that cannot be answered in the memory there is, before anything is written.
pub(crate) fn check_memory(engine: &Engine, items: &[Item], options: &SweepOptions<'_>) -> Result<()> {
    let arms = [Arm::base()];
    let one = SweepOptions { seeds: vec![options.sampling.seed], ..options.clone() };
    let wanted = wanted(engine, items, &arms, &one)?;
    Work::of(engine, items, &arms, &wanted.iter().collect::<Vec<_>>(), &one)?;
    Ok(())
}

/// Every row of a sweep, in the order in which they are made.
pub(crate) fn wanted(engine: &Engine, items: &[Item], arms: &[Arm], options: &SweepOptions<'_>) -> Result<Vec<Wanted>> {
    let prompts = prompts(engine, items)?;
    let mut wanted = Vec::with_capacity(arms.len() * items.len() * options.seeds.len());
    for (arm_index, arm) in arms.iter().enumerate() {
        for &seed in &options.seeds {
            for (index, item) in items.iter().enumerate() {
                let sampling = Sampling { seed, ..options.sampling.clone() };
                let prompt = &prompts[index];
                let determinants = Determinants {
                    identity: engine.identity(),
                    ids: prompt.as_slice(),
                    plan: arm.plan.to_string(),
                    sampling: &sampling,
                    max_new_tokens: options.max_new_tokens,
                    ends: &options.ends,
                    draw: (sampling.temperature > 0.0).then_some(DRAW),
                    variant: &arm.variant,
                    item: &item.id,
                };
                let key = digest(&determinants);
                let request = Request {
                    ids: prompt.clone(),
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
    Ok(wanted)
}

/// The rows that are missing, and the memory they take.
pub(crate) struct Work<'a> {
    missing: &'a [&'a Wanted],
    /// The arms that are still needed, so that the plan of each must fire.
    used: Vec<usize>,
    pub(crate) requests: Vec<Request>,
    pub(crate) plans: Vec<HeadPlan>,
    /// None if no row is missing.
    pub(crate) memory: Option<MemoryPlan>,
}

impl<'a> Work<'a> {
    /// # Errors
    /// If an item does not fit the memory: it is named.
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
            Some(engine.plan_generation(&requests, plans.len(), &options.generation(), &name)?)
        };
        Ok(Self { missing, used, requests, plans, memory })
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
    ) -> Result<FiredByArm> {
        let Some(memory) = &self.memory else { return Ok(FiredByArm::new()) };
        let settings = GenerateOptions { max_rows: memory.rows, memory: memory.limit, ..options.generation() };
        let most = self.most_new_tokens(engine);
        let mut lengths = Lengths::up_to(self.requests.len(), most);
        progress.expect(lengths.expected());
        let fired = engine.generate(&self.requests, &self.plans, &settings, |event| {
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
            let row = Row {
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
            };
            log.append(row).map_err(through)?;
            lengths.done();
            progress.expect(lengths.expected());
            progress.step();
            Ok::<(), EngineError>(())
        });
        let named = self.used.iter().zip(fired.map_err(back)?);
        Ok(named.map(|(&arm, heads)| (arms[arm].variant.clone(), heads.values().sum())).collect())
    }
}

/// The outcomes of every head set, in the order of the arms.
pub fn tables_of(
    items: &[Item],
    arms: &[Arm],
    rows: &[Vec<Row>],
    judge: Option<&Judge>,
    max_new_tokens: usize,
) -> Vec<SweepTable> {
    let mut tables: Vec<SweepTable> = Vec::new();
    for (index, arm) in arms.iter().enumerate() {
        let set = arm.set.replace('+', " ");
        if tables.last().is_none_or(|table| table.set != set) {
            tables.push(SweepTable { set, max_new_tokens, arms: Vec::new() });
        }
        let reference = arms.iter().position(|other| other.set == arm.set && other.lambda == 1.0 && !other.control);
        let seeds = rows[index].len() / items.len().max(1);
        let repeated: Vec<&Item> = (0..seeds).flat_map(|_| items).collect();
        let of = |arm: usize| rows[arm].iter().collect::<Vec<_>>();
        let reference = reference.map(of);
        // 0.9 as it was written, not the f64 nearest to the f32 nearest to it
        let lambda = arm.lambda.to_string().parse().unwrap_or(f64::from(arm.lambda));
        let named = (arm.variant.as_str(), lambda, arm.control);
        let outcome = outcome(named, &repeated, &of(index), reference.as_deref(), judge);
        tables.last_mut().expect("one was pushed").arms.push(outcome);
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lambda_listed_again_is_a_control() {
        let heads = vec![HeadRef::query(7, 6), HeadRef::query(20, 3)];
        let arms = arms(std::slice::from_ref(&heads), &[1.0, 1.0, 0.5]).unwrap();
        let names: Vec<_> = arms.iter().map(|arm| (arm.variant.as_str(), arm.control)).collect();
        assert_eq!(names, [("L7H6+L20H3@1", false), ("L7H6+L20H3@1#2", true), ("L7H6+L20H3@0.5", false)]);
        assert!(super::arms(&[], &[1.0]).is_err() && super::arms(&[heads], &[f32::NAN]).is_err());
    }
}
