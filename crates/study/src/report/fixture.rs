//! Small, made-up results for the tests of the page.

use crate::{
    attribution::{Attribution, Disposition, HeadEffect, LengthCheck, ShuffledLabels},
    outcome::{ArmOutcome, SweepTable},
};

pub(super) fn head(layer: usize, head: usize) -> HeadEffect {
    let d = 0.1 * (layer as f64 - head as f64);
    HeadEffect {
        layer,
        kind: "attention".to_owned(),
        head,
        mean_a: 3.0 + d,
        mean_b: 3.0,
        delta: d,
        cohen_d: d,
        p: 0.4,
        q: 0.9,
        p_max: 1.0,
        d_naive: 0.9,
        p_directional: 0.5,
        cos_means: 0.996,
        direction_norm: 0.2,
        relative_norm: 0.05,
    }
}

pub(super) fn disposition(heads_per_layer: &[usize]) -> Disposition {
    let heads = heads_per_layer.iter().enumerate();
    Disposition {
        name: "overconfidence".to_owned(),
        a: "cw".to_owned(),
        b: "cr".to_owned(),
        n_a: 78,
        n_b: 61,
        heads: heads.flat_map(|(layer, &n)| (0..n).map(move |index| head(layer, index))).collect(),
        shuffled: ShuffledLabels {
            shuffles: 200,
            seed: 7,
            mean_abs_d: 0.14,
            max_abs_d_mean: 0.61,
            max_abs_d_q95: 0.74,
            mean_d_naive: 0.92,
            max_d_naive_mean: 1.3,
            max_d_naive_q95: 1.5,
        },
        length: LengthCheck { mean_a: 40.0, mean_b: 42.0, cohen_d: -0.1, truncated_a: 0, truncated_b: 1 },
        warnings: Vec::new(),
    }
}

pub(super) fn attribution(heads_per_layer: &[usize]) -> Attribution {
    Attribution {
        schema: "attribution/v1".to_owned(),
        model: "tiny".to_owned(),
        last_n: 32,
        heads_per_layer: heads_per_layer.to_vec(),
        dispositions: vec![disposition(heads_per_layer)],
    }
}

pub(super) fn arm(variant: &str, lambda: f64, control: bool) -> ArmOutcome {
    ArmOutcome {
        variant: variant.to_owned(),
        lambda,
        control,
        n: 139,
        accuracy: 0.44,
        assertion_rate: 0.93,
        assertion_asymmetry: Some(0.02),
        mean_tokens: 41.5,
        truncated: 0.0,
        changed: 0.0,
    }
}

pub(super) fn sweep() -> SweepTable {
    let arms = vec![arm("lambda=1", 1.0, false), arm("lambda=1 again", 1.0, true), arm("lambda=0", 0.0, false)];
    SweepTable { set: "L7H6 L20H3".to_owned(), max_new_tokens: 128, arms }
}
