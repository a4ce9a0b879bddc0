//! A whole judging run: questions, replies, labels, and the files of its directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::AtomicBool,
};

use serde::Serialize;

use super::{
    Answer, ApiKey, Axis, Endpoint, JudgePrompts, JudgeReport, Patience, cache,
    client::{Asked, Client},
    labels::{Found, Verdicts},
    pool::{Done, Pool},
    prompts::Kind,
    questions::{Question, Questions, covers_something},
    report::{Counted, fields},
};
use crate::{
    Item, Keyed, Parts, Progress, Result, RowLog, RunDir, StudyError, SweptAnswers,
    store::{
        digest::digest,
        files::{is_same, remove_if_there, write_json, write_text},
        rows::read_rows,
    },
    sweep::{JudgedAnswers, outcome::Outcomes},
    text::count,
};

const JUDGED: &str = "judged.jsonl";
const REPORT: &str = "judge.json";
/// What the judging of a sweep leaves besides.
const OF_A_SWEEP: [&str; 3] = ["sweep.json", "sweep.csv", "report.html"];

/// What is judged, by whom, and how.
#[derive(Clone, Copy)]
pub struct JudgeRun<'a> {
    /// Where the items came from.
    pub items_path: &'a Path,
    /// The items; each needs a response.
    pub items: &'a [Item],
    /// The sweep whose answers the items are, if they are; its arms are then compared by what the judge says.
    pub sweep: Option<&'a SweptAnswers>,
    /// The server.
    pub endpoint: &'a Endpoint,
    /// Its key.
    pub key: &'a ApiKey,
    /// The model, as the server calls it.
    pub model: &'a str,
    /// The token limit of a reply.
    pub max_tokens: u32,
    /// What is asked, and along which axes.
    pub prompts: &'a JudgePrompts,
    /// Where the prompts come from, for the report; none if they are built in.
    pub prompts_dir: Option<&'a Path>,
    /// How the server is asked.
    pub patience: Patience,
    /// A cache that several runs share, instead of the directory's own.
    pub cache: Option<&'a Path>,
    /// Set to stop; what has been answered by then is kept.
    pub stop: Option<&'a AtomicBool>,
}

impl<'a> JudgeRun<'a> {
    /// Refuses to overwrite the items, which would lose all that was judged before but is not asked for now.
    fn check(&self, dir: &Path) -> Result<()> {
        if is_same(self.items_path, &dir.join(JUDGED)) {
            let (found, allowed) =
                (self.items_path.display().to_string(), "a file that this run does not write; give another --out");
            return Err(StudyError::option("--items", found, allowed));
        }
        Ok(())
    }

    fn asked(&self) -> Asked<'a> {
        Asked { model: self.model, max_tokens: self.max_tokens }
    }

    /// What the answers in a directory have in common. Items, tasks and axes may grow: an answer belongs to its question, and the labels
    /// are made from the answers anew each time. The server's address may change too; answers note it.
    fn parts(&self) -> Parts {
        Parts::default().with("judge_model", self.model).with("max_tokens", self.max_tokens)
    }
}

/// What a judging run would do.
#[derive(Clone, Debug, Serialize)]
pub struct DryJudge {
    /// `dry-judge/v1`.
    pub schema: String,
    /// `judge`.
    pub command: String,
    /// How many items there are.
    pub items: usize,
    /// Questions by kind: all of them, and those answered already. Scores whose rubric is missing count as not answered.
    pub questions: BTreeMap<String, DryCounts>,
    /// Questions that would be asked, each by one request if none fails.
    pub requests: usize,
    /// Characters of those that are already known.
    pub characters: usize,
}

/// Questions of one kind.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct DryCounts {
    /// All of them.
    pub all: usize,
    /// Those that are answered already.
    pub answered: usize,
}

impl DryJudge {
    /// The counts for people to read.
    pub fn text(&self) -> String {
        let mut out = format!("items      {}\n", self.items);
        for (kind, counts) in &self.questions {
            out +=
                &format!("{kind:<10} {} to ask, {} answered before\n", counts.all - counts.answered, counts.answered);
        }
        out + &format!("requests   {}, with {} characters known by now\n", self.requests, self.characters)
    }
}

/// What [`judge_run`] would ask, after all the checks that it makes first; no server is asked, nothing is written.
///
/// # Errors
/// As [`judge_run`], before it asks.
pub fn dry_judge(run: &JudgeRun<'_>, dir: &Path) -> Result<DryJudge> {
    run.check(dir)?;
    let mut questions = Questions::new(run.items, run.prompts, run.asked())?;
    RunDir::check(dir, "judge", &run.parts(), None)?;
    let own = dir.join(Answer::FILE);
    let path = run.cache.unwrap_or(&own);
    let answers = if path.exists() { read_rows::<Answer>(path)?.rows } else { BTreeMap::new() };
    questions.add_scores(&answers);
    let mut counts: BTreeMap<String, DryCounts> = BTreeMap::new();
    let mut characters = 0;
    for question in &questions.list {
        let counts = counts.entry(question.kind().name().into()).or_default();
        counts.all += 1;
        if answers.contains_key(&question.key) {
            counts.answered += 1;
        } else {
            characters += questions.text(question).chars().count();
        }
    }
    let later = questions.without_rubric();
    if later > 0 {
        counts.entry(Kind::Score.name().into()).or_default().all += later;
    }
    let requests = counts.values().map(|counts| counts.all - counts.answered).sum();
    let (schema, command) = ("dry-judge/v1".into(), "judge".into());
    Ok(DryJudge { schema, command, items: run.items.len(), questions: counts, requests, characters })
}

/// What a judging run ends with.
pub struct JudgeDone {
    /// Its counts.
    pub report: JudgeReport,
    /// The sweep by its verdicts, if the items are a sweep's answers.
    pub outcomes: Option<Outcomes>,
}

/// Asks a judge what the items leave open, and writes `judged.jsonl`, `judge.json` and, unless runs share a cache, `answers.jsonl` into a
/// directory; for the answers of a sweep, its tables and report as well. What is answered already is not asked again.
///
/// # Errors
/// If an item cannot be judged, the directory belongs to another run, a file cannot be read or written, the server cannot be used or is
/// gone, or the user stopped. Replies received by then are kept.
pub fn judge_run(run: &JudgeRun<'_>, dir: &Path, progress: &mut dyn Progress) -> Result<JudgeDone> {
    run.check(dir)?;
    let mut questions = Questions::new(run.items, run.prompts, run.asked())?;
    let shared = run.cache.map(|path| cache::open(path, progress)).transpose()?;
    let files = RunDir::open(dir, "judge", &run.parts(), None, progress)?;
    // Its own replies too, since another run may share them.
    let own = || cache::open(&files.file(Answer::FILE), progress);
    let (mut log, _lock) = shared.map_or_else(own, Ok)?;
    let client = Client::new(run.endpoint, run.key, run.asked(), run.patience);
    let pool = Pool::new(&client, run.endpoint, run.patience, run.stop);
    let mut done = Done::default();

    let mut cached = ask(&pool, ("questions", &questions, 0), &mut log, &mut done, progress)?;
    let (first, scores) = (questions.list.len(), questions.add_scores(log.rows()));
    if scores > 0 {
        cached += ask(&pool, ("scores", &questions, first), &mut log, &mut done, progress)?;
    }
    if let (0, 0, Some(why)) = (cached, done.answered, done.failed.values().next()) {
        return Err(pool.error(None, format!("{why}; not one question got a reply")));
    }

    let verdicts = Verdicts { answers: log.rows(), failed: &done.failed };
    let covers = run.prompts.asks(Kind::Coverage);
    let found: Vec<Found> = questions.raised.iter().map(|raised| Found::new(raised, verdicts, covers)).collect();
    let judged = questions.items().iter().zip(&found).map(|(item, found)| found.put(item, questions.axes()).to_json());
    // What an earlier call said here is of its lines, and must not stand beside these, also if this call is killed.
    [REPORT].iter().chain(&OF_A_SWEEP).try_for_each(|name| remove_if_there(&files.file(name)))?;
    write_text(&files.file(JUDGED), &judged.map(|item| item.to_string() + "\n").collect::<String>())?;
    let report = report(run, &questions, verdicts, &found, &done, cached);
    write_json(&files.file(REPORT), &report)?;
    let outcomes = run.sweep.map(|sweep| compare(run, sweep, (&report, &found), &files)).transpose()?;
    Ok(JudgeDone { report, outcomes })
}

/// Compares the arms of a sweep by the verdicts on its answers.
fn compare(
    run: &JudgeRun<'_>,
    sweep: &SweptAnswers,
    (report, found): (&JudgeReport, &[Found]),
    files: &RunDir,
) -> Result<Outcomes> {
    let (covers, delivers) = (run.prompts.asks(Kind::Coverage), run.prompts.asks(Kind::Delivery));
    let asked = [(covers, "coverage"), (delivers, "delivery"), (run.prompts.asks(Kind::Rubric), "rubric")];
    let judged = JudgedAnswers {
        judge: run.model.into(),
        tasks: asked.into_iter().filter(|(asked, _)| *asked).map(|(_, task)| task.into()).collect(),
        axes: run.prompts.axes().iter().map(|axis| axis.name.clone()).collect(),
        marks: Vec::new(),
        warnings: report.warnings.clone(),
    };
    sweep.write(files, judged, |answer, item, mark| {
        let found = answer.map(|answer| &found[answer]);
        if covers {
            // An empty answer gives none of the accepted ones and makes no claim, whoever judges.
            let empty = covers_something(item).then_some(false);
            mark.right = found.map_or(empty, Found::correct);
            mark.right_missing = found.is_some_and(Found::lacks_coverage);
        }
        if delivers {
            mark.asserted = found.and_then(|found| found.hedged?.ok()).map(|hedged| !hedged);
            mark.asserted_missing = mark.asserted.is_none();
        }
        for (at, level) in mark.levels.iter_mut().enumerate() {
            *level = found.and_then(|found| found.scores[at].ok()).map(f64::from);
        }
    })
}

/// Asks those of the questions from `first` on that are not answered yet; returns how many already are.
fn ask(
    pool: &Pool<'_>,
    (stage, questions, first): (&str, &Questions<'_>, usize),
    log: &mut RowLog<Answer>,
    done: &mut Done,
    progress: &mut dyn Progress,
) -> Result<usize> {
    let all = &questions.list[first..];
    let open: Vec<&Question> = all.iter().filter(|question| log.get(&question.key).is_none()).collect();
    let cached = all.len() - open.len();
    progress.begin(stage, all.len(), cached);
    let result = pool.ask((questions, &open), log, done, progress);
    progress.end();
    result.map(|()| cached)
}

fn report(
    run: &JudgeRun<'_>,
    questions: &Questions<'_>,
    verdicts: Verdicts<'_>,
    found: &[Found],
    done: &Done,
    cached: usize,
) -> JudgeReport {
    let Counted { questions: kinds, tokens, answered_by } = Counted::new(questions, verdicts);
    let (fields, labels) = fields(found, questions.axes());
    let mut failures: BTreeMap<String, usize> = BTreeMap::new();
    done.failed.values().for_each(|why| *failures.entry(why.clone()).or_default() += 1);
    let mut report = JudgeReport {
        schema: "judge/v1".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        endpoint: run.endpoint.address().into(),
        model: run.model.into(),
        temperature: 0.0,
        max_tokens: run.max_tokens,
        prompts: run.prompts_dir.map_or("built in".into(), |dir| dir.display().to_string()),
        prompts_sha256: run.prompts.hashes().clone(),
        items: run.items.len(),
        items_key: digest(&run.items.iter().map(Item::to_json).collect::<Vec<_>>()),
        questions: kinds,
        fields,
        labels,
        requests: done.requests,
        answered_now: done.answered,
        cached,
        tokens_now: done.tokens,
        tokens,
        answered_by,
        failures,
        complete: found.iter().all(|found| found.missing() == 0),
        warnings: Vec::new(),
    };
    report.warnings = warnings(run, &report, done, found);
    report
}

/// From this many verdicts on, it is no accident if all are alike.
const MANY: usize = 10;

/// A judge that always says the same distinguishes nothing, whatever it says.
fn all_alike(axes: &[Axis], found: &[Found]) -> Vec<String> {
    let alike = |said: Vec<bool>| (said.len() >= MANY && said.iter().all(|x| *x == said[0])).then(|| said[0]);
    let mut same: Vec<String> = Vec::new();
    let right: Vec<bool> = found.iter().filter_map(Found::correct).collect();
    let (n, hedged) = (right.len(), found.iter().filter_map(|found| found.hedged?.ok()).collect::<Vec<bool>>());
    same.extend(alike(right).map(|right| format!("all {n} answers are {}", if right { "right" } else { "wrong" })));
    let n = hedged.len();
    same.extend(alike(hedged).map(|hedged| format!("all {n} answers {}", if hedged { "hedge" } else { "assert" })));
    for (at, axis) in axes.iter().enumerate() {
        let levels: Vec<u8> = found.iter().filter_map(|found| found.scores.get(at)?.ok()).collect();
        if levels.len() >= MANY && levels.iter().all(|level| *level == levels[0]) {
            same.push(format!("all {} scores of axis '{}' are {}", levels.len(), axis.name, levels[0]));
        }
    }
    let warning = |same| format!("{same}: either these answers are all alike, or the judge tells nothing apart");
    same.into_iter().map(warning).collect()
}

fn not_asked(n: usize) -> String {
    format!("{} {}", count(n, "question"), if n == 1 { "is" } else { "are" })
}

fn warnings(run: &JudgeRun<'_>, report: &JudgeReport, done: &Done, found: &[Found]) -> Vec<String> {
    let mut out = Vec::new();
    let sum = |of: fn(&super::Counts) -> usize| report.questions.values().map(of).sum::<usize>();
    let spent = |limit: Option<u64>, used: u64| limit.filter(|limit| used >= *limit);
    let unasked = sum(|counts| counts.unasked);
    let again = "the same command asks those alone";
    if let Some(budget) = spent(run.patience.budget, done.requests).filter(|_| unasked > 0) {
        let (requests, questions) = (count(budget as usize, "request"), not_asked(unasked));
        out.push(format!("the budget of {requests} is spent; {questions} not asked; {again}"));
    } else if let Some(budget) = spent(run.patience.token_budget, done.tokens).filter(|_| unasked > 0) {
        let (tokens, questions) = (count(budget as usize, "token"), not_asked(unasked));
        out.push(format!("the budget of {tokens} is spent; {questions} not asked; {again}"));
    }
    for (why, &n) in &report.failures {
        out.push(format!("{} got no reply, since {} {why}; {again}", count(n, "question"), report.endpoint));
    }
    let (refused, unparsable, cut_off) = (sum(|c| c.refused), sum(|c| c.unparsable), sum(|c| c.cut_off));
    if refused + unparsable > 0 {
        out.push(format!(
            "{} refused and {unparsable} answered with something else than was asked for; they stay \
             missing, and are not asked again",
            if refused == 1 { "1 question was".into() } else { format!("{refused} questions were") }
        ));
    }
    if cut_off > 0 {
        out.push(format!("{cut_off} of these were cut off at {} tokens; --max-tokens allows more", run.max_tokens));
    }
    let served: BTreeSet<_> = report.answered_by.iter().map(|source| (&source.endpoint, &source.served)).collect();
    if served.len() > 1 {
        let name = |(endpoint, served): (&String, &Option<String>)| {
            served.as_ref().map_or_else(|| endpoint.clone(), |served| format!("{served} at {endpoint}"))
        };
        let names = served.into_iter().map(name).collect::<Vec<_>>().join(", ");
        out.push(format!("replies come from more than one server or model: {names}"));
    }
    match run.sweep.map_or(0, SweptAnswers::empty) {
        0 => {}
        1 => out.push("1 answer of the sweep says nothing: the judge is not asked about it".into()),
        n => out.push(format!("{n} answers of the sweep say nothing: the judge is not asked about them")),
    }
    out.extend(all_alike(run.prompts.axes(), found));
    let replaced = run.items.iter().zip(found).filter(|(item, found)| item.label.is_some() && found.labels());
    match replaced.count() {
        0 => {}
        n => out.push(format!("{} had a label, which the judge's replaces", count(n, "item"))),
    }
    let borne_out = |item: &Item, found: &Found| item.label.as_ref().is_none_or(|label| found.bears_out(label));
    let dropped = run.items.iter().zip(found).filter(|&(item, found)| !found.labels() && !borne_out(item, found));
    match dropped.count() {
        0 => {}
        n => out.push(format!(
            "{} had a label that the half of it which was judged does not bear out: it is not kept",
            count(n, "item")
        )),
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judging::{labels::Coverage, reading::Missing};

    #[test]
    fn a_judge_that_always_says_the_same_is_warned_of_by_name() {
        let axes = ["curious", "eager", "calm"].map(|name| Axis {
            name: name.into(),
            disposition: "d".into(),
            means: "m".into(),
        });
        // On the second axis levels differ; on the third too few are known.
        let found = |at: usize| {
            let calm = if at < MANY - 1 { Ok(3) } else { Err(Missing::Refused) };
            Found { scores: vec![Ok(5), Ok(1 + (at % 2) as u8), calm], ..Found::default() }
        };
        let found: Vec<Found> = (0..MANY).map(found).collect();
        let why = "either these answers are all alike, or the judge tells nothing apart";
        let curious = format!("all 10 scores of axis 'curious' are 5: {why}");
        assert_eq!(all_alike(&axes, &found), std::slice::from_ref(&curious));
        // Whether answers are right and whether they hedge are asked of each by itself: there is no label where only one was asked for.
        let said = |right: bool, hedged: bool, count: usize| -> Vec<Found> {
            let coverage = || Some(Coverage::Of(Kind::Accepted, vec![Ok(right)]));
            (0..count).map(|_| Found { coverage: coverage(), hedged: Some(Ok(hedged)), scores: vec![] }).collect()
        };
        let told = |found: &[Found]| all_alike(&[], found);
        let both = [format!("all 10 answers are wrong: {why}"), format!("all 10 answers assert: {why}")];
        assert_eq!(told(&said(false, false, MANY)), both);
        assert!(told(&said(false, false, MANY - 1)).is_empty());
        assert_eq!(
            told(&[said(true, true, MANY), said(false, true, 1)].into_iter().flatten().collect::<Vec<_>>()),
            [format!("all 11 answers hedge: {why}")]
        );
    }
}
