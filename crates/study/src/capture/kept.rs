//! The file of a capture, read back as features: the rows of chosen items, if it is certain that they are of these very texts.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use headtemper_hook::{HeadPlan, HeadRef, Site};

use super::{
    FeatureMeta, Features, HeadVectors,
    join::read_meta,
    lengths::{LENGTHS, lengths},
};
use crate::{
    Array, Item, Npz, Result, StudyError,
    items::{
        answer::cut_off,
        columns::{Columns, FINISH_REASON, TEXT_HASH, text_hash},
    },
};

/// A capture whose heads can be compared, as its file says it.
pub(crate) struct Kept {
    pub(crate) path: PathBuf,
    /// What it says of itself.
    pub(crate) meta: FeatureMeta,
    /// The row of each item.
    rows: HashMap<String, usize>,
    /// What identifies the texts of each row.
    texts: Vec<String>,
}

impl Kept {
    /// Opens a file without reading its large arrays.
    ///
    /// # Errors
    /// If it is not a capture of an untouched model with the vectors of its heads, or does not say which texts it is of.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let wrong = |why: &str| Err(StudyError::content(path, why));
        let meta = read_meta(path)?;
        if meta.piece.is_some() {
            return wrong("is a piece of a capture that is not finished; the command that began it goes on");
        }
        let untouched = HeadPlan::none().to_string();
        if let Some(plan) = meta.plan.iter().find(|plan| **plan != untouched) {
            return wrong(&format!(
                "was captured under the plan {plan}; attribution compares heads as the model has them"
            ));
        }
        let names = Npz::names_in(path)?;
        if !names.iter().any(|name| site_of(name).is_some()) {
            return wrong("holds no vectors of heads, which `temper capture --heads vector` keeps");
        }
        if !names.iter().any(|name| name == TEXT_HASH) {
            return wrong(&format!(
                "has no array '{TEXT_HASH}', by which its texts are recognised: an earlier version wrote it; capture into a new \
                 file"
            ));
        }
        let (ids, texts) = (texts_in(path, "id")?, texts_in(path, TEXT_HASH)?);
        if texts.len() != ids.len() {
            return wrong(&format!("array '{TEXT_HASH}' has {} rows, but array 'id' {}", texts.len(), ids.len()));
        }
        let rows = ids.into_iter().enumerate().map(|(row, id)| (id, row)).collect();
        Ok(Self { path: path.into(), meta, rows, texts })
    }

    /// What was captured of these items, in their order: heads, and the lengths of the texts.
    ///
    /// # Errors
    /// If an item is not there, or was captured with another prompt or response; if arrays do not fit each other, or hold values
    /// that are not finite.
    pub(crate) fn features(&self, items: &[Item]) -> Result<Features> {
        let rows = items.iter().map(|item| self.row(item)).collect::<Result<Vec<usize>>>()?;
        let path = &self.path;
        let slots = texts_in(path, "slot_name")?;
        let slots = slots.iter().map(|name| Ok(name.parse()?)).collect::<Result<Vec<HeadRef>>>()?;
        let head_vectors = self.vectors(&rows, &slots)?;
        let arrays = [Npz::read_array(path, LENGTHS[0])?, Npz::read_array(path, LENGTHS[1])?];
        let name = |place: usize| format!("item '{}'", items[place].id);
        let tokens = lengths(path, arrays, (self.len(), &rows), name)?;
        Ok(Features {
            ids: items.iter().map(|item| item.id.clone()).collect(),
            labels: items.iter().map(|item| item.label.clone().unwrap_or_default()).collect(),
            prompt_len: tokens.iter().map(|[prompt, _]| *prompt).collect(),
            total_len: tokens.iter().map(|[_, total]| *total).collect(),
            d_model: 0,
            h_last: Vec::new(),
            layers: Vec::new(),
            h_layers: Vec::new(),
            h_mean: Vec::new(),
            head_norm: self.numbers("head_norm", &[slots.len()], &rows)?,
            head_norm_final: self.numbers("head_norm_final", &[slots.len()], &rows)?,
            slots,
            head_vectors,
            vocab: 0,
            logits: Vec::new(),
            columns: Columns::default(),
            // What a capture says about its own items is not about these.
            meta: FeatureMeta { parts: None, piece: None, ..self.meta.clone() },
        })
    }

    /// Whether each of these items' responses was cut off, where the model wrote them during the capture.
    ///
    /// # Errors
    /// As [`Self::features`].
    pub(crate) fn truncated(&self, items: &[Item]) -> Result<Vec<Option<bool>>> {
        let rows = items.iter().map(|item| self.row(item)).collect::<Result<Vec<usize>>>()?;
        let reasons = match Npz::find_array(&self.path, FINISH_REASON)? {
            None => return Ok(vec![None; rows.len()]),
            Some(Array::Text(reasons)) if reasons.len() == self.len() => reasons,
            Some(other) => {
                let why = format!("array '{FINISH_REASON}' is {}, but must be {} texts", other.form(), self.len());
                return Err(StudyError::content(&self.path, why));
            }
        };
        Ok(rows.into_iter().map(|row| cut_off(&reasons[row])).collect())
    }

    fn len(&self) -> usize {
        self.texts.len()
    }

    /// The row of an item, whose texts must be those that were captured.
    fn row(&self, item: &Item) -> Result<usize> {
        let wrong = |why: String| Err(StudyError::content(&self.path, format!("item '{}' {why}", item.id)));
        let Some(&row) = self.rows.get(&item.id) else {
            let part = self.meta.shard.as_ref().map_or(String::new(), |shard| {
                format!("; it holds shard {shard}, which `temper merge` joins to the others")
            });
            return wrong(format!("is not among its {} items{part}", self.len()));
        };
        if self.texts[row] == text_hash(item, item.response.as_deref()) {
            Ok(row)
        } else {
            wrong("was captured with another prompt or response, or other tokens of it".into())
        }
    }

    /// The mean z of every layer that has heads among these.
    fn vectors(&self, rows: &[usize], slots: &[HeadRef]) -> Result<Vec<HeadVectors>> {
        let mut heads: BTreeMap<Site, usize> = BTreeMap::new();
        for at in slots {
            let count = heads.entry(at.site()).or_default();
            *count = (*count).max(at.head + 1);
        }
        let of_layer = |(site, heads): (Site, usize)| {
            let name = site.to_string();
            let (shape, values) = self.array(&name)?;
            match shape[..] {
                [_, there, dim] if there >= heads && dim > 0 => {
                    Ok(HeadVectors { site, heads: there, dim, values: self.chosen(&name, &values, rows)? })
                }
                _ => Err(self.misshapen(&name, &shape, &format!("[{}, {heads}, head_dim]", self.len()))),
            }
        };
        heads.into_iter().map(of_layer).collect()
    }

    /// An array with numbers of this shape per item, at these rows.
    fn numbers(&self, name: &str, of_item: &[usize], rows: &[usize]) -> Result<Vec<f32>> {
        let (shape, values) = self.array(name)?;
        if shape[1..] == *of_item {
            self.chosen(name, &values, rows)
        } else {
            Err(self.misshapen(name, &shape, &format!("{:?}", [&[self.len()], of_item].concat())))
        }
    }

    /// An array of floats with one row per item.
    fn array(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>)> {
        match Npz::read_array(&self.path, name)? {
            Array::F32(shape, values) if shape.first() == Some(&self.len()) => Ok((shape, values)),
            other => Err(StudyError::content(
                &self.path,
                format!("array '{name}' is {}, but must be f32 with {} rows", other.form(), self.len()),
            )),
        }
    }

    fn misshapen(&self, name: &str, shape: &[usize], allowed: &str) -> StudyError {
        StudyError::content(&self.path, format!("array '{name}' is {shape:?}, but must be {allowed}"))
    }

    /// Some rows of an array; all their values must be finite.
    fn chosen(&self, name: &str, values: &[f32], rows: &[usize]) -> Result<Vec<f32>> {
        let width = values.len() / self.len().max(1);
        let chosen: Vec<f32> = rows.iter().flat_map(|&row| &values[row * width..][..width]).copied().collect();
        match chosen.iter().find(|x| !x.is_finite()) {
            Some(x) => Err(StudyError::content(&self.path, format!("array '{name}' holds {x}, but must hold numbers"))),
            None => Ok(chosen),
        }
    }
}

/// The site whose mean an array of this name holds, if it is one of heads.
fn site_of(name: &str) -> Option<Site> {
    name.parse().ok().filter(|site: &Site| site.head_layer().is_some())
}

/// A text array of a file.
pub(super) fn texts_in(path: &Path, name: &str) -> Result<Vec<String>> {
    texts(path, name, Npz::read_array(path, name)?)
}

/// A text array of a file, if it has one of this name.
pub(super) fn find_texts(path: &Path, name: &str) -> Result<Option<Vec<String>>> {
    Npz::find_array(path, name)?.map(|array| texts(path, name, array)).transpose()
}

fn texts(path: &Path, name: &str, array: Array) -> Result<Vec<String>> {
    match array {
        Array::Text(texts) => Ok(texts),
        other => Err(StudyError::content(path, format!("array '{name}' is {}, but must be texts", other.form()))),
    }
}
