//! What a causal map is made from besides its rows: the `plan` of its `plan.json`.

use std::{collections::BTreeMap, path::Path};

use headtemper_engine::{Encoded, Engine};
use headtemper_hook::HeadRef;
use serde::{Deserialize, Serialize};

use crate::{
    Cohort, Item, ItemFacts, Keyed, Predicate, Result, StudyError,
    items::{
        Systems,
        cohort::{cohorts_of, labels},
        dispositions::LEAST,
        units::{response_of, units},
    },
    score::{ScoreRow, ScoreRun, Scores, row::ItemKey},
};

/// A whole map. Its rows are ordered by item, then head, then λ, so that a part of them needs few items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScorePlan {
    /// The name of the items' file.
    pub(crate) file: String,
    /// The condition by which they were chosen from it.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub(crate) only: Option<Predicate>,
    /// The system message that their prompts begin with, where they have one in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) system: Option<String>,
    pub(crate) ids: Vec<String>,
    pub(crate) labels: Vec<Option<String>>,
    /// The tokens of each item, prompt and response; empty in a plan of an earlier version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) tokens: Vec<usize>,
    /// What the keys of each item's rows are made from; empty in a plan of an earlier version.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) items: Vec<ItemKey>,
    /// The items of each prompt, or of each group.
    #[serde(default)]
    pub(crate) units: Vec<Vec<usize>>,
    /// The field that they are grouped by.
    #[serde(default)]
    pub(crate) groups: Option<String>,
    /// Items whose first token has no prompt before it.
    pub(crate) unprompted: usize,
    #[serde(with = "head_names")]
    pub(crate) heads: Vec<HeadRef>,
    pub(crate) lambdas: Vec<f32>,
    /// The cells, as places in heads and λ; empty where every head has every λ, as a single call asks for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) cells: Vec<[usize; 2]>,
    /// How many of the cells earlier calls scored in the same directory.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) earlier: usize,
    pub(crate) contrast: Option<[String; 2]>,
    /// What else may tell the items of the two cohorts apart; none where nothing is compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) beside: Option<Beside>,
    pub(crate) plain: bool,
    pub(crate) shuffles: usize,
    pub(crate) seed: u64,
    pub(crate) heads_per_layer: Vec<usize>,
}

/// What items have besides their scores, one entry per item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Beside {
    /// Tokens of the prompt.
    pub(crate) prompt_tokens: Vec<usize>,
    /// Whether the response was cut off; none where this is unknown.
    pub(crate) truncated: Vec<Option<bool>>,
    /// The number of the response, equal for responses that are word for word alike; empty in a plan of an earlier version.
    #[serde(default)]
    pub(crate) responses: Vec<Option<usize>>,
    /// The other fields that are a text, a number or a truth value.
    pub(crate) fields: Vec<BTreeMap<String, String>>,
}

impl Beside {
    fn of(items: &[Item], encoded: &[Encoded]) -> Self {
        let facts: Vec<ItemFacts> = items.iter().map(ItemFacts::of).collect();
        Self {
            prompt_tokens: encoded.iter().map(|encoded| encoded.prompt_len).collect(),
            truncated: facts.iter().map(|facts| facts.truncated).collect(),
            responses: response_of(facts.iter().map(Some)),
            fields: facts.into_iter().map(|facts| facts.fields).collect(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
pub(super) fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// Heads in writing: the letter says which kind they are of.
mod head_names {
    use headtemper_hook::HeadRef;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(heads: &[HeadRef], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(heads.iter().map(ToString::to_string))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<HeadRef>, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        names.iter().map(|name| name.parse().map_err(D::Error::custom)).collect()
    }
}

impl ScorePlan {
    pub(crate) fn new(engine: &Engine, items: &[Item], encoded: &[Encoded], settings: &ScoreRun<'_>) -> Self {
        let keyed =
            |(item, encoded): (&Item, &Encoded)| ItemKey::new(engine.identity(), settings.plain, &item.id, encoded);
        Self {
            file: settings.from.file(),
            only: settings.from.only.cloned(),
            system: Systems::of(items).common().map(String::from),
            ids: items.iter().map(|item| item.id.clone()).collect(),
            labels: labels(items),
            tokens: encoded.iter().map(|encoded| encoded.ids.len()).collect(),
            items: items.iter().zip(encoded).map(keyed).collect(),
            units: units(items, settings.groups),
            groups: settings.groups.map(String::from),
            unprompted: encoded.iter().filter(|encoded| encoded.prompt_len == 0).count(),
            heads: settings.heads.to_vec(),
            lambdas: settings.lambdas.to_vec(),
            cells: Vec::new(),
            earlier: 0,
            contrast: settings.contrast.map(|(a, b)| [a.into(), b.into()]),
            beside: settings.contrast.map(|_| Beside::of(items, encoded)),
            plain: settings.plain,
            shuffles: settings.shuffles,
            seed: settings.seed,
            heads_per_layer: engine.spec().heads_per_layer(),
        }
    }

    /// The cells in their order, as places in heads and λ.
    pub(crate) fn cells(&self) -> Vec<[usize; 2]> {
        if !self.cells.is_empty() {
            return self.cells.clone();
        }
        let lambdas = self.lambdas.len();
        (0..self.heads.len() * lambdas).map(|cell| [cell / lambdas, cell % lambdas]).collect()
    }

    /// Refuses a plan that cannot have this many rows.
    pub(crate) fn check(&self, rows: usize) -> std::result::Result<(), String> {
        let cells = self.cells();
        if cells.iter().any(|&[head, lambda]| head >= self.heads.len() || lambda >= self.lambdas.len()) {
            return Err("it lists cells of heads or lambdas that it does not have".into());
        }
        let planned = self.ids.len() * cells.len();
        if planned != rows || rows == 0 {
            return Err(format!("its items, heads and lambdas make {planned} rows, but it lists {rows}"));
        }
        if self.labels.len() != self.ids.len() {
            return Err(format!("it has {} items, but {} labels", self.ids.len(), self.labels.len()));
        }
        if ![0, self.ids.len()].contains(&self.tokens.len()) {
            return Err(format!("it has {} items, but the tokens of {}", self.ids.len(), self.tokens.len()));
        }
        if ![0, self.ids.len()].contains(&self.items.len()) {
            return Err(format!("it has {} items, but names the rows of {}", self.ids.len(), self.items.len()));
        }
        if self.units.is_empty() {
            return Err("it was written by an earlier version, which did not know prompts: run each shard again".into());
        }
        if let Some(Beside { prompt_tokens, truncated, responses, fields }) = &self.beside
            && ([prompt_tokens.len(), truncated.len(), fields.len()] != [self.ids.len(); 3]
                || ![0, self.ids.len()].contains(&responses.len()))
        {
            return Err(format!("what it has beside the scores is not of its {} items", self.ids.len()));
        }
        let mut listed: Vec<usize> = self.units.iter().flatten().copied().collect();
        listed.sort_unstable();
        if !listed.into_iter().eq(0..self.ids.len()) {
            return Err(format!("the items of its prompts are not its {} items", self.ids.len()));
        }
        Ok(())
    }

    /// The cohorts that are compared, if any are.
    ///
    /// # Errors
    /// If one has fewer than two members.
    pub(crate) fn cohorts(&self) -> Result<Option<[Cohort; 2]>> {
        self.contrast.as_ref().map(|[a, b]| cohorts_of(&self.labels, a, b, LEAST)).transpose()
    }

    /// Refuses rows, in the plan's order, that cannot be of this map: each is of the item, head and λ that its key is of, all rows of an
    /// item score the same tokens, and each head was tempered on every token of the item, as far as row and plan say so.
    ///
    /// # Errors
    /// If there is such a row; the error names it.
    pub(crate) fn check_rows(&self, rows: &[&ScoreRow]) -> Result<()> {
        let cells = self.cells();
        for (item, rows) in rows.chunks(cells.len()).enumerate() {
            for (row, &[head, lambda]) in rows.iter().zip(&cells) {
                let planned = (self.ids[item].as_str(), self.heads[head], self.lambdas[lambda]);
                if let Some(why) = unlike(row, planned, rows[0].tokens, self.tokens.get(item).copied()) {
                    let why = format!("{why} (key {}); without its line, it is scored again", row.key);
                    return Err(StudyError::content(Path::new(ScoreRow::FILE), why));
                }
            }
        }
        Ok(())
    }

    /// The rows, in the plan's order, as a table. Δ is taken within a row, so that both sides come from one run.
    pub(crate) fn table(&self, rows: &[&ScoreRow]) -> Scores {
        let (items, scored) = (self.ids.len(), self.cells());
        let cells = scored.len();
        let first = || rows.iter().step_by(cells);
        let by_cell = || (0..cells).flat_map(|cell| (0..items).map(move |item| rows[item * cells + cell]));
        Scores {
            heads: self.heads.clone(),
            lambdas: self.lambdas.clone(),
            ids: self.ids.clone(),
            labels: self.labels.iter().map(|label| label.clone().unwrap_or_default()).collect(),
            tokens: first().map(|row| row.tokens).collect(),
            base: first().map(|row| row.base_logprob).collect(),
            delta: by_cell().map(|row| row.sum_logprob - row.base_logprob).collect(),
            kl: by_cell().map(|row| row.kl).collect(),
            agree: by_cell().map(|row| row.agree).collect(),
            scored,
        }
    }
}

/// Why a row cannot be the one that was planned; `scored` is how many tokens of the item the others score, `read` how many it has.
fn unlike(
    row: &ScoreRow,
    (id, at, lambda): (&str, HeadRef, f32),
    scored: usize,
    read: Option<usize>,
) -> Option<String> {
    // -0 counts as 0, as it does where λ is asked for.
    let named = |id: &str, at: HeadRef, lambda: f32| format!("item '{id}' under {at}:{}", lambda + 0.0);
    let is = || named(id, at, lambda);
    if (row.id.as_str(), row.head, row.lambda) != (id, at, lambda) {
        let says = named(&row.id, row.head, row.lambda);
        return Some(format!("a line says that it scores {says}, but its key is that of {}", is()));
    }
    if row.tokens != scored {
        return Some(format!(
            "the score of {} is over {} tokens, but another of that item over {scored}",
            is(),
            row.tokens
        ));
    }
    let (fired, read) = row.fired.zip(read)?;
    (fired != read as u64)
        .then(|| format!("the score of {} says that its hook fired on {fired} tokens, but the item has {read}", is()))
}
