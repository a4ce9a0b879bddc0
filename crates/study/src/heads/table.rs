//! λ tables: `.npz` with `lambda` `[row, layer, head]`, one row per item or, where it has `variant` too, one per arm of a sweep.

use std::path::{Path, PathBuf};

use headtemper_hook::{HeadKind, HeadPlan, HeadRef, LayerSpec, MadeFor, ModelSpec, PlanError, Positions};

use crate::{Array, Npz, Result, StudyError, text::count};

/// The arrays that say which model a table is for.
const MODEL: &str = "model";
const WEIGHTS: &str = "weights_sha256";

/// A table of these plans: λ of every head in every row, `[row, layer, head]`; 1 where the plan or the model has none. It says which model
/// it is for, by its name and the hash of its weights.
pub(crate) fn lambda_table(plans: &[&HeadPlan], heads_per_layer: &[usize], (model, weights): (&str, &str)) -> Npz {
    let layers = heads_per_layer.len();
    let heads = heads_per_layer.iter().copied().max().unwrap_or(0);
    let mut table = vec![1f32; plans.len() * layers * heads];
    for (row, plan) in plans.iter().enumerate() {
        for (at, lambda) in plan.iter() {
            table[(row * layers + at.layer) * heads + at.head] = lambda;
        }
    }
    let mut npz = Npz::default();
    npz.add("lambda", Array::F32(vec![plans.len(), layers, heads], table));
    npz.add(MODEL, Array::Scalar(model.into()));
    npz.add(WEIGHTS, Array::Scalar(weights.into()));
    npz
}

/// A table, or one variant of it.
pub(super) struct TableSource<'a> {
    path: PathBuf,
    variant: Option<&'a str>,
}

impl<'a> TableSource<'a> {
    /// `FILE.npz` or `FILE.npz#NAME`; none if it is neither.
    pub(super) fn of(text: &'a str) -> Option<Self> {
        let table = |path: &str| Path::new(path).extension().is_some_and(|e| e.eq_ignore_ascii_case("npz"));
        if table(text) {
            return Some(Self { path: text.into(), variant: None });
        }
        // After the ending: directories may have the sign as well.
        let at = text.to_ascii_lowercase().find(".npz#")? + ".npz".len();
        Some(Self { path: text[..at].into(), variant: Some(&text[at + 1..]) })
    }

    /// λ of all rows, and their shape.
    fn lambda(&self) -> Result<(Vec<usize>, Vec<f32>)> {
        match Npz::read_array(&self.path, "lambda")? {
            Array::F32(shape, values) => Ok((shape, values)),
            Array::F64(shape, values) => Ok((shape, values.into_iter().map(|x| x as f32).collect())),
            Array::I64(shape, values) => Ok((shape, values.into_iter().map(|x| x as f32).collect())),
            Array::Text(_) | Array::Scalar(_) => {
                Err(StudyError::content(&self.path, "array 'lambda' holds no numbers"))
            }
        }
    }

    /// Refuses a table that fits no model: as [`TableSource::plans`], except for its numbers of layers and heads and what each row holds.
    pub(super) fn check(&self) -> Result<()> {
        let (shape, _) = self.lambda()?;
        self.row_of(self.rows(&shape)?).map(drop)
    }

    /// How many rows a table of this shape has.
    fn rows(&self, shape: &[usize]) -> Result<usize> {
        match *shape {
            [rows, layers, heads] if rows.min(layers).min(heads) > 0 => Ok(rows),
            _ => {
                let found = if shape.is_empty() { "a single number".into() } else { format!("{shape:?}") };
                let why = format!("array 'lambda' is {found}, but must be [row, layer, head], none of them 0");
                Err(StudyError::content(&self.path, why))
            }
        }
    }

    /// The row that is meant, if it is a single one, and the positions that each touches, where the table says so.
    fn row_of(&self, rows: usize) -> Result<(Option<usize>, Option<Vec<Positions>>)> {
        let wrong = |why: String| StudyError::content(&self.path, why);
        let (row, positions) = (self.row(rows)?, self.positions(rows)?);
        if let Some(ids) = self.ids()?
            && ids.len() != rows
        {
            return Err(wrong(format!("has {} by its array 'id', but {rows} of λ", count(ids.len(), "row"))));
        }
        if row.is_some() && positions.is_none() {
            return Err(wrong(
                "does not say which positions its variants touch (array 'positions'): sweep again".into(),
            ));
        }
        Ok((row, positions))
    }

    /// The plan of every row, or of the one that is named.
    ///
    /// # Errors
    /// If the table is not of this model's shape, names heads that the model does not have, or has variants and none is named.
    pub(super) fn plans(&self, spec: &ModelSpec) -> Result<Vec<HeadPlan>> {
        let wrong = |why: String| StudyError::content(&self.path, why);
        let (shape, values) = self.lambda()?;
        let (layers, heads) = (spec.layers.len(), spec.layers.iter().map(|layer| layer.heads.count).max().unwrap_or(0));
        // A table of another shape is for another model, whose heads mean nothing here.
        let rows = self.rows(&shape)?;
        if shape[1..] != [layers, heads] {
            let why = format!(
                "array 'lambda' is {shape:?}, but must be [row, {layers}, {heads}] for this model: its layers, and the most heads that one \
                 has; 1 where there is no head"
            );
            return Err(wrong(why));
        }
        let (row, positions) = self.row_of(rows)?;
        let plan = |(at, values): (usize, &[f32])| {
            let plan = plan_of(values, heads, spec).map_err(|e| wrong(format!("row {at}: {e}")))?;
            // Where a row touches only a part of the tokens, so does its plan.
            Ok(plan.limited(positions.as_ref().map(|positions| positions[at]))?)
        };
        let rows = values.chunks_exact(layers * heads).enumerate();
        rows.filter(|(at, _)| row.is_none_or(|row| row == *at)).map(plan).collect()
    }

    /// The model that the table is for, where it says so.
    pub(super) fn made_for(&self) -> Result<Option<MadeFor>> {
        let text = |name: &str| match Npz::find_array(&self.path, name)? {
            Some(Array::Scalar(text)) => Ok(Some(text)),
            _ => Ok::<_, StudyError>(None),
        };
        let Some(weights_sha256) = text(WEIGHTS)? else { return Ok(None) };
        Ok(Some(MadeFor { model: text(MODEL)?.unwrap_or_else(|| "a model".into()), weights_sha256 }))
    }

    /// The tokens that each row touches, where the table says so.
    fn positions(&self, rows: usize) -> Result<Option<Vec<Positions>>> {
        let wrong = |why: String| StudyError::content(&self.path, why);
        let texts = match Npz::find_array(&self.path, "positions")? {
            None => return Ok(None),
            Some(Array::Text(texts)) if texts.len() == rows => texts,
            Some(other) => {
                return Err(wrong(format!(
                    "array 'positions' is {}, but must be {rows} texts, one a row",
                    other.form()
                )));
            }
        };
        let parsed = |text: &String| text.parse().map_err(|e: PlanError| wrong(e.to_string()));
        texts.iter().map(parsed).collect::<Result<_>>().map(Some)
    }

    /// The ids of the rows' items, where the table has them and no variant is named.
    fn ids(&self) -> Result<Option<Vec<String>>> {
        match Npz::find_array(&self.path, "id")?.filter(|_| self.variant.is_none()) {
            None => Ok(None),
            Some(Array::Text(ids)) => Ok(Some(ids)),
            Some(Array::I64(_, ids)) => Ok(Some(ids.iter().map(ToString::to_string).collect())),
            Some(other) => {
                let why = format!("array 'id' is {}, but must be texts or whole numbers", other.form());
                Err(StudyError::content(&self.path, why))
            }
        }
    }

    /// Refuses items whose ids differ from those of the rows, where the table has ids.
    pub(super) fn check_rows(&self, items: impl FnOnce() -> Result<Vec<String>>) -> Result<()> {
        let wrong = |why: String| Err(StudyError::content(&self.path, why));
        let Some(ids) = self.ids()? else { return Ok(()) };
        let items = items()?;
        if ids.len() != items.len() {
            return wrong(format!(
                "has {} by its array 'id', but there are {}; a row that is for all items has no 'id'",
                count(ids.len(), "row"),
                count(items.len(), "item")
            ));
        }
        match ids.iter().zip(&items).enumerate().find(|(_, (row, item))| row != item) {
            Some((at, (row, item))) => wrong(format!(
                "row {at} is of item '{row}', but the item there is '{item}': rows stand in the order of the items"
            )),
            None => Ok(()),
        }
    }

    /// The row that is meant, if it is a single one.
    fn row(&self, rows: usize) -> Result<Option<usize>> {
        let wrong = |why: String| Err(StudyError::content(&self.path, why));
        let names = match (Npz::find_array(&self.path, "variant")?, self.variant) {
            (Some(Array::Text(names)), _) if names.len() == rows => names,
            (Some(Array::Text(names)), _) => return wrong(format!("has {} variants, but {rows} rows", names.len())),
            (None, None) => return Ok(None),
            (None, Some(name)) => return wrong(format!("has no array 'variant', so that '{name}' names no row")),
            (Some(_), _) => return wrong("array 'variant' holds no texts".into()),
        };
        if let Some((at, name)) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return wrong(format!("has the variant '{name}' twice, the second time in row {at}"));
        }
        let file = self.path.display();
        let listed = || names.iter().map(|name| format!("{file}#{name}")).collect::<Vec<_>>().join(", ");
        match self.variant {
            None if names.len() > 1 => {
                wrong(format!("holds the arms of a sweep, which are no rows of items: name one of {}", listed()))
            }
            None => Ok(Some(0)),
            Some(name) => match names.iter().position(|other| other == name) {
                Some(row) => Ok(Some(row)),
                None => wrong(format!("has no variant '{name}', but {}", listed())),
            },
        }
    }
}

/// The plan of one row. A 1 where the model has no head is only padding of the table; anything else there is an error.
fn plan_of(row: &[f32], heads: usize, spec: &ModelSpec) -> Result<HeadPlan> {
    let mut entries = Vec::new();
    for (place, &lambda) in row.iter().enumerate().filter(|(_, lambda)| **lambda != 1.0) {
        let layer = place / heads;
        let at = HeadRef {
            layer,
            head: place % heads,
            kind: spec.layers.get(layer).map_or(HeadKind::Query, LayerSpec::kind),
        };
        spec.check(at)?;
        entries.push((at, lambda));
    }
    Ok(HeadPlan::new(entries)?)
}
