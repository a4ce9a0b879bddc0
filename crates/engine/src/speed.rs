//! How fast a model reads and writes on this machine, from a short run.

use std::{
    fmt,
    time::{Duration, Instant},
};

use candle_core::{DType, Tensor};
use headtemper_hook::{Batch, HeadPlan, HeadScale, Span};
use headtemper_model::Cache;
use serde::Serialize;

use crate::{Engine, Result};

/// The measured speed.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    /// Tokens of a text that are read per second.
    pub read_per_s: f64,
    /// Rows that a decode step was measured with; 0 if none was measured.
    pub rows: usize,
    /// Tokens that each of these rows has read before the step.
    pub position: usize,
    /// Seconds that a decode step of all rows takes.
    pub step_s: f64,
}

impl Speed {
    /// Seconds to read `read` tokens and write `write` tokens, with all rows at work.
    pub fn seconds(&self, read: usize, write: usize) -> f64 {
        let steps = write as f64 / self.rows.max(1) as f64;
        read as f64 / self.read_per_s + steps * self.step_s
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.0} tokens/s read", self.read_per_s)?;
        if self.rows > 0 {
            let rate = self.rows as f64 / self.step_s;
            write!(f, ", {rate:.1} tokens/s written by {} rows at position {}", self.rows, self.position)?;
        }
        Ok(())
    }
}

/// The most tokens that are read at once to measure reading.
const READ: usize = 256;
/// The deepest position at which a decode step is measured.
const DEEPEST: usize = 2048;
/// Decode steps that are measured.
const STEPS: usize = 4;
/// No further repetition begins after this time.
const PATIENCE: Duration = Duration::from_millis(1500);

impl Engine {
    /// Checks that plans fit the model.
    ///
    /// # Errors
    /// If one names a head that the model does not have.
    pub fn check_plans(&self, plans: &[HeadPlan]) -> Result<()> {
        plans.iter().try_for_each(|plan| plan.check(self.spec())).map_err(Into::into)
    }

    /// Measures how fast this model reads and, if `rows` is above 0, how fast that many rows decode after reading about
    /// `position` tokens each. Takes a few seconds and uses a cache of its own.
    ///
    /// # Errors
    /// If the model cannot be run.
    pub fn speed(&self, rows: usize, position: usize) -> Result<Speed> {
        let context = self.spec().context;
        let position = position.clamp(1, DEEPEST).min(context.saturating_sub(STEPS + 1).max(1));
        let mut scale = self.scale(&[HeadPlan::none()])?;
        // Start small: a large model would take long for a full piece, and the first pass warms up.
        let (mut piece, mut read_per_s);
        let mut next = 16.min(context);
        let began = Instant::now();
        loop {
            piece = next;
            let mut cache = self.model().new_cache(1, piece)?;
            let start = Instant::now();
            self.read(&mut cache, 0, 0, piece, &mut scale)?;
            read_per_s = piece as f64 / start.elapsed().as_secs_f64();
            next = (4 * piece).min(READ).min(context);
            let expected = Duration::from_secs_f64(next as f64 / read_per_s);
            if next == piece || began.elapsed() + expected > PATIENCE {
                break;
            }
        }
        // A decode step comes after no more tokens than there is time to read.
        let position = position.min((read_per_s * PATIENCE.as_secs_f64()) as usize).max(1);
        let step_s = if rows == 0 { 0.0 } else { self.decode_step(rows, position, &mut scale)? };
        Ok(Speed { read_per_s, rows, position: if rows == 0 { 0 } else { position }, step_s })
    }

    /// Reads arbitrary tokens.
    fn read(&self, cache: &mut Cache, slot: usize, start: usize, len: usize, scale: &mut HeadScale) -> Result<()> {
        let vocab = self.spec().vocab as u32;
        let ids: Vec<u32> = (0..len as u32).map(|i| i.wrapping_mul(7919) % vocab).collect();
        let batch = Batch::new(vec![Span { slot, start, len, row: 0, prompt: Span::ALL_PROMPT }]);
        let ids = Tensor::new(ids, self.model().device())?;
        let hidden = self.model().forward(&ids, &batch, cache, scale)?;
        // A GPU runs asynchronously: copying the result waits until it is done.
        hidden.narrow(0, len - 1, 1)?.to_dtype(DType::F32)?.to_vec2::<f32>()?;
        Ok(())
    }

    /// Seconds that a decode step takes: the median of a few.
    fn decode_step(&self, rows: usize, position: usize, scale: &mut HeadScale) -> Result<f64> {
        let model = self.model();
        let mut cache = model.new_cache(rows, position + STEPS)?;
        let mut read = 0;
        while read < position {
            let piece = (position - read).min(READ);
            self.read(&mut cache, 0, read, piece, scale)?;
            read += piece;
        }
        for row in 1..rows {
            cache.copy_slot(0, row)?;
        }
        let (began, mut steps) = (Instant::now(), Vec::new());
        for step in 0..STEPS {
            let start = Instant::now();
            let span = |slot| Span { slot, start: position + step, len: 1, row: 0, prompt: Span::ALL_PROMPT };
            let batch = Batch::new((0..rows).map(span).collect());
            let ids = Tensor::new(vec![0u32; rows], model.device())?;
            model.logits(&model.forward(&ids, &batch, &mut cache, scale)?)?.to_vec2::<f32>()?;
            steps.push(start.elapsed().as_secs_f64());
            if began.elapsed() > PATIENCE {
                break;
            }
        }
        steps.sort_by(f64::total_cmp);
        Ok(steps[steps.len() / 2])
    }
}
