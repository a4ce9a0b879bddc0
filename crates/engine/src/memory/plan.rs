//! How many rows run at once, or how many tokens are read at once, within a memory limit.

use std::fmt;

use candle_core::Device;
use serde::Serialize;

use crate::{
    EngineError, Result,
    memory::{Cost, format_bytes, machine},
};

/// What a generation, a capture or a scoring run will hold at its peak, in bytes, and what it may hold.
///
/// This is an upper bound: the cache is counted as if the longest rows ran together, each to its last token. On the CPU
/// a slot takes only what is written to it, whatever it could hold, so one long row costs its own length once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPlan {
    /// Rows at once; for scoring, cells.
    pub rows: usize,
    /// The most tokens that one forward pass reads; for scoring, except in an item that is longer.
    pub step_tokens: usize,
    /// The weights and the program around them.
    pub held: u64,
    /// The cache of the longest row.
    pub row: u64,
    /// The cache of all rows that run at once, and of the starts they share.
    pub cache: u64,
    /// Activations and logits of one step; for scoring, plus what its cells branch off.
    pub activations: u64,
    /// What is kept until the end: captured features, scored cells.
    pub results: u64,
    /// All of these.
    pub total: u64,
    /// What may be taken; null if nothing was asked for and the system does not tell.
    pub limit: Option<u64>,
}

impl MemoryPlan {
    pub(crate) fn of(self) -> Self {
        let parts = [self.held, self.cache, self.activations, self.results];
        Self { total: parts.into_iter().fold(0, u64::saturating_add), ..self }
    }

    pub(crate) fn fits(&self) -> bool {
        self.limit.is_none_or(|limit| self.total <= limit)
    }
}

impl fmt::Display for MemoryPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [held, row, cache, activations] = [self.held, self.row, self.cache, self.activations].map(format_bytes);
        let rows = if self.rows == 1 { "1 row".into() } else { format!("{} rows at once", self.rows) };
        write!(f, "model {held}, cache at most {row} a row, {rows} {cache}, activations {activations}")?;
        if self.results > 0 {
            write!(f, ", results {}", format_bytes(self.results))?;
        }
        write!(f, "; in all {}", format_bytes(self.total))?;
        match self.limit {
            Some(limit) => write!(f, " of {}", format_bytes(limit)),
            None => write!(f, ", no limit known"),
        }
    }
}

/// What may be taken in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<u64>);

impl Limit {
    /// What was asked for; else what is held now plus seven eighths of what is still available. On the CPU both are those of
    /// the machine; on a GPU they are those of the device, and `held` is what is there already.
    pub(crate) fn of(asked: Option<u64>, device: &Device, held: u64) -> Self {
        let (held, available) = if device.is_cpu() {
            (machine::held(), machine::available_memory())
        } else {
            (Some(held), headtemper_model::free_memory(device))
        };
        let room = || Some(held? + (available? as f64 * (1.0 - machine::RESERVE)) as u64);
        Self(asked.or_else(room))
    }
}

/// The rows to plan for.
pub(crate) struct Rows<'a> {
    /// Tokens of every row, prompt and answer.
    pub(crate) tokens: &'a [usize],
    /// Tokens of every shared start, all of which are held at once.
    pub(crate) starts: &'a [usize],
    /// The most rows at once.
    pub(crate) most: usize,
    /// Prompt tokens that are read in a step.
    pub(crate) prefill: usize,
    /// Bytes held for a row besides its cache: what is captured of it during generation.
    pub(crate) beside: u64,
    /// Bytes that are kept of all rows until the end.
    pub(crate) kept: u64,
}

/// Plans as many rows as fit, up to `rows.most`.
///
/// # Errors
/// If the longest row does not fit even alone; `name` names it by its index.
pub(crate) fn plan_rows(
    cost: &Cost,
    rows: &Rows<'_>,
    limit: Limit,
    name: &dyn Fn(usize) -> String,
) -> Result<MemoryPlan> {
    let mut longest: Vec<usize> = rows.tokens.to_vec();
    longest.sort_unstable_by(|a, b| b.cmp(a));
    let capacity = longest.first().copied().unwrap_or(0);
    let of = |tokens: usize| tokens as u64 * cost.cache_token + cost.cache_sequence;
    let plan = |count: usize| {
        // A slot is written as far as the longest row that was in it, so the `count` longest rows bound the sum for any choice of slots.
        let written: u64 = longest[..count].iter().chain(rows.starts).map(|&tokens| of(tokens)).sum();
        let reserved = (count + rows.starts.len()) as u64;
        let step_tokens = rows.prefill + count;
        MemoryPlan {
            rows: count,
            step_tokens,
            held: cost.held,
            row: of(capacity),
            cache: if cost.lazy { written } else { reserved * of(capacity) },
            activations: (count as u64)
                .saturating_mul(cost.logits.saturating_add(rows.beside))
                .saturating_add(step_tokens as u64 * cost.token)
                .saturating_add(cost.partial(step_tokens, capacity) + cost.choice),
            results: rows.kept,
            total: 0,
            limit: limit.0,
        }
        .of()
    };
    // Even where memory is taken only as it is written, a system refuses to reserve more at once than it has.
    let reservable = |count: usize| {
        let tensor = (count + rows.starts.len()) as u64 * capacity as u64 * cost.cache_widest;
        limit.0.is_none_or(|limit| tensor <= limit)
    };
    let most = rows.most.clamp(1, rows.tokens.len().max(1)).min(longest.len());
    let (mut fits, mut beyond) = (0, most + 1);
    while beyond - fits > 1 {
        let count = usize::midpoint(fits, beyond);
        if plan(count).fits() && reservable(count) { fits = count } else { beyond = count }
    }
    if fits > 0 || longest.is_empty() {
        return Ok(plan(fits));
    }
    let row = rows.tokens.iter().position(|&tokens| tokens == capacity).unwrap_or(0);
    let needs = plan(1);
    Err(EngineError::Memory {
        what: format!("{} with up to {capacity} tokens", name(row)),
        needs: needs.total,
        limit: limit.0.unwrap_or(0),
        held: needs.held,
    })
}

/// The texts to plan for.
pub(crate) struct Texts<'a> {
    /// Tokens of every text.
    pub(crate) tokens: &'a [usize],
    /// The most texts at once.
    pub(crate) most: usize,
    /// The most tokens at once, except in a text that is longer.
    pub(crate) batch: usize,
    /// Numbers that are kept of each text.
    pub(crate) numbers: usize,
    /// Numbers that a pass returns for each text.
    pub(crate) read: usize,
    /// Whether each text's logits are among them.
    pub(crate) logits: bool,
    /// Texts whose numbers are kept until the end.
    pub(crate) kept: usize,
}

/// Plans as many tokens at once (`step_tokens` of the plan) as fit, up to `texts.batch`.
///
/// # Errors
/// If the longest text does not fit even alone, or if what is kept does not.
pub(crate) fn plan_capture(
    cost: &Cost,
    texts: &Texts<'_>,
    limit: Limit,
    name: &dyn Fn(usize) -> String,
) -> Result<MemoryPlan> {
    let longest = texts.tokens.iter().copied().max().unwrap_or(0);
    let of = |tokens: usize| tokens as u64 * cost.cache_token + cost.cache_sequence;
    let bytes = 4 * texts.numbers as u64;
    let plan = |tokens: usize| {
        let rows = at_once(texts.tokens, texts.most, tokens);
        MemoryPlan {
            rows,
            step_tokens: tokens,
            held: cost.held,
            row: of(longest),
            cache: tokens as u64 * cost.cache_token + rows as u64 * cost.cache_sequence,
            activations: tokens as u64 * cost.token
                + cost.partial(tokens, longest)
                // What is read exists three times: as tensors, as one tensor, and as rows on the host.
                + rows as u64 * (3 * 4 * texts.read as u64 + if texts.logits { cost.logits } else { 0 }),
            results: texts.kept as u64 * bytes,
            total: 0,
            limit: limit.0,
        }
        .of()
    };
    let least = plan(longest);
    if !least.fits() {
        let row = texts.tokens.iter().position(|&tokens| tokens == longest).unwrap_or(0);
        let kept = least.results > least.total - least.results - least.held;
        let what = if kept {
            format!("what is kept of {} texts", texts.kept)
        } else {
            format!("{} with {longest} tokens", name(row))
        };
        let (needs, limit) = (least.total, limit.0.unwrap_or(0));
        return Err(EngineError::Memory { what, needs, limit, held: least.held });
    }
    let most = texts.batch.min(texts.tokens.iter().sum()).max(longest);
    let (mut fits, mut beyond) = (longest, most + 1);
    while beyond - fits > 1 {
        let tokens = usize::midpoint(fits, beyond);
        if plan(tokens).fits() { fits = tokens } else { beyond = tokens }
    }
    Ok(plan(fits))
}

/// The most texts that one pass over `batch` tokens can hold.
fn at_once(tokens: &[usize], most: usize, batch: usize) -> usize {
    let mut shortest = tokens.to_vec();
    shortest.sort_unstable();
    let mut sum = 0;
    let fit = shortest.iter().take_while(|&&tokens| {
        sum += tokens;
        sum <= batch
    });
    fit.count().max(1).min(most.max(1))
}

#[cfg(test)]
mod tests {
    use headtemper_hook::Heads;

    use super::*;

    const COST: Cost = Cost {
        held: 1000,
        cache_token: 10,
        cache_sequence: 5,
        cache_widest: 1,
        token: 2,
        split: None,
        logits: 20,
        choice: 7,
        lazy: true,
    };

    fn rows(tokens: &[usize]) -> Rows<'_> {
        Rows { tokens, starts: &[], most: 8, prefill: 16, beside: 0, kept: 0 }
    }

    fn name(row: usize) -> String {
        format!("item '{row}'")
    }

    #[test]
    fn as_many_rows_as_fit() {
        let tokens = [10, 20, 5, 10];
        let plan = |limit| plan_rows(&COST, &rows(&tokens), Limit(limit), &name);
        let all = plan(None).unwrap();
        assert_eq!((all.rows, all.row, all.cache), (4, 205, 450 + 4 * 5));
        assert_eq!(all.total, 1000 + 470 + (16 + 4) * 2 + 4 * 20 + 7);
        assert_eq!(plan(Some(all.total)).unwrap().rows, 4);
        let fewer = plan(Some(all.total - 1)).unwrap();
        assert_eq!((fewer.rows, fewer.cache), (3, 400 + 3 * 5));
        let one = plan(Some(1000 + 205 + 17 * 2 + 20 + 7)).unwrap();
        assert_eq!(one.rows, 1);
        let error = plan(Some(one.total - 1)).unwrap_err();
        assert!(error.to_string().contains("item '1' with up to 20 tokens"), "{error}");
        assert!(error.hint().is_some());
    }

    #[test]
    fn one_long_row_costs_its_length_once_where_memory_is_taken_as_it_is_written() {
        let tokens = [10, 10, 10, 1000];
        let lazy = plan_rows(&COST, &rows(&tokens), Limit(None), &name).unwrap();
        assert_eq!(lazy.cache, 10 * 1030 + 4 * 5);
        let eager = plan_rows(&Cost { lazy: false, ..COST }, &rows(&tokens), Limit(None), &name).unwrap();
        assert_eq!(eager.cache, 4 * (10 * 1000 + 5));
        let starts = Rows { starts: &[7, 3], ..rows(&tokens) };
        let with = plan_rows(&COST, &starts, Limit(None), &name).unwrap();
        assert_eq!(with.cache - lazy.cache, 10 * 10 + 2 * 5);
    }

    #[test]
    fn long_rows_hold_partial_results_of_attention_on_a_gpu() {
        let cost = Cost { split: Some(Heads { count: 4, kv: 2, dim: 8 }), ..COST };
        let with = |cost: &Cost, tokens: &[usize]| plan_rows(cost, &rows(tokens), Limit(None), &name).unwrap();
        assert_eq!(with(&cost, &[512; 3]), with(&COST, &[512; 3]), "one block reads all keys");
        let (split, whole) = (with(&cost, &[513; 3]), with(&COST, &[513; 3]));
        // Of 16 + 3 tokens: two parts of 4 heads, each 8 sums, a maximum and a total.
        assert_eq!(split.activations - whole.activations, 19 * 2 * 4 * (8 + 2) * 4);
        // However many, not more than one launch holds.
        let most = |tokens| cost.partial(tokens, 1 << 20);
        assert!(most(1 << 20) == most(1 << 21) && most(1 << 20) <= 4 * (64 << 20) * 10 / 8, "{}", most(1 << 20));
    }

    #[test]
    fn captures_read_as_much_at_once_as_fits() {
        let tokens = [100, 30, 50];
        let texts = Texts { tokens: &tokens, most: 8, batch: 160, numbers: 3, read: 3, logits: false, kept: 3 };
        let plan = |limit| plan_capture(&COST, &texts, Limit(limit), &name);
        let all = plan(None).unwrap();
        assert_eq!((all.step_tokens, all.rows, all.results), (160, 2, 36));
        assert_eq!(plan(Some(all.total - 1)).unwrap().step_tokens, 159);
        let least = 1000 + 100 * 12 + 2 * (5 + 36) + 36;
        assert_eq!(plan(Some(least)).unwrap().step_tokens, 100);
        let error = plan(Some(least - 1)).unwrap_err().to_string();
        assert!(error.contains("item '0' with 100 tokens"), "{error}");
        let kept = Texts { kept: 1000, ..texts };
        let error = plan_capture(&COST, &kept, Limit(Some(2000)), &name).unwrap_err().to_string();
        assert!(error.contains("what is kept of 1000 texts"), "{error}");
    }
}
