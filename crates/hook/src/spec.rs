//! The geometry of a model, layer by layer.

use std::{fmt, ops::Range, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{PlanError, Site};

/// The heads of one layer. Models mix head sizes, so this is never one number for all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// Heads whose z the output projection reads: query heads, or the value heads of a delta net.
    pub count: usize,
    /// Key/value heads, or the key heads of a delta net; head `h` reads key head `h / (count / kv)`.
    pub kv: usize,
    /// Width of one head's z. Not always `d_model / count`.
    pub dim: usize,
}

impl Heads {
    /// Width of all heads side by side: the inputs of the output projection.
    pub fn width(&self) -> usize {
        self.count * self.dim
    }

    /// Width of all key/value heads side by side.
    pub fn kv_width(&self) -> usize {
        self.kv * self.dim
    }
}

/// How a layer mixes tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mixer {
    /// Softmax attention over all earlier tokens.
    Full,
    /// Softmax attention over the last `window` tokens, including the token itself.
    Sliding {
        /// How many tokens are seen.
        window: usize,
    },
    /// A gated delta net. It caches no keys, but a state of `key_dim x value_dim` per value head and the last
    /// `kernel - 1` inputs of its convolution.
    Delta {
        /// Width of a key head.
        key_dim: usize,
        /// Taps of the causal convolution.
        kernel: usize,
    },
}

/// One decoder layer, as far as hooks and caches are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerSpec {
    /// How it mixes tokens.
    pub mixer: Mixer,
    /// Its heads.
    pub heads: Heads,
    /// The earlier layer whose keys and values it reads; `None` if it makes its own.
    pub keys_of: Option<usize>,
}

impl LayerSpec {
    /// A layer of full attention with keys of its own.
    pub fn full(heads: Heads) -> Self {
        Self { mixer: Mixer::Full, heads, keys_of: None }
    }

    /// The kind of its heads, which decides how they are written.
    pub fn kind(&self) -> HeadKind {
        match self.mixer {
            Mixer::Full | Mixer::Sliding { .. } => HeadKind::Query,
            Mixer::Delta { .. } => HeadKind::Value,
        }
    }
}

/// The kind of a layer's heads: the query heads of attention (`L7H6`) or the value heads of a delta net (`L2V3`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeadKind {
    /// A query head.
    #[default]
    Query,
    /// A value head of a gated delta net.
    Value,
}

impl HeadKind {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands a reference")]
    fn is_query(&self) -> bool {
        *self == Self::Query
    }

    /// The letter it is written with: `H` or `V`.
    pub fn letter(self) -> char {
        match self {
            Self::Query => 'H',
            Self::Value => 'V',
        }
    }

    /// The site where a layer's heads of this kind are seen.
    fn site(self, layer: usize) -> Site {
        match self {
            Self::Query => Site::Z(layer),
            Self::Value => Site::LinearZ(layer),
        }
    }
}

/// One head: a decoder layer, counted over all layers from 0, and a head in it. Written `L7H6`, or `L2V3` for a value
/// head of a delta net.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeadRef {
    /// Decoder layer from 0.
    pub layer: usize,
    /// Head from 0.
    pub head: usize,
    /// The kind of head. A layer has heads of one kind; the other kind is refused.
    #[serde(default, skip_serializing_if = "HeadKind::is_query")]
    pub kind: HeadKind,
}

impl HeadRef {
    /// The query head `head` of an attention layer.
    pub fn query(layer: usize, head: usize) -> Self {
        Self { layer, head, kind: HeadKind::Query }
    }

    /// The value head `head` of a delta-net layer.
    pub fn value(layer: usize, head: usize) -> Self {
        Self { layer, head, kind: HeadKind::Value }
    }

    /// The site where it is seen.
    pub fn site(self) -> Site {
        self.kind.site(self.layer)
    }
}

impl fmt::Display for HeadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}{}{}", self.layer, self.kind.letter(), self.head)
    }
}

impl FromStr for HeadRef {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let parse = || {
            let rest = text.trim().strip_prefix(['L', 'l'])?;
            let at = rest.find(|c: char| !c.is_ascii_digit())?;
            let kind = match rest.as_bytes()[at].to_ascii_uppercase() {
                b'H' => HeadKind::Query,
                b'V' => HeadKind::Value,
                _ => return None,
            };
            Some(Self { layer: rest[..at].parse().ok()?, head: rest[at + 1..].parse().ok()?, kind })
        };
        parse().ok_or_else(|| PlanError::Syntax {
            text: text.into(),
            expected: "a head such as L7H6, or L2V3 for a delta net's value head".into(),
        })
    }
}

/// What a model is made of, as far as hooks are concerned. A [`HeadPlan`](crate::HeadPlan) is compiled against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// The architecture's name, as in `config.json` (`model_type`).
    pub architecture: String,
    /// Every decoder layer.
    pub layers: Vec<LayerSpec>,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Rows of the language-model head.
    pub vocab: usize,
    /// The longest sequence the model was made for, in tokens.
    pub context: usize,
    /// Parameters of the text decoder, a tied head counted once.
    pub parameters: usize,
    /// How many of these are in tables that stay memory-mapped on the host, where each token needs one row.
    pub mapped_parameters: usize,
}

impl ModelSpec {
    /// Every head in slot order: by layer, then by head. A *slot* is an index into this list.
    pub fn slots(&self) -> Vec<HeadRef> {
        (0..self.layers.len()).flat_map(|layer| self.heads_of(layer)).collect()
    }

    /// How many heads each layer has.
    pub fn heads_per_layer(&self) -> Vec<usize> {
        self.layers.iter().map(|layer| layer.heads.count).collect()
    }

    /// The heads of one layer; none if it does not exist.
    pub fn heads_of(&self, layer: usize) -> impl Iterator<Item = HeadRef> + use<> {
        let (count, kind) = self.layers.get(layer).map_or((0, HeadKind::Query), |l| (l.heads.count, l.kind()));
        (0..count).map(move |head| HeadRef { layer, head, kind })
    }

    /// The site where a layer's heads are seen.
    ///
    /// # Panics
    /// If the layer does not exist.
    pub fn head_site(&self, layer: usize) -> Site {
        self.layers[layer].kind().site(layer)
    }

    /// The name, in a text model of transformers, of a layer's output projection weight. Its input columns are the layer's
    /// heads side by side.
    ///
    /// # Panics
    /// If the layer does not exist.
    pub fn output_projection(&self, layer: usize) -> String {
        let part = match self.layers[layer].kind() {
            HeadKind::Query => "self_attn.o_proj",
            HeadKind::Value => "linear_attn.out_proj",
        };
        format!("model.layers.{layer}.{part}.weight")
    }

    /// Every site, in the order of a forward pass.
    pub fn sites(&self) -> Vec<Site> {
        let layers = (0..self.layers.len()).flat_map(|layer| [self.head_site(layer), Site::ResidPost(layer)]);
        layers.chain([Site::FinalNorm]).collect()
    }

    /// The slots of one layer.
    pub fn layer_slots(&self, layer: usize) -> Range<usize> {
        let start = (0..layer).map(|l| self.head_count(l)).sum();
        start..start + self.head_count(layer)
    }

    /// The slot of a head.
    ///
    /// # Errors
    /// If the model does not have the head.
    pub fn slot(&self, at: HeadRef) -> Result<usize, PlanError> {
        self.check(at)?;
        Ok(self.layer_slots(at.layer).start + at.head)
    }

    /// How many heads a layer has; 0 for a layer that does not exist.
    pub fn head_count(&self, layer: usize) -> usize {
        self.layers.get(layer).map_or(0, |l| l.heads.count)
    }

    /// Refuses a head the model does not have.
    ///
    /// # Errors
    /// Names the layers, or the heads of the layer, that exist.
    pub fn check(&self, at: HeadRef) -> Result<(), PlanError> {
        let Some(layer) = self.layers.get(at.layer) else {
            return Err(PlanError::NoSuchLayer { at, layers: self.layers.len() });
        };
        let (kind, heads) = (layer.kind(), layer.heads.count);
        if kind != at.kind {
            let last = HeadRef { layer: at.layer, head: heads - 1, kind };
            return Err(PlanError::OtherKind { at, last, valid: self.layers_with(at.kind) });
        }
        if at.head >= heads {
            return Err(PlanError::NoSuchHead { at, heads });
        }
        Ok(())
    }

    fn layers_with(&self, kind: HeadKind) -> Vec<usize> {
        (0..self.layers.len()).filter(|&layer| self.layers[layer].kind() == kind).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Two attention layers around a delta net.
    pub(crate) fn hybrid() -> ModelSpec {
        let full = |count, dim| LayerSpec::full(Heads { count, kv: 1, dim });
        let mixer = Mixer::Delta { key_dim: 4, kernel: 4 };
        ModelSpec {
            architecture: "test".into(),
            layers: vec![
                full(2, 4),
                LayerSpec { mixer, heads: Heads { count: 4, kv: 2, dim: 6 }, keys_of: None },
                full(3, 8),
            ],
            d_model: 8,
            vocab: 10,
            context: 16,
            parameters: 0,
            mapped_parameters: 0,
        }
    }

    #[test]
    fn slots_run_by_layer_and_heads_are_written_by_their_kind() {
        let spec = hybrid();
        let names: Vec<_> = spec.slots().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["L0H0", "L0H1", "L1V0", "L1V1", "L1V2", "L1V3", "L2H0", "L2H1", "L2H2"]);
        for (slot, at) in spec.slots().into_iter().enumerate() {
            assert_eq!(spec.slot(at).unwrap(), slot);
            assert_eq!(at.to_string().parse::<HeadRef>().unwrap(), at);
        }
        assert_eq!(spec.layer_slots(2), 6..9);
        assert_eq!((spec.head_site(0), spec.head_site(1)), (Site::Z(0), Site::LinearZ(1)));
    }

    #[test]
    fn what_the_model_lacks_is_refused_by_name() {
        let spec = hybrid();
        let message = |at: HeadRef| spec.check(at).unwrap_err().to_string();
        assert_eq!(message(HeadRef::query(3, 0)), "layer 3 of head L3H0 does not exist; layers are 0 to 2");
        assert_eq!(message(HeadRef::query(2, 3)), "head L2H3 does not exist; layer 2 has L2H0 to L2H2");
        assert_eq!(message(HeadRef::value(1, 4)), "head L1V4 does not exist; layer 1 has L1V0 to L1V3");
        assert_eq!(
            message(HeadRef::query(1, 0)),
            "head L1H0 does not exist; the heads of layer 1 are L1V0 to L1V3, and layers with H heads are 0, 2"
        );
        assert_eq!(
            message(HeadRef::value(2, 0)),
            "head L2V0 does not exist; the heads of layer 2 are L2H0 to L2H2, and layers with V heads are 1"
        );
    }

    #[test]
    fn the_kind_is_written_only_where_it_says_something() {
        let json = |at: HeadRef| serde_json::to_string(&at).unwrap();
        assert_eq!(json(HeadRef::query(7, 6)), r#"{"layer":7,"head":6}"#);
        assert_eq!(json(HeadRef::value(2, 3)), r#"{"layer":2,"head":3,"kind":"value"}"#);
        assert_eq!(serde_json::from_str::<HeadRef>(r#"{"layer":7,"head":6}"#).unwrap(), HeadRef::query(7, 6));
    }
}
