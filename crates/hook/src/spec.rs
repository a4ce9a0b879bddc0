//! The geometry of a model, layer by layer.

use std::{fmt, ops::Range, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::PlanError;

/// The attention heads of one layer. Models mix head sizes, so this is never one number for all layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heads {
    /// Query heads.
    pub count: usize,
    /// Key/value heads; query head `h` reads key/value head `h / (count / kv)`.
    pub kv: usize,
    /// Width of one head. Not always `d_model / count`.
    pub dim: usize,
}

/// One query head: a decoder layer, counted over all layers from 0, and a head in it. Written `L7H6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct HeadRef {
    /// Decoder layer from 0.
    pub layer: usize,
    /// Query head from 0.
    pub head: usize,
}

impl fmt::Display for HeadRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "L{}H{}", self.layer, self.head)
    }
}

impl FromStr for HeadRef {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let parse = || {
            let (layer, head) = text.trim().strip_prefix(['L', 'l'])?.split_once(['H', 'h'])?;
            Some(Self { layer: layer.parse().ok()?, head: head.parse().ok()? })
        };
        parse().ok_or_else(|| PlanError::Syntax { text: text.into(), expected: "a head such as L7H6".into() })
    }
}

/// What a model is made of, as far as hooks are concerned. A [`HeadPlan`](crate::HeadPlan) is compiled against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelSpec {
    /// The architecture's name, as in `config.json` (`model_type`).
    pub architecture: String,
    /// The heads of each layer; `None` where the mixer has no attention heads.
    pub layers: Vec<Option<Heads>>,
    /// Width of the residual stream.
    pub d_model: usize,
    /// Rows of the language-model head.
    pub vocab: usize,
    /// The longest sequence the model was made for, in tokens.
    pub context: usize,
    /// Parameters of the text decoder, a tied head counted once.
    pub parameters: usize,
}

impl ModelSpec {
    /// Every head in slot order: by layer, then by head. A *slot* is an index into this list.
    pub fn slots(&self) -> Vec<HeadRef> {
        (0..self.layers.len())
            .flat_map(|layer| (0..self.head_count(layer)).map(move |head| HeadRef { layer, head }))
            .collect()
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

    /// How many heads a layer has; 0 for a layer without attention heads and for a layer that does not exist.
    pub fn head_count(&self, layer: usize) -> usize {
        self.layers.get(layer).copied().flatten().map_or(0, |heads| heads.count)
    }

    /// Refuses a head the model does not have.
    ///
    /// # Errors
    /// Names the layers, or the heads of the layer, that exist.
    pub fn check(&self, at: HeadRef) -> Result<(), PlanError> {
        match self.layers.get(at.layer) {
            None => Err(PlanError::NoSuchLayer { at, layers: self.layers.len() }),
            Some(None) => Err(PlanError::NoHeads { at, valid: self.layers_with_heads() }),
            Some(Some(heads)) if at.head >= heads.count => Err(PlanError::NoSuchHead { at, heads: heads.count }),
            Some(Some(_)) => Ok(()),
        }
    }

    fn layers_with_heads(&self) -> Vec<usize> {
        (0..self.layers.len()).filter(|&layer| self.head_count(layer) > 0).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn hybrid() -> ModelSpec {
        let heads = |count, dim| Some(Heads { count, kv: 1, dim });
        ModelSpec {
            architecture: "test".into(),
            layers: vec![heads(2, 4), None, heads(3, 8)],
            d_model: 8,
            vocab: 10,
            context: 16,
            parameters: 0,
        }
    }

    #[test]
    fn slots_run_by_layer_and_skip_layers_without_heads() {
        let spec = hybrid();
        let names: Vec<_> = spec.slots().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["L0H0", "L0H1", "L2H0", "L2H1", "L2H2"]);
        for (slot, at) in spec.slots().into_iter().enumerate() {
            assert_eq!(spec.slot(at).unwrap(), slot);
        }
        assert_eq!(spec.layer_slots(2), 2..5);
    }

    #[test]
    fn what_the_model_lacks_is_refused_by_name() {
        let spec = hybrid();
        let message = |layer, head| spec.check(HeadRef { layer, head }).unwrap_err().to_string();
        assert_eq!(message(3, 0), "layer 3 of head L3H0 does not exist; layers are 0 to 2");
        assert_eq!(message(1, 0), "layer 1 of head L1H0 has no attention heads; layers with heads are 0, 2");
        assert_eq!(message(2, 3), "head L2H3 does not exist; layer 2 has heads 0 to 2");
    }
}
