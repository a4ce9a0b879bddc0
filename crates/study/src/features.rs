//! `features.npz`: what a capture leaves, one row an item.

use std::path::Path;

use headtemper_engine::Identity;
use headtemper_hook::{HeadRef, Site};
use serde::{Deserialize, Serialize};

use crate::{Array, Npz, Parts, Result};

/// What the numbers of a capture are: the `meta` of the file, a JSON text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureMeta {
    /// `features/v1`.
    pub schema: String,
    /// The model.
    #[serde(flatten)]
    pub identity: Identity,
    /// The plan under which it was read; `none`, or one an item.
    pub plan: Vec<String>,
    /// The site of `h_last`, by its TransformerLens name.
    pub site: String,
    /// The site of `h_layers`, `{layer}` standing for the layer.
    pub layer_site: String,
    /// Heads are averaged over the last `last_n` tokens of the response, or of the whole text where there is none.
    pub last_n: usize,
    /// Where the file holds a part of a capture: which, of what. All else here is the whole capture's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<ShardMeta>,
}

/// A part of a capture.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardMeta {
    /// Which part, such as `2/4`.
    pub part: String,
    /// Hash of `parts`.
    pub key: String,
    /// What the whole capture was made from.
    pub parts: Parts,
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
    /// The final norm's output at the last token, `[n, d]`.
    pub h_last: Vec<f32>,
    /// The layers of `h_layers`.
    pub layers: Vec<usize>,
    /// The residual stream after each of them at the last token, `[n, k, d]`.
    pub h_layers: Vec<f32>,
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
    /// What all this is.
    pub meta: FeatureMeta,
}

/// The mean z of one layer's heads.
#[derive(Clone, Debug, PartialEq)]
pub struct HeadVectors {
    /// Where they are seen.
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
        npz.add("meta", Array::Scalar(meta));
        npz.save(path)
    }
}
