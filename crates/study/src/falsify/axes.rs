//! Step 3: the same probe for each score of the items, and whether the scores are more than one.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use headtemper_stats::{fisher_range, pearson};

use super::{
    Axis, AxisPair, Check, GateFile, Kind, Outcome,
    config::AxesConfig,
    steps,
    tested::{label_warnings, null_of},
};
use crate::{
    Npz, Progress, ReadAs, Result, StudyError,
    probe::{
        Column, ColumnSource, Ends, FeatureRows, FeatureSource, LabelSource, ProbeSet, Rule, column, evaluate, fit,
    },
    read_items,
    significance::least_p,
    text::short,
};

/// An axis as it was declared: its name, and its column in both files.
pub(crate) struct Declared {
    pub(crate) name: String,
    train: LabelSource,
    /// Its values of the training items.
    column: Column,
    fresh: LabelSource,
}

impl Declared {
    /// Refuses a column that does not match the fresh items. No value is looked at.
    ///
    /// # Errors
    /// If it cannot be read, or matches them neither by id nor by place.
    pub(crate) fn check_fresh(&self, rows: &FeatureRows) -> Result<()> {
        rows.check_labels(&self.fresh)
    }
}

/// A fitted axis, with its out-of-fold predictions and their units by the row in the features file, and what must be known of its labels.
type Found = (Axis, BTreeMap<usize, (f64, usize)>, Vec<String>);

/// Step 3 as it was run.
#[derive(Default)]
pub(crate) struct Swept {
    pub(crate) axes: Vec<Axis>,
    pub(crate) pairs: Vec<AxisPair>,
    /// What must be known of labels, each with the axes that it is true of.
    pub(crate) warnings: BTreeMap<String, Vec<String>>,
}

/// The axes that a gate file declares. Reads which columns there are, and no fresh value.
///
/// # Errors
/// If a file or rule cannot be used, or no score is found.
pub(crate) fn declared(file: &GateFile, axes: &AxesConfig) -> Result<Vec<Declared>> {
    let path = |own: &Option<PathBuf>, items: &Option<PathBuf>, features: &FeatureSource| {
        own.clone().or_else(|| items.clone()).unwrap_or_else(|| features.path.clone())
    };
    let train = path(&axes.train, &file.train.items, &file.train.features);
    let fresh = path(&axes.fresh, &file.fresh.items, &file.fresh.features);
    let texts = match &axes.every {
        None => axes.columns.clone(),
        Some(rule) => {
            let rule = Rule::parse(rule)?;
            score_columns(&train)?.into_iter().map(|name| format!("{name}{rule}")).collect()
        }
    };
    let source = |path: &Path, text: &str| -> Result<LabelSource> {
        let LabelSource { column, rule } = format!("axes.jsonl:{text}").parse()?;
        Ok(LabelSource { column: ColumnSource { path: path.into(), ..column }, rule })
    };
    let one = |text: &String| {
        let (train, fresh) = (source(&train, text)?, source(&fresh, text)?);
        // A missing column is reported before anything is fitted.
        let column = column(&train.column)?;
        Ok(Declared { name: text.clone(), train, column, fresh })
    };
    let declared = texts.iter().map(one).collect::<Result<Vec<Declared>>>()?;
    match file.controls.shuffles {
        Some(shuffles @ 1..) if file.gates.alpha < 1.0 && shuffles < least_shuffles(file, declared.len()) => {
            Err(StudyError::option(
                "controls.shuffles",
                shuffles.to_string(),
                format!(
                    "{} or more: each of {} axes answers for all of them, and no p could be small enough",
                    least_shuffles(file, declared.len()),
                    declared.len()
                ),
            ))
        }
        _ => Ok(declared),
    }
}

/// Every `scores.*` of a file.
fn score_columns(path: &Path) -> Result<Vec<String>> {
    let names: Vec<String> = if path.extension().is_some_and(|ending| ending == "npz") {
        Npz::names_in(path)?.into_iter().filter(|name| name.starts_with("scores.")).collect()
    } else {
        let items = read_items(path, &ReadAs::default())?;
        let names: BTreeSet<&String> = items.iter().flat_map(|item| item.scores.keys()).collect();
        names.into_iter().map(|name| format!("scores.{name}")).collect()
    };
    if names.is_empty() {
        Err(StudyError::content(path, "has no scores, so [axes] has nothing to sweep"))
    } else {
        Ok(names)
    }
}

/// Fits every axis on the training items and applies it to the fresh ones.
///
/// # Errors
/// If a column cannot be used or a fit does not converge.
pub(crate) fn run(
    file: &GateFile,
    axes: &AxesConfig,
    declared: &[Declared],
    sets: (&FeatureRows, &FeatureRows),
    progress: &mut dyn Progress,
) -> Result<Swept> {
    let one = |axis: &Declared| one(file, axes, (axis, declared.len()), sets, progress);
    let found = declared.iter().map(one).collect::<Result<Vec<Found>>>()?;
    let mut pairs = Vec::new();
    for (i, (a, of_a, _)) in found.iter().enumerate() {
        for (b, of_b, _) in &found[i + 1..] {
            let both = of_a.iter().filter_map(|(row, (x, unit))| Some(((*x, of_b.get(row)?.0), unit)));
            let (both, units): (Vec<(f64, f64)>, BTreeSet<usize>) = both.unzip();
            let (x, y): (Vec<f64>, Vec<f64>) = both.into_iter().unzip();
            let (r, units) = (pearson(&x, &y), units.len());
            pairs.push(AxisPair {
                a: a.name.clone(),
                b: b.name.clone(),
                items: x.len(),
                units,
                r,
                range: fisher_range(r, units).into(),
                flagged: r.abs() >= axes.correlation,
            });
        }
    }
    let (mut axes, mut warnings) = (Vec::new(), BTreeMap::<String, Vec<String>>::new());
    for (axis, _, told) in found {
        for warning in told {
            warnings.entry(warning).or_default().push(axis.name.clone());
        }
        axes.push(axis);
    }
    Ok(Swept { axes, pairs, warnings })
}

/// The fewest shuffles with which a p can be small enough for this many axes.
fn least_shuffles(file: &GateFile, axes: usize) -> usize {
    let (axes, alpha) = (axes as f64, file.gates.alpha);
    let least = ((axes / alpha).ceil() as usize).saturating_sub(1);
    // Compared as the p will be, to its last bit.
    least + usize::from(least_p(least) > alpha / axes)
}

/// One axis out of `count`.
fn one(
    file: &GateFile,
    axes: &AxesConfig,
    (declared, count): (&Declared, usize),
    (train, fresh): (&FeatureRows, &FeatureRows),
    progress: &mut dyn Progress,
) -> Result<Found> {
    let (train, fresh) = (train.labelled_by(&declared.train, &declared.column)?, fresh.labelled(&declared.fresh)?);
    let mut axis = Axis {
        name: declared.name.clone(),
        train: train.sizes(),
        fresh: fresh.sizes(),
        cv_auc: f64::NAN,
        fresh_auc: f64::NAN,
        fresh_range: Ends::NONE,
        p: None,
        outcome: Outcome::Inconclusive,
        why: few((&train, &fresh), file.gates.min_class),
    };
    let warnings = label_warnings(&train, &fresh);
    // Too few items of a class to be dealt out over folds: nothing can be said.
    if train.smaller_class() < 2 {
        return Ok((axis, BTreeMap::new(), warnings));
    }
    let mut options = file.fit_options(&train).without_intervals();
    if options.shuffles > 0 {
        // At least as many as it takes for a p that answers for all of the axes, even if the default for this much work is lower.
        options.shuffles = options.shuffles.max(least_shuffles(file, count));
    }
    let fitted = fit(&train, &options, &format!("axis {}", declared.name), progress)?;
    let chosen = fitted.probe.meta.chosen;
    let (evaluation, p) = evaluate(&fitted.probe, &fresh, options.measure)?;
    let on_fresh = &evaluation.results[chosen].measured;
    axis.cv_auc = fitted.probe.meta.results[chosen].cv.auc;
    (axis.fresh_auc, axis.fresh_range) = (on_fresh.auc, on_fresh.auc_delong);
    let nulls = (fitted.probe.meta.null.as_ref(), null_of(&p[chosen], &fresh, &options));
    axis.p = nulls.0.zip(nulls.1.as_ref()).map(|(cv, fresh)| (cv.p, fresh.p));
    // Of many axes one passes by chance, so each answers for all (Bonferroni). If there can be no p, none can pass.
    let needed = file.gates.alpha / count as f64;
    let sure = options.shuffles == 0 || axis.p.is_some_and(|(cv, fresh)| cv.max(fresh) <= needed);
    let reached = |value, needed| Check::at_least(Kind::Share, "AUC", value, needed);
    let on_fresh = reached(axis.fresh_auc, axes.fresh_auc).known_to(axis.fresh_range, &file.gates);
    axis.outcome = match steps::all([reached(axis.cv_auc, axes.cv_auc), on_fresh].iter().map(|check| check.outcome)) {
        _ if axis.why.is_some() => Outcome::Inconclusive,
        Outcome::Passed if !sure => {
            axis.why = Some(unsure(axis.p, needed));
            Outcome::Inconclusive
        }
        outcome => outcome,
    };
    let predicted = fitted.out_of_fold[chosen].iter().copied().zip(train.units.iter().copied());
    let predictions = train.rows.iter().copied().zip(predicted).collect();
    Ok((axis, predictions, warnings))
}

/// Why two sets with too few items in a class cannot tell, if they have too few.
fn few((train, fresh): (&ProbeSet, &ProbeSet), least: usize) -> Option<String> {
    // Two of a class can be dealt out over folds, and one ranked.
    let few = |of: &str, set: &ProbeSet, least: usize| {
        let smaller = set.origin.smaller_worth();
        let units = if set.origin.units.is_some() { "prompts or groups" } else { "items" };
        (smaller < least)
            .then(|| format!("the smaller class of the {of} {units} has {smaller}, but {least} are needed"))
    };
    let all: Vec<String> =
        [few("training", train, least.max(2)), few("fresh", fresh, least.max(1))].into_iter().flatten().collect();
    (!all.is_empty()).then(|| all.join(", and "))
}

/// Why AUCs over their gates prove nothing: shuffled labels reach them too often, or cannot tell.
fn unsure(p: Option<(f64, f64)>, needed: f64) -> String {
    match p {
        Some((cv, fresh)) => format!(
            "shuffled labels reach as much: p {} in training and {} on fresh items, where {} is needed of each axis",
            short(cv),
            short(fresh),
            short(needed)
        ),
        None => "its items can be labelled in too few ways for a p".into(),
    }
}
