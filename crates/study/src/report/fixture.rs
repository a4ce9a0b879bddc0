//! Small, made-up results for the tests of the page.

use crate::{
    Role,
    attribution::{Attribution, Disposition, HeadEffect, LengthCheck, ShuffledLabels},
    outcome::{ArmOutcome, Band, Difference, Flips, Outcomes, PerOutcome, SweepTable},
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

fn difference(mean: f64, p_max: Option<f64>) -> Difference {
    let (low, high) = (mean - 0.03, mean + 0.03);
    Difference { items: 139, differing: 20, mean, low, high, p: 0.04, p_max, p_random: p_max.map(|_| 0.3) }
}

pub(super) fn arm(variant: &str, role: Role, lambda: f64) -> ArmOutcome {
    ArmOutcome {
        variant: variant.to_owned(),
        role,
        lambda,
        n: 139,
        accuracy: 0.44,
        assertion_rate: 0.93,
        assertion_asymmetry: Some(0.02),
        mean_tokens: 41.5,
        mean_logprob: -0.8,
        truncated: 0.0,
        changed: 0.0,
        withheld: None,
        difference: PerOutcome::default(),
    }
}

fn table(set: &str, arms: Vec<ArmOutcome>) -> SweepTable {
    let heads = set.split(' ').map(|name| name.parse().expect("a head")).collect();
    SweepTable { set: set.to_owned(), heads, max_new_tokens: 128, arms, bands: Vec::new() }
}

fn outcomes(tables: Vec<SweepTable>) -> Outcomes {
    let family = tables.iter().flat_map(|table| &table.arms).filter(|arm| arm.role == Role::Tempered).count();
    Outcomes {
        schema: "sweep/v1".to_owned(),
        max_new_tokens: 128,
        items: 139,
        seeds: vec![0],
        flips: Flips { at_most: 4999, seed: 0, family },
        seed_floor: None,
        tables,
        random: Vec::new(),
    }
}

/// The reference, a control, and two heads together at two λ, the second of which is a finding.
pub(super) fn sweep() -> Outcomes {
    let mut arms = vec![
        arm("base", Role::Reference, 1.0),
        arm("all@1", Role::Control, 1.0),
        arm("L7H6+L20H3@0.5", Role::Tempered, 0.5),
        arm("L7H6+L20H3@0", Role::Tempered, 0.0),
    ];
    arms[1].difference = PerOutcome::from_fn(|_| Some(difference(0.0, None)));
    arms[2].difference = PerOutcome::from_fn(|_| Some(difference(0.01, Some(0.9))));
    arms[3].difference = PerOutcome::from_fn(|_| Some(difference(-0.12, Some(0.01))));
    let mut table = table("L7H6 L20H3", arms);
    table.bands = [0.5, 0.0]
        .map(|lambda| Band { lambda, sets: 9, compared: 9, range: PerOutcome::from_fn(|_| Some((-0.05, 0.02))) })
        .to_vec();
    outcomes(vec![table])
}

/// Every head alone at one λ; the first stands out and the second is not compared.
pub(super) fn single_heads(heads_per_layer: &[usize]) -> Outcomes {
    let heads =
        heads_per_layer.iter().enumerate().flat_map(|(layer, &heads)| (0..heads).map(move |head| (layer, head)));
    let one = |(index, (layer, head)): (usize, (usize, usize))| {
        let name = format!("L{layer}H{head}");
        let mut tempered = arm(&format!("{name}@0"), Role::Tempered, 0.0);
        let p_max = if index == 0 { 0.01 } else { 0.8 };
        tempered.difference.mean_tokens = Some(difference(1.0 / (index as f64 + 1.0), Some(p_max)));
        if index == 1 {
            tempered.withheld = Some("unequal".to_owned());
            tempered.difference = PerOutcome::default();
        }
        table(&name, vec![arm("base", Role::Reference, 1.0), tempered])
    };
    outcomes(heads.enumerate().map(one).collect())
}
