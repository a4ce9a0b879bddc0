//! Decode steps that are recorded once and played back. The host does nothing for a step but look, now and then, at what was
//! written.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{PoisonError, atomic::Ordering},
};

use candle_core::Result as Candle;
use headtemper_hook::{Batch, Recorded, Span};
use headtemper_model::{ATTEND_SPLIT, Chosen, DecodeRow, DecodeRows, DecodeSize, Recording, is_out_of_memory};

use super::{
    Request, Running, State,
    step::{choice, not_a_number},
};
use crate::{Engine, EngineError, Result, StopRule};

/// Steps between two looks. A row that has ended waits at most this long to be refilled; the host waits for the device only this
/// often.
pub(super) const STEPS: usize = 8;

/// Stop tokens that a row may have; models have two or three.
const STOPS: usize = 16;

/// The recordings of a generation.
pub(super) struct Player {
    /// Rows that may run at once.
    most: usize,
    recordings: BTreeMap<Shape, Played>,
    /// Shapes for which the device had too little memory to record.
    refused: BTreeSet<Shape>,
}

/// What a recording is made for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    /// The number of rows.
    rows: usize,
    /// How many positions they reach.
    reach: usize,
    /// Whether texts are penalised. The others do without the passes over logits that this takes.
    penalises: bool,
}

struct Played {
    rows: DecodeRows,
    recording: Recording,
}

/// The number of rows to record for: the next power of two, at most all that may run at once. Rows without work stay idle.
fn bucket(rows: usize, most: usize) -> usize {
    rows.next_power_of_two().min(most)
}

/// The number of positions to record for, if the rows end before `end`. Attention launches one block for every `ATTEND_SPLIT`
/// positions; their number is rounded up to a power of two, at most all that a slot holds.
fn reach(end: usize, capacity: usize) -> usize {
    (end.div_ceil(ATTEND_SPLIT).next_power_of_two() * ATTEND_SPLIT).min(capacity)
}

impl Player {
    pub(super) fn new(most: usize) -> Self {
        Self { most, recordings: BTreeMap::new(), refused: BTreeSet::new() }
    }
}

impl Engine {
    /// Whether decode steps are played back at all: they are wherever they can be recorded.
    pub(super) fn plays_steps(&self) -> bool {
        self.model.steps_stay_on_device() && Recording::possible(self.model.device())
    }

    /// Whether a row's next steps may be played: it only decodes, nothing is captured of it, its plan touches all or none of its
    /// coming tokens, and the device can do its sampling.
    fn may_play(&self, run: &Running, request: &Request, state: &State) -> bool {
        let to_come = run.seen..run.seen + self.left(run, request);
        !run.generated.is_empty()
            && run.reading.is_none()
            && run.ending.is_none()
            && self.stops(request).len() <= STOPS
            && state.scale.one_row(request.plan, to_come, request.ids.len())
    }

    /// How many tokens a row may still write.
    fn left(&self, run: &Running, request: &Request) -> usize {
        let room = self.spec().context.saturating_sub(run.seen + 1);
        request.max_new_tokens.saturating_sub(run.generated.len()).min(room)
    }

    fn stops(&self, request: &Request) -> Vec<u32> {
        match &request.stop {
            StopRule::Never => Vec::new(),
            StopRule::Model => self.stop.ids().collect(),
            StopRule::Also(others) => self.stop.ids().chain(others.ids()).collect(),
        }
    }

    /// Plays some steps of all running rows, if all of them can be played. Returns each row's tokens with their log-probabilities.
    ///
    /// # Errors
    /// If the device fails, or has no memory for the rows.
    pub(super) fn play(
        &self,
        running: &[Running],
        requests: &[Request],
        player: &mut Player,
        state: &mut State,
    ) -> Result<Option<Vec<Vec<Chosen>>>> {
        let pairs = || running.iter().map(|run| (run, &requests[run.row]));
        if running.is_empty() || !pairs().all(|(run, request)| self.may_play(run, request, state)) {
            return Ok(None);
        }
        let rows: Vec<DecodeRow<'_>> = pairs().map(|(run, request)| self.row(run, request, state)).collect();
        let steps = STEPS.min(rows.iter().map(|row| row.left).max().unwrap_or(0));
        let end = rows.iter().map(|row| row.position + steps.min(row.left)).max().unwrap_or(0);
        let shape = Shape {
            rows: bucket(rows.len(), player.most),
            reach: reach(end, state.cache.capacity()),
            penalises: rows.iter().any(|row| row.choice.penalties.is_some()),
        };
        // A row that went further would silently miss keys.
        assert!(end <= shape.reach, "rows end at {end}, slots at {}", state.cache.capacity());
        if !player.recordings.contains_key(&shape) {
            let Some(played) = self.recorded(shape, player, state)? else { return Ok(None) };
            player.recordings.insert(shape, played);
        }
        let played = &player.recordings[&shape];
        played.rows.set(&rows)?;
        self.played.times.fetch_add(1, Ordering::Relaxed);
        for _ in 0..steps {
            played.recording.play()?;
        }
        let written = played.rows.written()?;
        let number = |(run, row): (&Running, Vec<Option<Chosen>>)| {
            row.into_iter().map(|chosen| chosen.ok_or_else(|| not_a_number(run))).collect::<Result<Vec<Chosen>>>()
        };
        let written = running.iter().zip(written).map(number).collect::<Result<Vec<_>>>()?;
        for ((run, request), written) in pairs().zip(&written) {
            state.cache.advance(run.slot, written.len())?;
            if state.scale.row_of(request.plan, run.seen, request.ids.len()) == request.plan {
                state.scale.played(run.slot, request.plan, written.len() as u64);
            }
        }
        Ok(Some(written))
    }

    fn row<'a>(&self, run: &'a Running, request: &Request, state: &State) -> DecodeRow<'a> {
        DecodeRow {
            id: *run.generated.last().expect("a row that decodes has written something"),
            position: run.seen,
            lambda: state.scale.row_of(request.plan, run.seen, request.ids.len()),
            slot: run.slot,
            left: self.left(run, request),
            stops: self.stops(request),
            choice: choice(run, request),
        }
    }

    /// A recording of this shape. `None` if the device has no memory for one, even after the other recordings are dropped: the steps
    /// are then launched one by one, which needs less.
    fn recorded(&self, shape: Shape, player: &mut Player, state: &mut State) -> Result<Option<Played>> {
        if player.refused.contains(&shape) {
            return Ok(None);
        }
        loop {
            match self.record(shape, state) {
                Err(EngineError::Candle(error)) if is_out_of_memory(&error) => state.scale.rest(),
                recorded => return recorded.map(Some),
            }
            if player.recordings.is_empty() {
                player.refused.insert(shape);
                return Ok(None);
            }
            player.recordings.clear();
        }
    }

    /// Records a step for idle rows.
    fn record(&self, Shape { rows: size, reach, penalises }: Shape, state: &mut State) -> Result<Played> {
        let device = self.model.device();
        // A text has at most as many different tokens as positions.
        let (text, capacity) = (if penalises { reach } else { 0 }, state.cache.capacity());
        let rows = DecodeRows::new(DecodeSize { rows: size, stops: STOPS, text, room: STEPS, capacity }, device)?;
        rows.set(&[])?;
        let recorded = Recorded {
            positions: rows.positions().clone(),
            rows: rows.lambda().clone(),
            attention: rows.attention().clone(),
            states: rows.states().clone(),
        };
        let span = |slot| Span { slot, start: reach - 1, len: 1, row: 0, prompt: Span::ALL_PROMPT };
        let batch = Batch::recorded((0..size).map(span).collect(), recorded);
        let recording = Recording::of(device, &mut || self.pass(&rows, &batch, state))?.map_err(|error| {
            if is_out_of_memory(&error) { error.into() } else { EngineError::NotRecorded { rows: size, error } }
        })?;
        let mut steps = self.played.steps.lock().unwrap_or_else(PoisonError::into_inner);
        // A device that cannot count its operations is no reason to stop.
        steps.insert(size, recording.operations().unwrap_or_default());
        Ok(Played { rows, recording })
    }

    /// One step, without any work for the host.
    fn pass(&self, rows: &DecodeRows, batch: &Batch, state: &mut State) -> Candle<()> {
        let hidden = self.model.forward(rows.ids(), batch, &mut state.cache, &mut state.scale);
        // Before a failure too: what it holds of the step must be freed while the step is still recorded.
        state.scale.rest();
        rows.advance(&self.model.logits(&hidden?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_recordings_serve_all_numbers_of_rows() {
        let sizes: Vec<usize> = [1, 2, 3, 5, 8, 9, 99, 100].map(|rows| bucket(rows, 100)).to_vec();
        assert_eq!(sizes, [1, 2, 4, 8, 8, 16, 100, 100]);
        assert!((1..=37).all(|rows| bucket(rows, 37) >= rows));
    }

    #[test]
    fn few_recordings_serve_all_lengths() {
        let reaches: Vec<usize> = [1, 511, 512, 513, 1025, 2049, 3000].map(|end| reach(end, 3000)).to_vec();
        assert_eq!(reaches, [512, 512, 512, 1024, 2048, 3000, 3000]);
        assert!((1..=700).all(|end| (end..=700).contains(&reach(end, 700))));
        assert_eq!(reach(8, 40), 40);
    }
}
