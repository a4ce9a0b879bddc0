//! What a user sees while a command runs: bars on a terminal, plain lines elsewhere, all on stderr.

use std::{
    collections::VecDeque,
    fmt,
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use headtemper_engine::{format_bytes, peak_memory};
use headtemper_study::{DryRun, Progress, Shard, duration};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde::Serialize;

/// Writes a line to stderr.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}"); // if stderr is gone, there is nobody left to tell
}

/// Writes to stdout: results, and nothing else.
///
/// # Errors
/// If stdout is closed or full.
pub(crate) fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let put = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    put.map_err(|e| io::Error::new(e.kind(), format!("cannot write to stdout: {e}")))
}

/// The exit code of a stopped command, the one shells use for an interrupt. A queue can tell from it that the job may go on.
pub(crate) const STOPPED: u8 = 130;

/// Set once the user asked to stop.
static STOP: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C stop after the current step; a second Ctrl-C ends the process at once.
pub(crate) fn stop_on_interrupt() -> &'static AtomicBool {
    let handler = || {
        if STOP.swap(true, Ordering::Relaxed) {
            #[expect(clippy::exit, reason = "the user asked twice")]
            std::process::exit(STOPPED.into());
        }
        say("stopping after this step (once more to end at once)");
    };
    let set = keeping_ignored(|| ctrlc::set_handler(handler));
    if set.is_err() {
        say("note: Ctrl-C ends the program at once here");
    }
    &STOP
}

/// Sets handlers of signals, except of those that whoever started the program had it ignore: `nohup` does so with SIGHUP, and scripts with
/// SIGINT for what runs in the background.
#[cfg(unix)]
fn keeping_ignored<T>(set: impl FnOnce() -> T) -> T {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // SAFETY: ignoring a signal runs no code of ours.
    let ignore = |of: &Signal| unsafe { signal(*of, SigHandler::SigIgn) };
    let mut ignored = vec![Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];
    ignored.retain(|of| matches!(ignore(of), Ok(SigHandler::SigIgn)));
    let set = set();
    for of in &ignored {
        let _ = ignore(of);
    }
    set
}

#[cfg(not(unix))]
fn keeping_ignored<T>(set: impl FnOnce() -> T) -> T {
    set()
}

/// How often a bar updates its speed.
const REFRESH: Duration = Duration::from_millis(250);
/// The window over which the current speed is measured.
const WINDOW: Duration = Duration::from_secs(10);
/// A plain line is due after this long, however little was done.
const SILENCE: Duration = Duration::from_mins(1);

/// Progress on stderr.
#[derive(Default)]
pub(crate) struct Bars {
    bar: Option<ProgressBar>,
    stage: String,
    total: usize,
    done: usize,
    skipped: usize,
    tokens: Tokens,
    /// The share of the work that is done, if it was reported.
    share: Option<f64>,
    /// When the stage began, and when something was last said.
    clock: Option<(Instant, Instant)>,
    tenths: usize,
}

/// The tokens of a stage.
#[derive(Default)]
struct Tokens {
    done: usize,
    /// How many there will be; 0 if that is not known.
    expected: usize,
    /// Whether there may be fewer.
    at_most: bool,
    /// Points in time with the tokens done by then, over the last [`WINDOW`].
    recent: VecDeque<(Instant, usize)>,
}

impl Tokens {
    /// Adds a point to the window, and drops those that fall out of it.
    fn mark(&mut self, now: Instant) {
        self.recent.push_back((now, self.done));
        while self.recent.get(1).is_some_and(|&(then, _)| now - then >= WINDOW) {
            self.recent.pop_front();
        }
    }

    /// Tokens per second over the window, if it is long enough to tell.
    fn rate(&self, now: Instant) -> Option<f64> {
        let &(then, done) = self.recent.front()?;
        let seconds = (now - then).as_secs_f64();
        (seconds > 0.5 && self.done > done).then(|| (self.done - done) as f64 / seconds)
    }
}

impl Bars {
    fn begun(&self) -> Option<Duration> {
        self.clock.map(|(begun, _)| begun.elapsed())
    }

    /// Seconds left: from the share of the work if that was reported, else from the tokens if their number is known, else from steps.
    fn left(&self, now: Instant) -> Option<f64> {
        let gone = self.begun()?.as_secs_f64();
        if let Some(share) = self.share {
            return (share > 0.0).then(|| gone * (1.0 - share).max(0.0) / share);
        }
        if self.tokens.expected > 0 {
            let rate = self.tokens.rate(now)?;
            return Some(self.tokens.expected.saturating_sub(self.tokens.done) as f64 / rate);
        }
        let steps = self.done - self.skipped;
        (steps > 0).then(|| gone * (self.total - self.done) as f64 / steps as f64)
    }

    /// `812 tokens/s, 3 min left`; `at most 3 min left` where only the most is known.
    fn pace(&self, now: Instant) -> String {
        let rate = self.tokens.rate(now).map(|rate| format!("{} tokens/s", speed(rate)));
        let bound = if self.tokens.at_most && self.share.is_none() { "at most " } else { "" };
        let left = self.left(now).map(|left| format!("{bound}{} left", duration(left)));
        rate.into_iter().chain(left).collect::<Vec<_>>().join(", ")
    }

    /// Reports the stage's progress, if it is time.
    fn say_pace(&mut self, due: bool) {
        let now = Instant::now();
        let Some((begun, said)) = self.clock else { return };
        let wait = if self.bar.is_some() { REFRESH } else { SILENCE };
        let pause = self.tokens.recent.back().map_or(begun, |&(then, _)| then);
        if now - pause >= REFRESH {
            self.tokens.mark(now);
        }
        if !due && now - said < wait {
            return;
        }
        self.clock = Some((begun, now));
        let (pace, gone) = (self.pace(now), duration((now - begun).as_secs_f64()));
        let pace = if pace.is_empty() { pace } else { format!(", {pace}") };
        if let Some(bar) = &self.bar {
            bar.set_message(pace);
        } else {
            say(&format!("{:<10} {}/{}  {gone} gone{pace}", self.stage, self.done, self.total));
        }
    }
}

/// The time since a bar began, as plain lines have it.
fn gone(state: &ProgressState, out: &mut dyn fmt::Write) {
    let _ = out.write_str(&duration(state.elapsed().as_secs_f64())); // a bar is drawn on a string, which cannot fail
}

/// A rate with as many digits as it deserves.
fn speed(rate: f64) -> String {
    if rate < 99.5 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

impl Progress for Bars {
    fn begin(&mut self, stage: &str, total: usize, done: usize) {
        let now = Instant::now();
        *self = Self { stage: stage.into(), total, done, skipped: done, clock: Some((now, now)), ..Self::default() };
        self.tokens.mark(now);
        let again = if done > 0 { format!(", {done} of them done before") } else { String::new() };
        if io::stderr().is_terminal() && total > 1 {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix:<10} {bar:24} {pos}/{len}  {gone} gone{msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).with_key("gone", gone));
            bar.set_prefix(stage.to_string());
            bar.set_position(done as u64);
            self.bar = Some(bar);
        } else if total > 1 {
            say(&format!("{stage:<10} {total} to do{again}"));
        }
    }

    fn step(&mut self) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
        let tenths = 10 * self.done / self.total.max(1);
        let due = self.bar.is_none() && tenths > self.tenths && tenths < 10 && self.total >= 50;
        if due {
            self.tenths = tenths;
        }
        self.say_pace(due);
    }

    fn tokens(&mut self, count: usize) {
        self.tokens.done += count;
        self.say_pace(false);
    }

    fn share(&mut self, done: f64) {
        self.share = Some(done);
    }

    fn expect(&mut self, tokens: usize) {
        (self.tokens.expected, self.tokens.at_most) = (tokens, false);
    }

    fn expect_at_most(&mut self, tokens: usize) {
        (self.tokens.expected, self.tokens.at_most) = (tokens, true);
    }

    fn end(&mut self) {
        let gone = self.begun().map_or(0.0, |gone| gone.as_secs_f64());
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let what = if self.skipped == self.total { "nothing left to do".into() } else { format!("{gone:.1} s") };
        let rate = match self.tokens.done {
            0 => String::new(),
            tokens => format!(", {tokens} tokens, {} a second", speed(tokens as f64 / gone)),
        };
        say(&format!("{:<10} {} done, {what}{rate}", self.stage, self.done));
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }
}

/// Writes a value to stdout as indented JSON, for people and programs.
///
/// # Errors
/// If stdout is closed or full.
pub(crate) fn put_json(value: &impl Serialize) -> anyhow::Result<()> {
    put(&(serde_json::to_string_pretty(value)? + "\n"))?;
    Ok(())
}

/// Prints what a reader must know before looking at any number.
pub(crate) fn warn(warnings: &[String]) {
    for warning in warnings {
        say(&format!("warning: {warning}"));
    }
}

/// Says how much memory was held at the peak, to compare with what was planned.
pub(crate) fn say_peak() {
    if let Some(peak) = peak_memory() {
        say(&format!("memory     {} at the peak", format_bytes(peak)));
    }
}

/// Ends a shard: says which part it is, and where it was written.
pub(crate) fn say_part(shard: Option<Shard>, what: &str, dir: &std::path::Path) {
    let part = shard.map(|shard| shard.to_string()).unwrap_or_default();
    say(&format!("shard      {part}, {what}; `temper merge OUT SHARD...` joins the shards"));
    say(&format!("wrote      {}", dir.display()));
}

/// Ends a dry run: prints what there is to do on stdout.
///
/// # Errors
/// If stdout is closed.
pub(crate) fn dry(run: &DryRun, json: bool) -> anyhow::Result<crate::Done> {
    put(&if json { format!("{}\n", serde_json::to_string(run)?) } else { run.text() })?;
    Ok(crate::Done::Well)
}

/// Ends a study: prints its tables or one of its files on stdout, warnings and the report's path on stderr.
///
/// # Errors
/// If stdout is closed, or the file cannot be read.
pub(crate) fn finish(
    outcome: &headtemper_study::RunSummary,
    dir: &std::path::Path,
    json: Option<&str>,
) -> anyhow::Result<crate::Done> {
    match json {
        Some(name) => put(&std::fs::read_to_string(dir.join(name))?)?,
        None => put(&outcome.text)?,
    }
    if json.is_some() {
        warn(&outcome.warnings);
    }
    say(&format!("report     {}", dir.join("report.html").display()));
    Ok(if outcome.check_failed { crate::Done::CheckFailed } else { crate::Done::Well })
}
