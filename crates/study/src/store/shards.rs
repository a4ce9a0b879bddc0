//! Joining the shards of a run: directories whose rows make up what `plan.json` lists.
//!
//! A verb with rows of any type is sharded and merged by these pieces. Its run takes its part of the wanted rows ([`Shard::part`], or
//! [`Shard::range_of`] where it knows them by their places), opens its directory with [`RunDir::open`](crate::RunDir::open), writes a
//! [`Plan`] with the keys of *all* rows of the run in order and whatever its results are made from, and fills `run.rows::<R>(..)`; unless
//! it is a shard, it then makes its results from plan and rows alone. Its merge is [`Shards::open`], [`Shards::join`],
//! [`Shards::gather`] into a directory of the whole run, and the same results.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use headtemper_engine::Identity;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    Keyed, Parts, Progress, Result, RowLog, RunDir, Shard, StudyError,
    store::{
        files::{read_json, write_text},
        manifest::Manifest,
        parts::changes,
        rows::{Written, read_rows},
        rundir::lock_to_read,
    },
};

pub(crate) const PLAN: &str = "plan.json";
const SCHEMA: &str = "plan/v1";

/// What a run consists of: `plan.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan<P> {
    /// `plan/v1`.
    schema: String,
    /// The keys of all rows of the whole run, in order, whichever shard they belong to.
    pub keys: Vec<String>,
    /// What the results are made from, besides the rows.
    pub plan: P,
}

impl<P: Serialize + DeserializeOwned> Plan<P> {
    /// A plan of these rows.
    pub fn new(keys: Vec<String>, plan: P) -> Self {
        Self { schema: SCHEMA.into(), keys, plan }
    }

    /// The plan that a directory holds; none if it holds none, or one of another version.
    pub(crate) fn of(dir: &Path) -> Option<Self> {
        let text = std::fs::read_to_string(dir.join(PLAN)).ok()?;
        serde_json::from_str(&text).ok().filter(|plan: &Self| plan.schema == SCHEMA)
    }

    /// Writes `plan.json`; the file appears whole.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, run: &RunDir) -> Result<()> {
        let text = serde_json::to_string(self).expect("plain data has a JSON form");
        write_text(&run.file(PLAN), &(text + "\n"))
    }
}

/// What the shards of a run hold.
#[derive(Debug)]
pub struct Joined<P, R> {
    /// The plan that they share.
    pub plan: Plan<P>,
    /// The rows of the plan, in its order.
    pub rows: Vec<R>,
    /// Rows that earlier calls left in the shards and that this plan does not list.
    pub others: Vec<R>,
}

/// All shards of one run, each once. They stay locked against runs while this is held.
pub struct Shards {
    dirs: Vec<(Shard, PathBuf)>,
    /// Of the first shard: what all of them share.
    manifest: Manifest,
    _locks: Vec<std::fs::File>,
}

/// The verb that made a directory.
///
/// # Errors
/// If it is no directory of a run.
pub fn made_by(dir: &Path) -> Result<String> {
    Ok(Manifest::read(dir)?.command)
}

/// A plan without where its items were found, since the items themselves are compared, and without what earlier calls asked for.
fn of_now(plan: &Value) -> Value {
    let mut plan = plan.clone();
    for place in ["file", "where", "elsewhere"] {
        plan.as_object_mut().and_then(|plan| plan.shift_remove(place));
    }
    plan
}

impl Shards {
    /// Opens the directories of a run's shards, in any order.
    ///
    /// # Errors
    /// If one is in use or is not a shard, if they belong to different runs (naming what differs), if a shard is given twice, or if
    /// one is missing.
    pub fn open(dirs: &[PathBuf]) -> Result<Self> {
        let mut shards = Vec::new();
        let mut locks = Vec::new();
        for dir in dirs {
            locks.extend(lock_to_read(dir)?);
            let manifest = Manifest::read(dir)?;
            let Some(shard) = &manifest.shard else {
                return Err(StudyError::merge(format!("{} holds a whole run", dir.display())));
            };
            shards.push((shard.parse::<Shard>()?, dir.clone(), manifest));
        }
        let Some((_, first, reference)) = shards.first() else { return Err(StudyError::merge("none was given")) };
        for (_, dir, manifest) in &shards[1..] {
            if let Some(differ) = manifest.other_than(reference) {
                return Err(differ_in(first, dir, &differ));
            }
        }
        all_once(&shards.iter().map(|(shard, dir, _)| (*shard, dir.as_path())).collect::<Vec<_>>())?;
        shards.sort_by_key(|(shard, ..)| *shard);
        let manifest = shards[0].2.clone();
        let dirs = shards.into_iter().map(|(shard, dir, _)| (shard, dir)).collect();
        Ok(Self { dirs, manifest, _locks: locks })
    }

    /// Their directories, in the order of the shards.
    pub fn dirs(&self) -> impl Iterator<Item = &Path> {
        self.dirs.iter().map(|(_, dir)| &**dir)
    }

    /// What the whole run was made from.
    ///
    /// # Errors
    /// If the shards do not say it.
    pub fn parts(&self) -> Result<Parts> {
        let none = || StudyError::merge("their manifests do not say what they were made from");
        self.manifest.parts.clone().ok_or_else(none)
    }

    /// The plan of the whole run, all its rows in the plan's order, and what else the shards hold.
    ///
    /// # Errors
    /// If the shards were planned differently (naming what differs), one lacks rows, or two hold different rows of one key.
    pub fn join<P: Serialize + DeserializeOwned, R: Keyed + DeserializeOwned>(&self) -> Result<Joined<P, R>> {
        let first = &self.dirs[0].1;
        let reference: Value = read_json(&first.join(PLAN))?;
        if reference["schema"] != SCHEMA {
            let why = format!("its schema is {}, but must be {SCHEMA}", reference["schema"]);
            return Err(StudyError::content(&first.join(PLAN), why));
        }
        let plan: Plan<P> =
            serde_json::from_value(reference.clone()).map_err(|e| StudyError::content(&first.join(PLAN), e))?;
        let (mut joined, mut rest, mut lacking) = (Vec::new(), Vec::new(), Vec::new());
        for (shard, dir) in &self.dirs {
            let planned: Value = read_json(&dir.join(PLAN))?;
            // Keys follow from the rest: they would only say that something differs.
            let differ = changes("plan", &of_now(&reference["plan"]), &of_now(&planned["plan"]));
            if !differ.is_empty() || planned["keys"] != reference["keys"] {
                return Err(differ_in(first, dir, &differ));
            }
            let Written { mut rows, .. } = read_rows::<R>(&dir.join(R::FILE))?;
            let keys = &plan.keys[shard.range(plan.keys.len())];
            let there: Vec<R> = keys.iter().filter_map(|key| rows.remove(key)).collect();
            if there.len() < keys.len() {
                lacking.push(format!(
                    "shard {shard} in {} lacks {} of its {} rows: run it again to the end",
                    dir.display(),
                    keys.len() - there.len(),
                    keys.len()
                ));
            }
            joined.extend(there.into_iter().map(|row| (&**dir, row)));
            rest.extend(rows.into_values().map(|row| (&**dir, row)));
        }
        if !lacking.is_empty() {
            return Err(StudyError::merge(lacking.join("; ")));
        }
        one_result_a_key(joined.iter().chain(&rest))?;
        // A shard of an earlier, different split may hold rows of the others.
        let planned: BTreeSet<&str> = plan.keys.iter().map(String::as_str).collect();
        rest.retain(|(_, row)| !planned.contains(row.key()));
        let rows = |of: Vec<(&Path, R)>| of.into_iter().map(|(_, row)| row).collect();
        Ok(Joined { plan, rows: rows(joined), others: rows(rest) })
    }

    /// Takes a directory for the whole run and adds the joined rows that are not there yet, and the model that the shards ran.
    ///
    /// # Errors
    /// If the directory belongs to something else, holds another row of a key than the shards, or cannot be written; if the shards do not
    /// say which model they ran.
    pub fn gather<P, R>(
        &self,
        out: &Path,
        plan: &Plan<P>,
        rows: Vec<R>,
        progress: &mut dyn Progress,
    ) -> Result<(RunDir, RowLog<R>, Identity)>
    where
        P: Serialize + DeserializeOwned,
        R: Keyed + Serialize + DeserializeOwned,
    {
        let identity = self.manifest.identity();
        let identity = identity.map_err(|why| StudyError::merge(format!("their manifest {why}")))?;
        let mut run = RunDir::open(out, &self.manifest.command, &self.parts()?, None, progress)?;
        let mut log: RowLog<R> = run.rows(progress)?;
        self.agree(out, &log, &rows)?;
        run.note("identity", &identity)?;
        plan.save(&run)?;
        for row in rows {
            if log.get(row.key()).is_none() {
                log.append(row)?;
            }
        }
        Ok((run, log, identity))
    }

    /// Refuses rows of which the directory of the whole run holds others already.
    fn agree<R: Keyed + Serialize + DeserializeOwned>(&self, out: &Path, log: &RowLog<R>, rows: &[R]) -> Result<()> {
        let other = |row: &&R| log.get(row.key()).is_some_and(|there| there != *row);
        let Some(row) = rows.iter().find(other) else { return Ok(()) };
        // Which shard it is of is found again only here.
        for (_, dir) in &self.dirs {
            if read_rows::<R>(&dir.join(R::FILE))?.rows.get(row.key()) == Some(row) {
                return Err(two_results::<R>(out, dir, row.key()));
            }
        }
        unreachable!("the rows are those of the shards, which are locked")
    }
}

/// Refuses two rows of one key that differ. Shards of another split before may each hold it.
fn one_result_a_key<'a, R: Keyed + 'a>(rows: impl Iterator<Item = &'a (&'a Path, R)>) -> Result<()> {
    let mut first: BTreeMap<&str, &(&Path, R)> = BTreeMap::new();
    for row in rows {
        let there = first.entry(row.1.key()).or_insert(row);
        if there.1 != row.1 {
            return Err(two_results::<R>(there.0, row.0, row.1.key()));
        }
    }
    Ok(())
}

/// The error for two directories that hold different rows of one key.
fn two_results<R: Keyed>(first: &Path, other: &Path, key: &str) -> StudyError {
    let (first, other) = (first.join(R::FILE), other.join(R::FILE));
    StudyError::merge(format!(
        "{} says something else than {} of one key ({key}), but a key stands for one result; remove the line that is wrong there",
        first.display(),
        other.display()
    ))
}

/// The error for two shards of different runs.
pub(crate) fn differ_in(first: &Path, other: &Path, changes: &[String]) -> StudyError {
    let why = if changes.is_empty() { "their keys differ".into() } else { changes.join("; ") };
    StudyError::merge(format!("from {} to {}, {why}", first.display(), other.display()))
}

/// Refuses parts of different splits, parts given twice, and missing parts.
pub(crate) fn all_once(shards: &[(Shard, &Path)]) -> Result<()> {
    let (first, path) = shards[0];
    if let Some((other, at)) = shards.iter().find(|(shard, _)| shard.of() != first.of()) {
        let why = format!("{} is shard {first}, {} is shard {other}", path.display(), at.display());
        return Err(StudyError::merge(why));
    }
    for (index, (shard, at)) in shards.iter().enumerate() {
        if let Some((_, before)) = shards[..index].iter().find(|(other, _)| other == shard) {
            let why = format!("{} and {} are both shard {shard}", before.display(), at.display());
            return Err(StudyError::merge(why));
        }
    }
    let missing: Vec<String> = Shard::all(first.of())
        .filter(|shard| shards.iter().all(|(other, _)| other != shard))
        .map(|shard| shard.to_string())
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(StudyError::merge(format!("missing {}", missing.join(", ")))) }
}
