//! Many requests: threads that take questions in turn, within a budget, and wait for a server that is busy.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use headtemper_engine::EngineError;

use super::{
    Answer, Endpoint,
    client::Client,
    completion::{Failure, Reply},
    questions::{Question, Questions},
};
use crate::{Progress, Result, RowLog, StudyError, store::digest::noise_of};

/// How a server is asked: how many requests at once, how often, how long, and how many in all.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Requests at once.
    pub concurrency: usize,
    /// How often a question is asked again after a failure that may pass.
    pub retries: u32,
    /// The first pause before a repeat; each further one is twice as long.
    pub backoff: Duration,
    /// How long a server may take to answer.
    pub timeout: Duration,
    /// The most requests in this call, including repeated ones.
    pub budget: Option<u64>,
    /// No request begins once servers have counted this many tokens in this call.
    pub token_budget: Option<u64>,
}

impl Default for Patience {
    fn default() -> Self {
        let (backoff, timeout) = (Duration::from_secs(1), Duration::from_mins(2));
        Self { concurrency: 8, retries: 4, backoff, timeout, budget: None, token_budget: None }
    }
}

/// The longest pause of our own choice.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// If the server asks to wait longer than this, the question has failed.
const LONGEST_WAIT: Duration = Duration::from_mins(5);
/// After this many questions in a row without a reply, the server counts as gone; if more are asked at once, after two of each thread,
/// since one pause of the server fails all that are under way.
const GIVE_UP: usize = 10;
/// How often a waiting thread checks whether to stop.
const LOOK: Duration = Duration::from_millis(50);

/// What became of questions, over all calls of [`Pool::ask`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Done {
    /// Requests, including repeated ones.
    pub(crate) requests: u64,
    /// Tokens that servers counted.
    pub(crate) tokens: u64,
    /// Questions that got a reply.
    pub(crate) answered: usize,
    /// Why questions got no reply, by key.
    pub(crate) failed: BTreeMap<String, String>,
}

/// The threads' common state.
pub(crate) struct Pool<'a> {
    client: &'a Client<'a>,
    endpoint: &'a Endpoint,
    patience: Patience,
    stop: Option<&'a AtomicBool>,
    /// Set when no more questions need to be asked.
    over: AtomicBool,
    /// Questions without a reply since the last reply.
    in_vain: AtomicUsize,
    requests: AtomicU64,
    tokens: AtomicU64,
    /// Until when the server asked to be left alone.
    quiet: Mutex<Option<Instant>>,
}

/// How a question ended.
enum End {
    Reply(Reply),
    Failed(String),
    /// The server works, but this question is too long for it.
    TooLong(String),
    Unasked,
    /// The budget was spent, or the run stopped, before the question could be tried again.
    CutShort(String),
    Hopeless(Option<u16>, String),
}

impl<'a> Pool<'a> {
    pub(crate) fn new(
        client: &'a Client<'a>,
        endpoint: &'a Endpoint,
        patience: Patience,
        stop: Option<&'a AtomicBool>,
    ) -> Self {
        let (over, in_vain) = (AtomicBool::new(false), AtomicUsize::new(0));
        let (requests, tokens) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { client, endpoint, patience, stop, over, in_vain, requests, tokens, quiet: Mutex::new(None) }
    }

    /// Asks the open ones among the questions, none of which is in the log, and appends what comes back.
    ///
    /// # Errors
    /// If no question can be answered there, the server is gone, the user stopped, or the log cannot be written.
    pub(crate) fn ask(
        &self,
        (questions, open): (&Questions<'_>, &[&Question]),
        log: &mut RowLog<Answer>,
        done: &mut Done,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        let next = AtomicUsize::new(0);
        let (send, receive) = mpsc::channel::<(usize, End)>();
        let result = thread::scope(|scope| {
            for _ in 0..self.patience.concurrency.min(open.len()) {
                let (send, next) = (send.clone(), &next);
                scope.spawn(move || {
                    while let Some((index, question)) = take(next, open) {
                        if send.send((index, self.question(&question.key, &questions.text(question)))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(send);
            let mut result = Ok(());
            // Receives to the end, even after an error: a reply on its way has been paid for.
            for (index, end) in receive {
                let ended = self.take_in(open[index], end, log, done, progress);
                if result.is_ok() && ended.is_err() {
                    self.over.store(true, Ordering::Relaxed);
                    result = ended;
                }
            }
            result
        });
        done.requests = self.requests.load(Ordering::Relaxed);
        done.tokens = self.tokens.load(Ordering::Relaxed);
        if self.stopped() { Err(EngineError::Interrupted.into()) } else { result }
    }

    fn take_in(
        &self,
        question: &Question,
        end: End,
        log: &mut RowLog<Answer>,
        done: &mut Done,
        progress: &mut dyn Progress,
    ) -> Result<()> {
        match end {
            End::Reply(reply) => {
                done.answered += 1;
                progress.tokens((reply.prompt_tokens + reply.completion_tokens) as usize);
                log.append(Answer::new(&question.key, question.kind(), self.endpoint.address(), reply))?;
            }
            // A question that got no reply is not done.
            End::Failed(why) | End::TooLong(why) | End::CutShort(why) => {
                done.failed.insert(question.key.clone(), why);
                return Ok(());
            }
            End::Hopeless(status, why) => return Err(self.error(status, why)),
            End::Unasked => return Ok(()),
        }
        progress.step();
        Ok(())
    }

    pub(crate) fn error(&self, status: Option<u16>, why: String) -> StudyError {
        StudyError::Endpoint { address: self.endpoint.address().into(), status, why }
    }

    fn give_up(&self) -> usize {
        GIVE_UP.max(2 * self.patience.concurrency)
    }

    /// Asks one question, and decides whether there is a point in asking another. Threads decide this themselves, before they send the
    /// next.
    fn question(&self, key: &str, text: &str) -> End {
        match self.attempts(key, text) {
            End::Failed(why) if self.in_vain.fetch_add(1, Ordering::Relaxed) + 1 >= self.give_up() => {
                self.over.store(true, Ordering::Relaxed);
                End::Hopeless(None, format!("{why}; {} questions in a row got no reply", self.give_up()))
            }
            End::Hopeless(status, why) => {
                self.over.store(true, Ordering::Relaxed);
                End::Hopeless(status, why)
            }
            answered @ (End::Reply(_) | End::TooLong(_)) => {
                self.in_vain.store(0, Ordering::Relaxed);
                answered
            }
            other => other,
        }
    }

    /// Asks one question until there is a reply, or no hope of one.
    fn attempts(&self, key: &str, text: &str) -> End {
        let (mut failed, mut cut) = (None, false);
        for attempt in 0..=self.patience.retries {
            if attempt > 0 && !self.sleep(self.pause(key, attempt)) || !self.keep_quiet() || !self.may_ask() {
                cut = true;
                break;
            }
            match self.client.send(text) {
                Ok(reply) => {
                    self.tokens.fetch_add(reply.prompt_tokens + reply.completion_tokens, Ordering::Relaxed);
                    return End::Reply(reply);
                }
                Err(Failure::Later(why, Some(wait))) if wait > LONGEST_WAIT => {
                    return End::Failed(format!("{why}, and asks to wait {} s", wait.as_secs()));
                }
                Err(Failure::Later(why, wait)) => {
                    failed = Some(why);
                    if let Some(wait) = wait {
                        // All threads wait, not only this one: the others would be told the same.
                        let until = Instant::now() + wait;
                        let mut quiet = self.quiet();
                        *quiet = Some(quiet.map_or(until, |known| known.max(until)));
                    }
                }
                Err(Failure::Now(why)) => return End::Failed(why),
                Err(Failure::TooLong(why)) => return End::TooLong(why),
                Err(Failure::Always(status, why)) => return End::Hopeless(status, why),
            }
        }
        failed.map_or(End::Unasked, if cut { End::CutShort } else { End::Failed })
    }

    /// Takes one request from the budget, if one is left. It is taken before the request is sent, so that no more are sent, however many
    /// threads ask.
    fn may_ask(&self) -> bool {
        let budget = self.patience.budget.unwrap_or(u64::MAX);
        let tokens = self.patience.token_budget.unwrap_or(u64::MAX);
        let one_more = |sent: u64| (sent < budget).then_some(sent + 1);
        !self.ends()
            && self.tokens.load(Ordering::Relaxed) < tokens
            && self.requests.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// The pause before a question is asked again: twice as long each time, of which the question's hash picks between half and all, so
    /// that threads that failed together do not come back together.
    fn pause(&self, key: &str, attempt: u32) -> Duration {
        let whole = self.patience.backoff.saturating_mul(1 << (attempt - 1).min(20)).min(LONGEST_PAUSE);
        let share = noise_of(&format!("{key} {attempt}")) as f64 / u64::MAX as f64;
        whole.mul_f64(0.5 + 0.5 * share)
    }

    /// Waits as long as the server asked for; false if asking ends first.
    fn keep_quiet(&self) -> bool {
        loop {
            let left = self.quiet().map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return true;
            }
            if !self.sleep(left) {
                return false;
            }
        }
    }

    fn quiet(&self) -> MutexGuard<'_, Option<Instant>> {
        self.quiet.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps; false if asking ends first.
    fn sleep(&self, time: Duration) -> bool {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.ends() || left.is_zero() {
                return !self.ends();
            }
            thread::sleep(left.min(LOOK));
        }
    }

    fn stopped(&self) -> bool {
        self.stop.is_some_and(|stop| stop.load(Ordering::Relaxed))
    }

    fn ends(&self) -> bool {
        self.stopped() || self.over.load(Ordering::Relaxed)
    }
}

fn take<'q>(next: &AtomicUsize, questions: &[&'q Question]) -> Option<(usize, &'q Question)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    questions.get(index).map(|question| (index, *question))
}

#[cfg(test)]
mod tests {
    use super::{
        super::{ApiKey, client::Asked},
        *,
    };

    fn with_pool(patience: Patience, check: impl FnOnce(&Pool<'_>)) {
        let (endpoint, key) = (Endpoint::parse("http://127.0.0.1:1/v1").unwrap(), ApiKey::default());
        let client = Client::new(&endpoint, &key, Asked { model: "m", max_tokens: 8 }, patience);
        check(&Pool::new(&client, &endpoint, patience, None));
    }

    #[test]
    fn pauses_double_and_are_the_same_each_time() {
        with_pool(Patience::default(), |pool| {
            for attempt in 1..12 {
                let whole = Duration::from_secs(1 << (attempt - 1)).min(LONGEST_PAUSE);
                for key in ["a", "b", "c"] {
                    let pause = pool.pause(key, attempt);
                    assert!(pause <= whole && pause >= whole / 2, "{attempt}: {pause:?}");
                    assert_eq!(pause, pool.pause(key, attempt));
                }
                assert_ne!(pool.pause("a", attempt), pool.pause("b", attempt));
            }
        });
    }

    #[test]
    fn a_server_is_given_up_by_how_many_wait_for_it() {
        for (concurrency, most) in [(1, 10), (5, 10), (16, 32)] {
            with_pool(Patience { concurrency, ..Patience::default() }, |pool| assert_eq!(pool.give_up(), most));
        }
    }

    #[test]
    fn a_budget_is_taken_once_however_many_take_it() {
        with_pool(Patience { budget: Some(100), ..Patience::default() }, |pool| {
            let granted = AtomicUsize::new(0);
            thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| {
                        for _ in 0..50 {
                            granted.fetch_add(usize::from(pool.may_ask()), Ordering::Relaxed);
                        }
                    });
                }
            });
            assert_eq!(granted.into_inner(), 100);
        });
        with_pool(Patience { token_budget: Some(10), ..Patience::default() }, |pool| {
            pool.tokens.store(9, Ordering::Relaxed);
            assert!(pool.may_ask());
            pool.tokens.store(10, Ordering::Relaxed);
            assert!(!pool.may_ask());
        });
    }
}
