//! The answers of a finished sweep, for a judge: from its directory to items, and from what the judge said to tables. Needs no model.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use headtemper_engine::Identity;
use serde_json::json;

use super::{
    Arm,
    files::{write_outcomes, write_report},
    fired_by_arm,
    mark::{JudgedAnswers, Mark, marks_by_rules},
    outcome::Outcomes,
    run::SweepPlan,
};
use crate::{
    HookCounts, Item, Keyed, Plan, Result, Row, RunDir, StudyError,
    items::thought::Thoughts,
    store::{
        manifest::{MANIFEST, Manifest},
        rows::{Written, read_rows},
        rundir::lock_to_read,
    },
    text::as_written,
};

/// The fields that say where an answer is from.
const FROM: [&str; 4] = ["item", "variant", "lambda", "seed"];

/// A finished sweep, read from its directory.
pub struct SweptAnswers {
    dir: PathBuf,
    path: PathBuf,
    plan: SweepPlan,
    items: Vec<Item>,
    /// `[arm][seed * items + item]`
    rows: Vec<Vec<Row>>,
    thoughts: Thoughts,
    fired: HookCounts,
    identity: Identity,
    answers: Vec<Item>,
    /// The arm and the row of each answer.
    places: Vec<(usize, usize)>,
    /// Rows of the directory that the plan does not list.
    others: Vec<Row>,
    /// How many items the sweep has, of which only the first may be taken.
    all: usize,
}

impl SweptAnswers {
    /// Reads a sweep; with a limit, only what it answered to its first items.
    ///
    /// # Errors
    /// If the directory is in use, holds no sweep or only a shard of one, lacks rows, or an arm of it touched nothing.
    pub fn read(dir: &Path, limit: Option<usize>) -> Result<Self> {
        let wrong = |found: String| {
            let allowed =
                "the directory of a finished `temper sweep`, of its merged shards, or of a `temper run` with [sweep]";
            Err(StudyError::option(format!("what --sweep names, {}", dir.display()), found, allowed))
        };
        if dir.is_file() {
            return wrong("a file".into());
        }
        let _lock = lock_to_read(dir)?;
        let manifest = Manifest::read(dir)?;
        match (&*manifest.command, &manifest.shard) {
            ("sweep" | "run", None) => {}
            ("sweep", Some(shard)) => {
                return wrong(format!("shard {shard}, which `temper merge` joins to the others"));
            }
            (command, _) => return wrong(format!("made by `temper {command}`")),
        }
        let Some(Plan { keys, plan, .. }) = Plan::<SweepPlan>::of(dir) else {
            return wrong("without the plan.json of a sweep".into());
        };
        let path = dir.join(Row::FILE);
        let mut items = plan.items(keys.len()).map_err(|why| StudyError::content(&dir.join("plan.json"), why))?;
        let taken = |item: &&Item| FROM.iter().any(|name| item.other.contains_key(*name));
        if let Some(item) = items.iter().find(taken) {
            let name = FROM.into_iter().find(|name| item.other.contains_key(*name)).unwrap_or_default();
            let what = format!("the field '{name}' of item '{}'", item.id);
            return Err(StudyError::option(what, "taken", "free: there a judged answer says which arm it is from"));
        }
        let Written { rows: mut written, .. } = read_rows::<Row>(&path)?;
        let lacking = keys.iter().filter(|key| !written.contains_key(*key)).count();
        if lacking > 0 {
            return wrong(format!("lacking {lacking} of its {} rows", keys.len()));
        }
        let identity = manifest.identity().map_err(|why| StudyError::content(&dir.join(MANIFEST), why))?;
        let (all, kept) = (items.len(), limit.unwrap_or(usize::MAX).min(items.len()));
        items.truncate(kept);
        let mut rows: Vec<Vec<Row>> = Vec::new();
        for keys in keys.chunks(all * plan.seeds.len()) {
            let own = keys.iter().enumerate().filter(|(at, _)| at % all < kept);
            rows.push(own.filter_map(|(_, key)| written.remove(key)).collect());
        }
        // Before anybody is asked about answers that say nothing.
        let fired = fired_by_arm((&items, &plan.seeds), &plan.arms, &rows)?;
        let thoughts = Thoughts { by_prompt: plan.prompts_open_thought };
        let (mut answers, mut places) = (Vec::new(), Vec::new());
        for (at, (arm, rows)) in plan.arms.iter().zip(&rows).enumerate() {
            for (place, (row, item)) in rows.iter().zip(items.iter().cycle()).enumerate() {
                if thoughts.after(&item.input).says(&row.response) {
                    answers.push(answer(item, arm, row));
                    places.push((at, place));
                }
            }
        }
        let others = written.into_values().collect();
        Ok(Self { dir: dir.into(), path, plan, items, rows, thoughts, fired, identity, answers, places, others, all })
    }

    /// The file that the answers are from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every answer that is not empty, as an item: arm by arm, seed by seed, in the order of the items.
    pub fn answers(&self) -> &[Item] {
        &self.answers
    }

    /// How many answers are empty, or end within a thought: a judge is not asked about them.
    pub fn empty(&self) -> usize {
        self.rows.iter().map(Vec::len).sum::<usize>() - self.answers.len()
    }

    /// Writes the tables of the sweep and its report into a directory, with what a judge said of the [`answers`](Self::answers): `judged`
    /// has no marks yet. `put` is given the number of an answer, none for one that says nothing, the item that it answers, and what the
    /// rules say of it, which it replaces by what the judge was asked for.
    pub(crate) fn write(
        &self,
        run: &RunDir,
        judged: JudgedAnswers,
        put: impl Fn(Option<usize>, &Item, &mut Mark),
    ) -> Result<Outcomes> {
        let Self { plan, items, rows, thoughts, .. } = self;
        let grader = plan.hedges.as_ref();
        let number: BTreeMap<(usize, usize), usize> = self.places.iter().copied().zip(0..).collect();
        let of_arm = |(arm, rows): (usize, &Vec<Row>)| -> Vec<Mark> {
            let levels = vec![None; judged.axes.len()];
            let by_rules =
                marks_by_rules(items, rows, grader, *thoughts).into_iter().zip(items.iter().cycle()).enumerate();
            let mark = |(row, (by_rules, item))| {
                let mut mark = Mark { levels: levels.clone(), ..by_rules };
                put(number.get(&(arm, row)).copied(), item, &mut mark);
                mark
            };
            by_rules.map(mark).collect()
        };
        let marks = rows.iter().enumerate().map(of_arm).collect();
        let judged = JudgedAnswers { marks, ..judged };
        let answered = plan.answered(items, rows, Some(&judged));
        let outcomes = write_outcomes(run, &answered, self.others.iter())?;
        let from = Some((&*self.dir, self.all));
        write_report(run, &self.identity, plan, (&answered, &outcomes), &self.fired, from)?;
        Ok(outcomes)
    }
}

/// An answer as an item of its own, with the fields of the item that it answers, and where it is from.
fn answer(item: &Item, arm: &Arm, row: &Row) -> Item {
    let mut answer = item.answered_by(row);
    let from = [json!(item.id), json!(arm.variant), json!(as_written(arm.lambda)), json!(row.seed)];
    answer.other.extend(FROM.map(String::from).into_iter().zip(from));
    Item { id: format!("{}/{}/{}", item.id, arm.variant, row.seed), ..answer }
}
