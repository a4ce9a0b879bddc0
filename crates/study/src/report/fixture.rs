//! Small, made-up results for the tests of the page.

use std::collections::BTreeMap;

use headtemper_hook::{HeadKind, Positions};

use crate::{
    AttributeOptions, RandomFrom, Role,
    attribute::summary,
    attribution::{
        Across, Attribution, Disposition, HeadEffect, LengthCheck, Magnitude, Pair, PromptCheck, Reliability,
        ShuffledLabels, Stability, Verdict,
    },
    sweep::{
        compared::PerOutcome,
        outcome::{ArmOutcome, Band, BesideRandom, Difference, Flips, Outcomes, SweepTable},
    },
};

pub(super) fn head(layer: usize, head: usize) -> HeadEffect {
    let d = 0.1 * (layer as f64 - head as f64);
    let magnitude = Magnitude { mean_a: 3.0 + d, mean_b: 3.0, delta: d, cohen_d: d, p: 0.4, q: 0.9, p_max: 1.0 };
    HeadEffect {
        layer,
        kind: HeadKind::Query,
        head,
        magnitude,
        hedges_g: 0.99 * d,
        d_low: d - 0.3,
        d_high: d + 0.3,
        g_low: d - 0.29,
        g_high: d + 0.29,
        welch_t: 5.0 * d,
        welch_df: 120.0,
        welch_p: 0.4,
        r_length: 0.1,
        d_length_adjusted: 0.9 * d,
        final_token: magnitude,
        d_naive: 0.9,
        p_naive: 0.5,
        d_crossfit: 0.05,
        p_directional: 0.5,
        q_directional: 0.9,
        p_max_directional: 1.0,
        d_across: 0.04,
        p_across: 0.5,
        q_across: 0.9,
        p_max_across: 1.0,
        cos_means: 0.996,
        cos_centered: 0.02,
        direction_norm: 0.2,
        relative_norm: 0.05,
        verdict: Verdict::VarianceArtefact,
        dd: None,
    }
}

pub(crate) fn disposition(heads_per_layer: &[usize]) -> Disposition {
    let heads = heads_per_layer.iter().enumerate();
    let heads: Vec<_> = heads.flat_map(|(layer, &n)| (0..n).map(move |index| head(layer, index))).collect();
    let reliability = Reliability { rho: 0.1, null_mean: 0.0, null_q95: 0.4, p: 0.3, shuffles: 200 };
    Disposition {
        name: "overconfidence".to_owned(),
        means: "sure of what is wrong".to_owned(),
        source: "made up".to_owned(),
        a: "cw".to_owned(),
        b: "cr".to_owned(),
        a_where: "label == \"cw\"".to_owned(),
        b_where: "label == \"cr\"".to_owned(),
        n_a: 78,
        n_b: 61,
        sentence: "No evidence for any of them.".to_owned(),
        summary: summary(&heads),
        heads,
        shuffled: ShuffledLabels {
            shuffles: 200,
            seed: 7,
            mean_abs_d: 0.14,
            max_abs_d_mean: 0.61,
            max_abs_d_q95: 0.74,
            mean_d_naive: 0.92,
            max_d_naive_mean: 1.3,
            max_d_naive_q95: 1.5,
            mean_d_crossfit: 0.0,
            d_crossfit_q05: -0.3,
            d_crossfit_q95: 0.31,
            max_d_crossfit_mean: 0.5,
            max_d_crossfit_q95: 0.64,
        },
        stability: Stability { splits: 10, magnitude: reliability, directional: reliability },
        length: LengthCheck {
            mean_a: 40.0,
            mean_b: 42.0,
            cohen_d: -0.1,
            p: 0.6,
            ends_known_a: 78,
            ends_known_b: 61,
            truncated_a: 0,
            truncated_b: 1,
            only_by_length: 0,
            ranking_r: 0.2,
            ranking_p: 0.5,
        },
        prompts: PromptCheck {
            distinct_a: 78,
            distinct_b: 61,
            shared: 0,
            repeated: 0,
            clustering: 1.0,
            mean_tokens_a: 30.0,
            mean_tokens_b: 31.0,
            cohen_d: -0.1,
            p: 0.6,
        },
        groups: None,
        fields_checked: 2,
        fields: Vec::new(),
        warnings: Vec::new(),
    }
}

pub(crate) fn attribution(heads_per_layer: &[usize]) -> Attribution {
    Attribution {
        schema: "attribution/v1".to_owned(),
        model: "tiny".to_owned(),
        weights_sha256: "ab".repeat(32),
        last_n: 32,
        heads_per_layer: heads_per_layer.to_vec(),
        method: AttributeOptions { shuffles: 200, seed: 7, ..AttributeOptions::default() },
        dispositions: vec![disposition(heads_per_layer)],
        skipped: Vec::new(),
        controls: Vec::new(),
        across: Across::default(),
        warnings: Vec::new(),
    }
}

/// Several dispositions, and what they have in common.
pub(super) fn several(heads_per_layer: &[usize], n: usize) -> Attribution {
    let mut attribution = attribution(heads_per_layer);
    let name = |index: usize| format!("disposition {index}");
    let one = |index| Disposition { name: name(index), ..disposition(heads_per_layer) };
    attribution.dispositions = (0..n).map(one).collect();
    let pair = |first: usize, second: usize| Pair {
        first: name(first),
        second: name(second),
        rho_d: 0.4,
        p_rho_d: 0.4,
        rho_crossfit: -0.1,
        p_rho_crossfit: 0.6,
        shared_items: 60,
        label_correlation: 0.2,
        shared_top: 3,
        expected_top: 0.4,
    };
    let pairs = (0..n).flat_map(|first| (first + 1..n).map(move |second| pair(first, second)));
    attribution.across = Across { top: 10, pairs: pairs.collect(), ..Across::default() };
    attribution
}

fn difference(mean: f64, p_max: Option<f64>) -> Difference {
    let (low, high) = (mean - 0.03, mean + 0.03);
    let random = p_max.map(|_| BesideRandom { sets: 9, reach: 2, p: 0.3, p_max: 0.4, enough: 9 });
    Difference { items: 139, differing: 20, mean, low, high, p: 0.04, p_max, random }
}

pub(super) fn arm(variant: &str, role: Role, lambda: f64) -> ArmOutcome {
    ArmOutcome {
        variant: variant.to_owned(),
        role,
        lambda,
        n: 139,
        touched: 139,
        accuracy: 0.44,
        assertion_rate: 0.93,
        assertion_asymmetry: Some(0.02),
        mean_tokens: 41.5,
        scores: BTreeMap::new(),
        unjudged: None,
        unequally_judged: Vec::new(),
        mean_logprob: -0.8,
        truncated: 0.0,
        changed: 0.0,
        withheld: None,
        difference: PerOutcome::default(),
    }
}

fn table(set: &str, arms: Vec<ArmOutcome>) -> SweepTable {
    let heads = set.split(' ').map(|name| name.parse().expect("a head")).collect();
    SweepTable { set: set.to_owned(), heads, positions: Positions::All, max_new_tokens: 128, arms, bands: Vec::new() }
}

fn outcomes(tables: Vec<SweepTable>) -> Outcomes {
    let family = tables.iter().flat_map(|table| &table.arms).filter(|arm| arm.role == Role::Tempered).count();
    Outcomes {
        schema: "sweep/v1".to_owned(),
        max_new_tokens: 128,
        items: 139,
        prompts: 139,
        groups: None,
        temperature: 0.0,
        seeds: vec![0],
        judge: None,
        tasks: Vec::new(),
        axes: Vec::new(),
        judge_warnings: Vec::new(),
        flips: Flips { at_most: 4999, seed: 0, family },
        seed_floor: None,
        accuracy_by_seed: Vec::new(),
        tables,
        random: Vec::new(),
        at_context: 0,
        within_thought: 0,
        elsewhere: Vec::new(),
        random_from: Some(RandomFrom::Model),
    }
}

/// The reference, a control, and two heads together at two λ; the arm at the second λ is a finding.
pub(crate) fn sweep() -> Outcomes {
    let mut arms = vec![
        arm("base", Role::Reference, 1.0),
        arm("all@1", Role::Control, 1.0),
        arm("L7H6+L20H3@0.5", Role::Tempered, 0.5),
        arm("L7H6+L20H3@0", Role::Tempered, 0.0),
    ];
    arms[1].difference = PerOutcome::from_fn(&[], |_| Some(difference(0.0, None)));
    arms[2].difference = PerOutcome::from_fn(&[], |_| Some(difference(0.01, Some(0.9))));
    arms[3].difference = PerOutcome::from_fn(&[], |_| Some(difference(-0.12, Some(0.01))));
    let mut table = table("L7H6 L20H3", arms);
    table.bands = [0.5, 0.0]
        .map(|lambda| Band {
            lambda,
            sets: 9,
            compared: PerOutcome::from_fn(&[], |_| 9),
            range: PerOutcome::from_fn(&[], |_| Some((-0.05, 0.02))),
        })
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
