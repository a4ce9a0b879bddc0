//! Head lists and plans as a user gives them: in place, in a file, or the top of a report.

use std::path::Path;

use headtemper_hook::{HeadKind, HeadList, HeadPlan, HeadRef, LayerSpec, ModelSpec, PlanError, Positions};

use serde::Deserialize;

use crate::{
    Result, StudyError,
    attribution::{Attribution, kind_name},
    store::files::read_json,
};

/// What stands for a plan on the command line or in a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanSource<'a> {
    /// A list in place, a `.json` or `.npz` file, or `top:k@attribution.json`.
    pub text: &'a str,
    /// λ of heads that have none of their own.
    pub lambda: Option<f32>,
    /// The positions that are touched, where the plan does not say.
    pub positions: Option<Positions>,
}

/// The plans that a source stands for: one for all items, or one an item (the rows of a λ table).
///
/// # Errors
/// If it cannot be read, or names heads that the model does not have.
pub fn plans(source: &PlanSource<'_>, spec: &ModelSpec) -> Result<Vec<HeadPlan>> {
    let path = Path::new(source.text);
    let plans = if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("npz")) {
        if source.lambda.is_some() {
            return Err(useless(source.lambda, "the λ table has its own"));
        }
        lambda_table(path, spec)?
    } else {
        let list = list(source.text, spec)?;
        if source.lambda.is_some() && list.heads.iter().all(|(_, lambda)| lambda.is_some()) {
            return Err(useless(source.lambda, "every head of the plan brings its own"));
        }
        vec![list.plan(source.lambda)?]
    };
    plans.iter().try_for_each(|plan| plan.check(spec))?;
    let plans =
        plans.into_iter().map(|plan| plan.limited(source.positions)).collect::<std::result::Result<Vec<_>, _>>()?;
    if plans.iter().all(HeadPlan::is_empty) { Err(PlanError::Empty.into()) } else { Ok(plans) }
}

/// A set of heads: a list in place, a `.json` file, `all`, or `top:k@attribution.json`.
///
/// # Errors
/// If it cannot be read, or names heads that the model does not have.
pub fn head_set(text: &str, spec: &ModelSpec) -> Result<Vec<HeadRef>> {
    let list = list(text, spec)?;
    if let Some((at, Some(lambda))) = list.heads.iter().find(|(_, lambda)| lambda.is_some()) {
        return Err(wrong(&format!("{at}:{lambda}"), "L7H6 without a lambda: the arms bring theirs"));
    }
    if let Some(positions) = list.positions {
        return Err(wrong(&format!("heads at {positions}"), "L7H6,L23H1: --positions limits every arm"));
    }
    let heads = list.heads();
    heads.iter().try_for_each(|&at| spec.check(at))?;
    Ok(heads)
}

fn list(text: &str, spec: &ModelSpec) -> Result<HeadList> {
    if text == "all" {
        return Ok(HeadList::of(spec.slots().into_iter().map(|at| (at, None)).collect())?);
    }
    if let Some(rest) = text.strip_prefix("top:") {
        let Some((count, path)) = rest.split_once('@') else {
            return Err(wrong(text, "top:5@attribution.json"));
        };
        let count: usize = count.parse().map_err(|_| wrong(text, "top:5@attribution.json"))?;
        // A disposition other than the first is named behind the file: top:5@attribution.json#humble.
        let (path, name) = match path.rsplit_once('#') {
            Some((file, name)) if !Path::new(path).exists() => (file, Some(name)),
            _ => (path, None),
        };
        let report: Ranking = read_json(Path::new(path))?;
        let heads = report.top(name, count).map_err(|why| StudyError::content(Path::new(path), why))?;
        return Ok(HeadList::of(heads.into_iter().map(|at| (at, None)).collect())?);
    }
    let path = Path::new(text);
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        let content = std::fs::read_to_string(path).map_err(StudyError::read(path))?;
        return Ok(HeadList::parse(&content)?);
    }
    HeadList::parse(text).map_err(|error| {
        // JSON in place has a slash as well: heads/v1.
        let json = text.trim_start().starts_with(['{', '[']);
        let a_path = path.exists() || (!json && text.contains(std::path::MAIN_SEPARATOR));
        if a_path { no_list_in(path) } else { error.into() }
    })
}

/// Heads are asked of a file that nothing says how to read.
fn no_list_in(path: &Path) -> StudyError {
    StudyError::Option {
        what: "the file of a head list".into(),
        found: path.display().to_string(),
        allowed: "a .json list or plan, an .npz table of λ, or top:5@attribution.json".into(),
    }
}

fn useless(lambda: Option<f32>, why: &str) -> StudyError {
    let found = lambda.map(|l| l.to_string()).unwrap_or_default();
    StudyError::Option { what: "--lambda".into(), found, allowed: format!("left out: {why}") }
}

fn wrong(found: &str, allowed: &str) -> StudyError {
    StudyError::Option { what: "the head list".into(), found: found.into(), allowed: format!("like {allowed}") }
}

/// What is read of an attribution to rank heads: other programs may write it too.
#[derive(Deserialize)]
struct Ranking {
    #[serde(default)]
    method: RankedBy,
    dispositions: Vec<RankedDisposition>,
}

#[derive(Deserialize, Default)]
struct RankedBy {
    #[serde(default)]
    compat: String,
}

#[derive(Deserialize)]
struct RankedDisposition {
    #[serde(default)]
    name: String,
    heads: Vec<RankedHead>,
}

#[derive(Deserialize)]
struct RankedHead {
    layer: usize,
    head: usize,
    #[serde(default)]
    kind: String,
    #[serde(deserialize_with = "crate::tables::number")]
    cohen_d: f64,
}

impl Ranking {
    /// The heads with the largest |d| of a disposition, the first if none is named; with the largest d where the file was
    /// made as the paper's scripts do.
    fn top(&self, name: Option<&str>, count: usize) -> std::result::Result<Vec<HeadRef>, String> {
        let disposition = match name {
            None => self.dispositions.first().ok_or("it ranks no heads")?,
            Some(name) => self.dispositions.iter().find(|d| d.name == name).ok_or_else(|| {
                let names: Vec<&str> = self.dispositions.iter().map(|d| d.name.as_str()).collect();
                format!("it has no disposition '{name}', but {}", names.join(", "))
            })?,
        };
        let at = |head: &RankedHead| {
            let kind = if head.kind == kind_name(HeadKind::Value) { HeadKind::Value } else { HeadKind::Query };
            HeadRef { layer: head.layer, head: head.head, kind }
        };
        let signed = self.method.compat == "dd";
        top_of(disposition.heads.iter().map(|head| (at(head), head.cohen_d)).collect(), signed, count)
    }
}

/// The heads with the largest |d| of the first disposition.
pub(crate) fn top(report: &Attribution, count: usize) -> std::result::Result<Vec<HeadRef>, String> {
    let disposition = report.dispositions.first().ok_or("it ranks no heads")?;
    let heads = disposition.heads.iter().map(|head| (head.at(), head.magnitude.cohen_d)).collect();
    top_of(heads, report.method.compat == "dd", count)
}

fn top_of(mut heads: Vec<(HeadRef, f64)>, signed: bool, count: usize) -> std::result::Result<Vec<HeadRef>, String> {
    heads.retain(|(_, d)| d.is_finite());
    let size = |d: f64| if signed { d } else { d.abs() };
    heads.sort_by(|a, b| size(b.1).total_cmp(&size(a.1)));
    if count == 0 || count > heads.len() {
        return Err(format!("it ranks {} heads, so top:{count} does not exist", heads.len()));
    }
    let mut chosen: Vec<_> = heads[..count].iter().map(|(at, _)| *at).collect();
    chosen.sort();
    Ok(chosen)
}

/// A λ table: npz with `lambda` f32 `[row, layer, head]`; a missing layer or head is 1.
fn lambda_table(path: &Path, spec: &ModelSpec) -> Result<Vec<HeadPlan>> {
    let size = std::fs::metadata(path).map_err(StudyError::read(path))?.len();
    let read = || -> candle_core::Result<Option<Vec<Vec<Vec<f32>>>>> {
        let arrays = candle_core::npy::NpzTensors::new(path)?;
        // Before anything is allocated: a shape is only a claim.
        if arrays.names().iter().any(|name| *name == "lambda") {
            let (shape, _) = arrays.get_shape_and_dtype("lambda")?;
            let values = shape.dims().iter().try_fold(1usize, |n, &dim| n.checked_mul(dim));
            if shape.rank() != 3 || values.is_none_or(|values| values as u64 > size) {
                candle_core::bail!(
                    "lambda claims the shape {shape:?}, but must be [row, layer, head] and fit the file"
                );
            }
        }
        arrays.get("lambda")?.map(|t| t.to_dtype(candle_core::DType::F32)?.to_vec3::<f32>()).transpose()
    };
    let table = read().map_err(|e| StudyError::content(path, headtemper_engine::reason(&e)))?;
    let table = table.ok_or_else(|| StudyError::content(path, "has no array 'lambda' [row, layer, head]"))?;
    table.iter().map(|row| plan_of(row, spec)).collect()
}

/// The plan of one row. A 1 where the model has no head is only padding of the table; anything else there is an error.
fn plan_of(row: &[Vec<f32>], spec: &ModelSpec) -> Result<HeadPlan> {
    let mut entries = Vec::new();
    for (layer, heads) in row.iter().enumerate() {
        for (head, &lambda) in heads.iter().enumerate() {
            let kind = spec.layers.get(layer).map_or(HeadKind::Query, LayerSpec::kind);
            let at = HeadRef { layer, head, kind };
            if lambda != 1.0 {
                spec.check(at)?;
                entries.push((at, lambda));
            }
        }
    }
    Ok(HeadPlan::new(entries)?)
}
