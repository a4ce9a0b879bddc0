//! Generations for every prompt under every arm, as rows of one batch; what is there already is not done again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::AtomicBool,
};

use headtemper_engine::{Engine, EngineError, Event, GenerateOptions, Identity, Request, Sampling};
use headtemper_hook::HeadPlan;
use serde::{Deserialize, Serialize};

use crate::{
    Item, Progress, Result, Row, RowLog, StudyError,
    capture::prompts,
    digest::{digest, noise_of},
    error::{back, through},
};

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

/// One plan of a sweep.
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
        Self { variant, set, lambda: 1.0, role: Role::Reference, plan: HeadPlan::none() }
    }
}

/// How many head-tokens the hooks of each arm fired on.
pub type FiredByArm = BTreeMap<String, u64>;

/// How to generate.
pub struct SweepOptions<'a> {
    /// The most tokens of an answer.
    pub max_new_tokens: usize,
    /// How tokens are chosen; its seed is replaced by each of `seeds`.
    pub sampling: Sampling,
    /// One generation an item, arm and seed. Greedy decoding needs one.
    pub seeds: Vec<u64>,
    /// Rows that are decoded together.
    pub max_rows: usize,
    /// Set from outside, stops after the current step.
    pub stop: Option<&'a AtomicBool>,
}

impl SweepOptions<'_> {
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
    /// Two arms of the same plan are two measurements.
    variant: &'a str,
    item: &'a str,
}

/// A row that is wanted: where it belongs, and what makes it.
pub(crate) struct Wanted {
    arm: usize,
    item: usize,
    pub(crate) key: String,
    request: Request,
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
    let wanted = wanted(engine, items, &prompts(engine, items)?, arms, options);
    let fired = fill(engine, (items, arms), &wanted, options, log, progress)?;
    let keys: Vec<&str> = wanted.iter().map(|w| w.key.as_str()).collect();
    Ok((by_arm(log, &keys, arms.len()), fired))
}

/// The rows of each arm, `[arm][seed * items + item]`, from a log that has them all.
pub(crate) fn by_arm(log: &RowLog, keys: &[impl AsRef<str>], arms: usize) -> Vec<Vec<Row>> {
    let row = |key: &dyn AsRef<str>| log.get(key.as_ref()).expect("every wanted row is there").clone();
    keys.chunks((keys.len() / arms).max(1)).map(|keys| keys.iter().map(|key| row(key)).collect()).collect()
}

/// Generates those of the wanted rows that the log lacks. Returns how many tokens each planned head was applied to.
///
/// # Errors
/// As [`sweep`].
pub(crate) fn fill(
    engine: &Engine,
    (items, arms): (&[Item], &[Arm]),
    wanted: &[Wanted],
    options: &SweepOptions<'_>,
    log: &mut RowLog,
    progress: &mut dyn Progress,
) -> Result<FiredByArm> {
    let missing: Vec<&Wanted> = wanted.iter().filter(|w| log.get(&w.key).is_none()).collect();
    progress.begin("generate", wanted.len(), wanted.len() - missing.len());
    let fired = if missing.is_empty() {
        FiredByArm::new()
    } else {
        generate(engine, items, arms, &missing, options, log, progress)?
    };
    progress.end();
    Ok(fired)
}

/// Every row that is wanted, arm by arm, so that those next to each other share the start of their prompts.
pub(crate) fn wanted(
    engine: &Engine,
    items: &[Item],
    prompts: &[Vec<u32>],
    arms: &[Arm],
    options: &SweepOptions<'_>,
) -> Vec<Wanted> {
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
                };
                wanted.push(Wanted { arm: arm_index, item: index, key, request });
            }
        }
    }
    wanted
}

fn generate(
    engine: &Engine,
    items: &[Item],
    arms: &[Arm],
    missing: &[&Wanted],
    options: &SweepOptions<'_>,
    log: &mut RowLog,
    progress: &mut dyn Progress,
) -> Result<FiredByArm> {
    // Only the plans that are still needed, so that each of them must fire.
    let used: Vec<usize> = missing.iter().map(|w| w.arm).collect::<BTreeSet<_>>().into_iter().collect();
    let plans: Vec<HeadPlan> = used.iter().map(|&arm| arms[arm].plan.clone()).collect();
    let requests: Vec<Request> = missing
        .iter()
        .map(|w| Request { plan: used.binary_search(&w.arm).expect("it is used"), ..w.request.clone() })
        .collect();
    let settings = GenerateOptions { max_rows: options.max_rows, stop: options.stop, ..GenerateOptions::default() };
    let fired = engine.generate(&requests, &plans, &settings, |event| {
        let Event::Done { row, result } = event else { return Ok(()) };
        let w = missing[row];
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
        progress.step();
        Ok::<(), EngineError>(())
    });
    let named = used.iter().zip(fired.map_err(back)?);
    Ok(named.map(|(&arm, heads)| (arms[arm].variant.clone(), heads.values().sum())).collect())
}
