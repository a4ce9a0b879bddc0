//! What scoring costs compared with reading.

use headtemper_hook::HeadRef;
use headtemper_model::Config;

use crate::{Encoded, Engine};

/// What untempered passes and cells cost, in units of one token read by all layers.
#[derive(Clone, Copy, Debug)]
pub struct ScoreCost {
    layers: usize,
    /// The cost of a row of logits.
    head: f64,
    plain: bool,
}

impl Engine {
    /// What scoring costs, the plain way or the fast way. Work is counted by the parameters that a token is multiplied with.
    pub fn score_cost(&self, plain: bool) -> ScoreCost {
        let spec = self.spec();
        let tied = match self.config() {
            Config::Llama(config) => config.tied,
            Config::Qwen3(config) => config.tied,
            Config::Qwen35(config) => config.tied,
            Config::Gemma4(config) => config.tied,
        };
        let table = spec.vocab * spec.d_model;
        let body = (spec.parameters - spec.mapped_parameters).saturating_sub(table * if tied { 1 } else { 2 });
        ScoreCost { layers: spec.layers.len(), head: table as f64 / body.max(1) as f64, plain }
    }
}

impl ScoreCost {
    /// The cost of an item's untempered pass.
    pub fn base(&self, item: &Encoded) -> f64 {
        item.ids.len() as f64 + self.head * item.scored().len() as f64
    }

    /// The most that a cell costs. The head's layer counts in full, though a branch begins after its attention. Logits count
    /// twice, because the untempered model's are computed too. A start that items share counts for each of them.
    pub fn cell(&self, item: &Encoded, at: HeadRef) -> f64 {
        let layers = if self.plain { self.layers } else { self.layers.saturating_sub(at.layer) };
        let read = item.ids.len() as f64 * layers as f64 / self.layers.max(1) as f64;
        read + 2.0 * self.head * item.scored().len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_costs_the_layers_from_its_own_on() {
        let item = Encoded { ids: vec![0; 100], prompt_len: 90 };
        let of = |plain| ScoreCost { layers: 4, head: 0.5, plain };
        assert_eq!(of(false).base(&item), 105.0);
        assert_eq!([0, 1, 3].map(|layer| of(false).cell(&item, HeadRef::query(layer, 0))), [110.0, 85.0, 35.0]);
        assert_eq!(of(true).cell(&item, HeadRef::query(3, 0)), 110.0);
    }
}
