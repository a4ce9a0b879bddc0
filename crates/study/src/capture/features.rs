//! `features.npz`: what a capture leaves, one row per item.

use std::{collections::BTreeMap, path::Path};

use headtemper_engine::{CaptureRow, Identity, Sampling, StopRule};
use headtemper_hook::{HeadRef, Site};
use serde::{Deserialize, Serialize};

use crate::{Array, Npz, Parts, Result, capture::GeneratedVsForced, items::columns::Columns};

/// What the numbers of a capture mean: the `meta` of the file, a JSON text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureMeta {
    /// `features/v1`.
    pub schema: String,
    /// The model.
    #[serde(flatten)]
    pub identity: Identity,
    /// The plan under which it was read; `none`, or one plan per item.
    pub plan: Vec<String>,
    /// Whether prompts were read without the chat template.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub raw: bool,
    /// The system message that all prompts begin with, empty where they have none in common; captures of earlier versions do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// The site of `h_last`, by its TransformerLens name.
    pub site: String,
    /// The site of `h_layers`, `{layer}` standing for the layer.
    pub layer_site: String,
    /// Heads are averaged over the last `last_n` tokens of the response, or of the whole text where there is none.
    pub last_n: usize,
    /// Over which tokens `h_last`, `h_layers` and `h_mean` are averaged: `last`, `last:N` or `response`.
    #[serde(default = "last")]
    pub pool: String,
    /// `h_mean` is the mean of the residual stream after this many last layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_layers: Option<usize>,
    /// How the responses were generated, where the model wrote them during the capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<GeneratedMeta>,
    /// For such responses: what reading prompt and response again gives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated_vs_forced: Option<GeneratedVsForced>,
    /// How many tokens each planned head was applied to in the items of the file, if one plan is for all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fired: Option<BTreeMap<String, u64>>,
    /// Hash of `parts`, in files that `temper capture` wrote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// What the whole capture was made from, by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Parts>,
    /// Which part of a capture the file holds, such as `2/4`, if it is a part. Everything else here is about the whole capture.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<String>,
    /// Which piece of an unfinished file this is, if it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub piece: Option<PieceMeta>,
}

impl FeatureMeta {
    /// This meta, with what was measured on the items of another part added.
    pub(crate) fn measured_with(self, other: &Self) -> Self {
        let generated_vs_forced = match (&self.generated_vs_forced, &other.generated_vs_forced) {
            (Some(a), Some(b)) => Some(a.and(b)),
            (a, b) => a.clone().or_else(|| b.clone()),
        };
        // An earlier version did not count: then the number is unknown.
        let fired = self.fired.clone().zip(other.fired.as_ref()).map(|(mut fired, others)| {
            for (at, count) in others {
                *fired.entry(at.clone()).or_default() += count;
            }
            fired
        });
        Self { generated_vs_forced, fired, ..self }
    }
}

fn last() -> String {
    headtemper_engine::Pool::Last.to_string()
}

/// How responses were generated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GeneratedMeta {
    /// The most tokens of a response.
    pub max_new_tokens: usize,
    /// How tokens were chosen.
    pub sampling: Sampling,
    /// Whether the model's stop tokens ended a response: `model`, those and others by their ids, or `never`.
    pub stop: String,
}

impl GeneratedMeta {
    /// The name of a rule.
    pub(crate) fn stop_name(rule: &StopRule) -> String {
        match rule {
            StopRule::Model => "model".into(),
            StopRule::Also(others) => {
                let others: Vec<String> = others.ids().map(|id| id.to_string()).collect();
                format!("model and {}", others.join(", "))
            }
            StopRule::Never => "never".into(),
        }
    }
}

/// A piece of an unfinished file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PieceMeta {
    /// Its first item, by its place in the item file.
    pub from: usize,
    /// The place after its last item.
    pub to: usize,
    /// How many tokens each planned head was applied to, where all items share one plan.
    pub fired: BTreeMap<String, u64>,
    /// The same for all of them together.
    pub fired_tokens: u64,
}

/// A captured data set.
#[derive(Clone, Debug, PartialEq)]
pub struct Features {
    /// The items.
    pub ids: Vec<String>,
    /// Their labels, empty where there is none.
    pub labels: Vec<String>,
    /// Where each response begins.
    pub prompt_len: Vec<usize>,
    /// How long each text is.
    pub total_len: Vec<usize>,
    /// Width of the residual stream.
    pub d_model: usize,
    /// The final norm's output at the last token, or averaged over the tokens that `meta.pool` names, `[n, d]`.
    pub h_last: Vec<f32>,
    /// The layers of `h_layers`.
    pub layers: Vec<usize>,
    /// The residual stream after each of them at the same tokens, `[n, k, d]`.
    pub h_layers: Vec<f32>,
    /// The mean residual stream of the last layers at the same tokens, `[n, d]`; empty if it was not asked for.
    pub h_mean: Vec<f32>,
    /// The heads, in slot order; empty if none were captured.
    pub slots: Vec<HeadRef>,
    /// Mean norm of z, `[n, slot]`.
    pub head_norm: Vec<f32>,
    /// Norm of z at the last token alone, `[n, slot]`.
    pub head_norm_final: Vec<f32>,
    /// By layer: heads, head_dim and the mean z, `[n, head, head_dim]`.
    pub head_vectors: Vec<HeadVectors>,
    /// Vocabulary, if logits were captured.
    pub vocab: usize,
    /// Logits of the last token, `[n, vocab]`.
    pub logits: Vec<f32>,
    /// What else the items bring.
    pub columns: Columns,
    /// What all this is.
    pub meta: FeatureMeta,
}

/// The mean z of one layer's heads.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadVectors {
    /// The site at which they are seen.
    pub site: Site,
    /// Its heads.
    pub heads: usize,
    /// Their width.
    pub dim: usize,
    /// `[n, heads, dim]`.
    pub values: Vec<f32>,
}

impl Features {
    /// How many tokens of an item its heads may be averaged over: the response's, or all where there is none.
    pub(crate) fn span_len(&self, row: usize) -> usize {
        match self.total_len[row] - self.prompt_len[row] {
            0 => self.total_len[row],
            response => response,
        }
    }

    /// Puts what was kept of one item into its row; all arrays have their full length already.
    pub(crate) fn put(&mut self, item: usize, row: &CaptureRow) {
        fn put(values: &mut [f32], item: usize, row: &[f32]) {
            values[item * row.len()..][..row.len()].copy_from_slice(row);
        }
        put(&mut self.h_last, item, &row.h_last);
        let k = self.layers.len();
        row.h_layers.iter().enumerate().for_each(|(i, h)| put(&mut self.h_layers, item * k + i, h));
        put(&mut self.h_mean, item, &row.h_mean);
        put(&mut self.head_norm, item, &row.head_norm);
        put(&mut self.head_norm_final, item, &row.head_norm_final);
        put(&mut self.logits, item, &row.logits);
        for (layer, values) in self.head_vectors.iter_mut().zip(&row.head_vectors) {
            put(&mut layer.values, item, values);
        }
    }

    /// Writes the file; it appears whole.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(self, path: &Path) -> Result<()> {
        let n = self.ids.len();
        let meta = serde_json::to_string(&self.meta).expect("plain data has a JSON form");
        let mut npz = Npz::default();
        npz.add("h_last", Array::F32(vec![n, self.d_model], self.h_last));
        npz.add("layers", Array::counts(self.layers.iter().copied()));
        if !self.layers.is_empty() {
            npz.add("h_layers", Array::F32(vec![n, self.layers.len(), self.d_model], self.h_layers));
        }
        if !self.h_mean.is_empty() {
            npz.add("h_mean", Array::F32(vec![n, self.d_model], self.h_mean));
        }
        if !self.slots.is_empty() {
            npz.add("head_norm", Array::F32(vec![n, self.slots.len()], self.head_norm));
            npz.add("head_norm_final", Array::F32(vec![n, self.slots.len()], self.head_norm_final));
            npz.add("slot_layer", Array::counts(self.slots.iter().map(|at| at.layer)));
            npz.add("slot_head", Array::counts(self.slots.iter().map(|at| at.head)));
            npz.add("slot_name", Array::Text(self.slots.iter().map(ToString::to_string).collect()));
        }
        for layer in self.head_vectors {
            npz.add(layer.site.to_string(), Array::F32(vec![n, layer.heads, layer.dim], layer.values));
        }
        if self.vocab > 0 {
            npz.add("logits", Array::F32(vec![n, self.vocab], self.logits));
        }
        npz.add("id", Array::Text(self.ids));
        npz.add("label", Array::Text(self.labels));
        npz.add("token_index", Array::counts(self.total_len.iter().map(|len| len - 1)));
        npz.add("prompt_len", Array::counts(self.prompt_len));
        npz.add("total_len", Array::counts(self.total_len));
        self.columns.add_to(&mut npz);
        npz.add("meta", Array::Scalar(meta));
        npz.save(path)
    }
}
