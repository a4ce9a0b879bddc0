//! Head lists and plans as a user gives them: in place, in a file, or the top of a report.

mod ranking;
pub(crate) mod table;

use std::path::Path;

use headtemper_hook::{HeadList, HeadPlan, HeadRef, MadeFor, ModelSpec, PlanError, Positions};

use crate::{Result, StudyError, store::files::parse_json};
use ranking::Ranking;
pub use ranking::{RankBy, TopHeads};
pub(crate) use ranking::{top, top_remarks};
use table::TableSource;

/// What stands for a plan on the command line or in a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanSource<'a> {
    /// A list in place, a `.json` or `.npz` file (`lambda.npz#NAME` for one variant of a sweep), or `top:k@attribution.json`
    /// (`top:k:direction@attribution.json` for those that lie farthest apart, instead of the loudest).
    pub text: &'a str,
    /// λ of heads without one of their own.
    pub lambda: Option<f32>,
    /// The positions that are touched, where the plan does not say.
    pub positions: Option<Positions>,
}

/// The plans that a source stands for: one for all items, or one per item (the rows of a λ table).
///
/// # Errors
/// If it cannot be read, or names heads that the model does not have.
pub fn plans(source: &PlanSource<'_>, spec: &ModelSpec) -> Result<Vec<HeadPlan>> {
    let plans = match source.table()? {
        Some(table) => table.plans(spec)?,
        None => vec![source.plan(&Given::read(source.text)?.list(spec)?)?],
    };
    plans.iter().try_for_each(|plan| plan.check(spec))?;
    let plans =
        plans.into_iter().map(|plan| plan.limited(source.positions)).collect::<std::result::Result<Vec<_>, _>>()?;
    if plans.iter().all(HeadPlan::is_empty) { Err(PlanError::Empty.into()) } else { Ok(plans) }
}

/// Refuses a source that is no plan for any model, so that none has to be opened first.
///
/// # Errors
/// As [`plans`], except where it takes the model's layers and heads to know.
pub fn check_plan(source: &PlanSource<'_>) -> Result<()> {
    match source.table()? {
        Some(table) => table.check(),
        // All heads have the λ that goes with the plan, and that is checked where it is read.
        None => match Given::read(source.text)?.named {
            None => Ok(()),
            Some(list) => Ok(source.plan(&list)?.limited(source.positions).map(drop)?),
        },
    }
}

impl<'a> PlanSource<'a> {
    /// The λ table that it names, if it is one.
    fn table(&self) -> Result<Option<TableSource<'a>>> {
        let table = TableSource::of(self.text);
        if table.is_some() && self.lambda.is_some() {
            return Err(useless(self.lambda, "the λ table has its own"));
        }
        Ok(table)
    }

    /// The plan of these heads.
    fn plan(&self, list: &HeadList) -> Result<HeadPlan> {
        if self.lambda.is_some() && list.heads.iter().all(|(_, lambda)| lambda.is_some()) {
            return Err(useless(self.lambda, "every head of the plan brings its own"));
        }
        Ok(list.plan(self.lambda)?)
    }
}

/// Refuses a λ table whose rows are named after other items than these, or after the same ones in another order. The ids of the
/// items are asked for only if the table names its rows.
///
/// # Errors
/// Names the first row that differs.
pub fn check_rows(text: &str, items: impl FnOnce() -> Result<Vec<String>>) -> Result<()> {
    TableSource::of(text).map_or(Ok(()), |table| table.check_rows(items))
}

/// A set of heads: a list in place, a `.json` file, `all`, or `top:k@attribution.json`.
///
/// # Errors
/// If it cannot be read, or names heads that the model does not have.
pub fn head_set(text: &str, spec: &ModelSpec) -> Result<Vec<HeadRef>> {
    let heads = given_set(text)?.list(spec)?.heads();
    heads.iter().try_for_each(|&at| spec.check(at))?;
    Ok(heads)
}

/// Refuses a text that is no set of heads for any model, so that none has to be opened first.
///
/// # Errors
/// As [`head_set`], except where it takes the model's layers and heads to know.
pub fn check_head_set(text: &str) -> Result<()> {
    given_set(text).map(drop)
}

/// A set of heads as it was given: without λ and positions.
fn given_set(text: &str) -> Result<Given<'_>> {
    if TableSource::of(text).is_some() {
        return Err(no_list_in(Path::new(text), "a .json list, or top:5@attribution.json: the arms bring their own λ"));
    }
    let given = Given::read(text)?;
    if let Some(list) = &given.named {
        // A plan, as `attribute --lambda` writes one, says more than which heads: what it says would be lost.
        let refused = |what: String, allowed: &str| {
            let found = if is_list_file(text) { format!("{what} in {text}") } else { what };
            Err(wrong(&found, allowed))
        };
        if let Some((at, Some(lambda))) = list.heads.iter().find(|(_, lambda)| lambda.is_some()) {
            return refused(
                format!("{at}:{lambda}"),
                &format!(
                    "{at} without λ, which is given beside the list: write a list without, or take the top of an attribution: \
                     top:5@attribution.json"
                ),
            );
        }
        if let Some(positions) = list.positions {
            let at = list.heads.first().map(|(at, _)| at.to_string()).unwrap_or_default();
            return refused(format!("{at} at {positions}"), &format!("{at} without positions"));
        }
    }
    Ok(given)
}

/// What the user should know about heads taken from an attribution, `top:5@attribution.json`, for a model with these weights: that
/// it is of other weights, or found nothing in these heads. For a list or a λ table that says so: that it was made for other
/// weights.
///
/// # Errors
/// If the attribution, list or table cannot be read.
pub fn head_remarks(text: &str, weights_sha256: &str) -> Result<Vec<String>> {
    let remarks = if let Some(top) = Top::of(text)? {
        top.ranking.remarks(top.name, &top.heads()?, weights_sha256)
    } else {
        let told = |MadeFor { model, weights_sha256: own }: MadeFor| match own.as_str() {
            "" => Some(format!(
                "it is of {model}, and has no weights_sha256 that would tell whether these are its weights"
            )),
            own => (own != weights_sha256).then(|| format!("it is of {model}, whose weights are others")),
        };
        made_for(text)?.and_then(told).into_iter().collect()
    };
    Ok(remarks.into_iter().map(|remark| format!("{text}: {remark}")).collect())
}

/// The model that a list or a table was made for, where it says so.
fn made_for(text: &str) -> Result<Option<MadeFor>> {
    if let Some(table) = TableSource::of(text) {
        return table.made_for();
    }
    Ok(match list_file(text)? {
        Some(content) => HeadList::parse(&content)?.made_for,
        None => None,
    })
}

/// What a `.json` file of heads holds, if it is one.
fn list_file(text: &str) -> Result<Option<String>> {
    let path = Path::new(text);
    let read = || std::fs::read_to_string(path).map_err(StudyError::read(path));
    // Editors on Windows put a byte order mark before the text.
    let content = is_list_file(text).then(read).transpose()?;
    Ok(content.map(|content| content.trim_start_matches('\u{feff}').to_owned()))
}

fn is_list_file(text: &str) -> bool {
    Path::new(text).extension().is_some_and(|e| e.eq_ignore_ascii_case("json"))
}

/// The text of a head set with the file that it names, if any, as an absolute path; a relative one is relative to this directory.
///
/// # Errors
/// If the working directory, which a relative directory is relative to, is not there.
pub(crate) fn relative_to(base: &Path, text: &str) -> Result<String> {
    let absolute = |path: &str| -> Result<String> {
        let path = std::path::absolute(base.join(path)).map_err(StudyError::read(Path::new(path)))?;
        Ok(path.display().to_string())
    };
    match text.strip_prefix("top:").and_then(|top| top.split_once('@')) {
        Some((heads, path)) => Ok(format!("top:{heads}@{}", absolute(path)?)),
        None if is_list_file(text) => absolute(text),
        None => Ok(text.into()),
    }
}

/// `top:5@attribution.json`, or `top:5:direction@attribution.json`; with `#humble` after it for a disposition other than the first.
struct Top<'a> {
    heads: TopHeads,
    path: &'a Path,
    name: Option<&'a str>,
    ranking: Ranking,
}

impl<'a> Top<'a> {
    /// None if the text is something else.
    fn of(text: &'a str) -> Result<Option<Self>> {
        let Some(rest) = text.strip_prefix("top:") else { return Ok(None) };
        let Some((heads, path)) = rest.split_once('@') else {
            return Err(wrong(text, "top:5@attribution.json"));
        };
        let heads: TopHeads =
            heads.parse().map_err(|_| wrong(text, "top:5@attribution.json or top:5:direction@attribution.json"))?;
        let (path, name) = match path.rsplit_once('#') {
            Some((file, name)) if !Path::new(path).exists() => (file, Some(name)),
            _ => (path, None),
        };
        let path = Path::new(path);
        Ok(Some(Self { heads, path, name, ranking: ranking(path, heads)? }))
    }

    fn heads(&self) -> Result<Vec<HeadRef>> {
        self.ranking.top(self.name, self.heads).map_err(|why| StudyError::content(self.path, why))
    }
}

/// The ranking in a file that these heads are the top of.
fn ranking(path: &Path, heads: TopHeads) -> Result<Ranking> {
    let text = std::fs::read_to_string(path).map_err(StudyError::read(path))?;
    parse_json(path, &text, "an attribution, as `temper attribute` writes it").map_err(|error| {
        if HeadList::parse(&text).is_err() {
            return error;
        }
        let why = format!(
            "is a list of heads, which ranks none, but top:{heads}@ takes the ranking of an attribution.json; a list is given by its path \
             alone"
        );
        StudyError::content(path, why)
    })
}

/// Heads as they were given, read as far as that takes no model.
struct Given<'a> {
    /// None for all heads of the model.
    named: Option<HeadList>,
    /// The ranking that they are the top of, if they are.
    top: Option<Top<'a>>,
}

impl<'a> Given<'a> {
    fn read(text: &'a str) -> Result<Self> {
        if text == "all" {
            return Ok(Self { named: None, top: None });
        }
        let top = Top::of(text)?;
        let named = match &top {
            Some(top) => HeadList::of(top.heads()?.into_iter().map(|at| (at, None)).collect())?,
            None => list(text)?,
        };
        Ok(Self { named: Some(named), top })
    }

    /// The heads of this model.
    fn list(self, spec: &ModelSpec) -> Result<HeadList> {
        if let Some(top) = &self.top {
            top.ranking.check(spec).map_err(|why| StudyError::content(top.path, why))?;
        }
        let all = || HeadList::of(spec.slots().into_iter().map(|at| (at, None)).collect());
        Ok(self.named.map_or_else(all, Ok)?)
    }
}

/// The list that a text is, or the file that it names holds.
fn list(text: &str) -> Result<HeadList> {
    if let Some(content) = list_file(text)? {
        return Ok(HeadList::parse(&content)?);
    }
    HeadList::parse(text).map_err(|error| {
        let path = Path::new(text);
        // JSON in place contains a slash as well: heads/v1.
        let json = text.trim_start().starts_with(['{', '[']);
        let a_path = path.exists() || (!json && text.contains(std::path::MAIN_SEPARATOR));
        if a_path {
            no_list_in(path, "a .json list or plan, an .npz table of λ, or top:5@attribution.json")
        } else {
            error.into()
        }
    })
}

/// The error for a file of heads that nothing says how to read.
fn no_list_in(path: &Path, allowed: &str) -> StudyError {
    StudyError::option("the file of a head list", path.display().to_string(), allowed)
}

fn useless(lambda: Option<f32>, why: &str) -> StudyError {
    let found = lambda.map(|l| l.to_string()).unwrap_or_default();
    StudyError::option("--lambda", found, format!("left out: {why}"))
}

fn wrong(found: &str, allowed: &str) -> StudyError {
    StudyError::option("the head list", found, format!("like {allowed}"))
}
