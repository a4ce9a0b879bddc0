//! What a user sees while a command runs: bars on a terminal, plain lines elsewhere. All of it on stderr.

use std::{
    io::{self, IsTerminal, Write},
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

use headtemper_study::Progress;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Writes a line to stderr.
pub(crate) fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}"); // nobody is left to be told if stderr is gone
}

/// Writes to stdout: results, and nothing else.
///
/// # Errors
/// If stdout is closed or full.
pub(crate) fn put(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

/// Set once the user asked to stop.
static STOP: AtomicBool = AtomicBool::new(false);

/// Makes Ctrl-C stop after the step at hand; a second one ends at once.
pub(crate) fn stop_on_interrupt() -> &'static AtomicBool {
    let handler = || {
        if STOP.swap(true, Ordering::Relaxed) {
            #[expect(clippy::exit, reason = "the user asked twice")]
            std::process::exit(2);
        }
        say("stopping after this step (once more to end at once)");
    };
    if ctrlc::set_handler(handler).is_err() {
        say("note: Ctrl-C ends the program at once here");
    }
    &STOP
}

/// Progress on stderr.
#[derive(Default)]
pub(crate) struct Bars {
    bar: Option<ProgressBar>,
    stage: String,
    total: usize,
    done: usize,
    skipped: usize,
    said: usize,
    start: Option<Instant>,
}

impl Progress for Bars {
    fn begin(&mut self, stage: &str, total: usize, done: usize) {
        (self.stage, self.total, self.done, self.skipped, self.said) = (stage.into(), total, done, done, 0);
        self.start = Some(Instant::now());
        let again = if done > 0 { format!(", {done} of them done before") } else { String::new() };
        if io::stderr().is_terminal() && total > 1 {
            let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix:<10} {bar:32} {pos}/{len}  {elapsed} gone, {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(stage.to_string());
            bar.set_position(done as u64);
            bar.reset_eta();
            self.bar = Some(bar);
        } else if total > 1 {
            say(&format!("{stage:<10} {total} to do{again}"));
        }
    }

    fn step(&mut self) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
            return;
        }
        let tenths = 10 * self.done / self.total.max(1);
        if tenths > self.said && tenths < 10 && self.total >= 50 {
            self.said = tenths;
            let gone = self.start.map_or(0.0, |start| start.elapsed().as_secs_f64());
            let left = gone * (self.total - self.done) as f64 / (self.done - self.skipped).max(1) as f64;
            say(&format!("{:<10} {}/{}  {gone:.0} s gone, {left:.0} s left", self.stage, self.done, self.total));
        }
    }

    fn end(&mut self) {
        let gone = self.start.map_or(0.0, |start| start.elapsed().as_secs_f64());
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let what = if self.done == self.skipped { "nothing left to do".into() } else { format!("{gone:.1} s") };
        say(&format!("{:<10} {} done, {what}", self.stage, self.done));
    }

    fn note(&mut self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }
}

/// Ends a study: its tables or one of its files on stdout, warnings and where the report lies on stderr.
///
/// # Errors
/// If stdout is closed, or the file cannot be read.
pub(crate) fn finish(
    outcome: &headtemper_study::Outcome,
    dir: &std::path::Path,
    json: Option<&str>,
) -> anyhow::Result<crate::Done> {
    match json {
        Some(name) => put(&std::fs::read_to_string(dir.join(name))?)?,
        None => put(&outcome.text)?,
    }
    if json.is_some() {
        outcome.warnings.iter().for_each(|warning| say(&format!("warning: {warning}")));
    }
    say(&format!("report     {}", dir.join("report.html").display()));
    Ok(if outcome.check_failed { crate::Done::CheckFailed } else { crate::Done::Well })
}
