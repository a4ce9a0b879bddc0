//! Parity with transformers on tiny seeded models: every logit, hidden state and z, tempered or not.

use headtemper_engine::verify::tolerance;
use headtemper_hook::HeadPlan;
use headtemper_tests::{FAMILIES, Golden, golden_model, read_through, worst};

/// The quantities compared for every model; for a delta net, also its z.
const QUANTITIES: [&str; 8] = [
    "golden geometry",
    "golden logits",
    "golden residual stream",
    "golden z",
    "golden final norm",
    "golden tempered logits",
    "golden tempered h_last",
    "golden greedy tokens",
];

/// Compares everything that is stored, and prints the share of the tolerance that each quantity used.
fn parity(name: &str) {
    let (golden, model) = (Golden::read(name), golden_model(name));
    let checks = golden.checks(&*model).unwrap();
    for check in &checks {
        let (measured, allowed) = (check.measured.unwrap(), check.allowed);
        let share = if measured == 0.0 { 0.0 } else { 100.0 * measured / allowed };
        println!("{name} {}: {measured:.1e}, {share:.0} % of the tolerance; {}", check.name, check.note);
        assert_eq!(check.passed, Some(true), "{name}: {check:?}");
    }
    let compared: Vec<&str> = checks.iter().map(|check| &*check.name).filter(|n| *n != "golden delta-net z").collect();
    assert_eq!(compared, QUANTITIES, "{name}");
    // Every site of every sequence, and every set: nothing was skipped.
    let sequences = golden.meta["sequences"].as_array().unwrap().len();
    let counted = |name: &str| -> usize {
        let check = checks.iter().find(|check| check.name == name);
        check.map_or(0, |check| check.note.split_whitespace().next().unwrap().parse().unwrap())
    };
    let (layers, sets) = (model.spec().layers.len(), golden.sets().len());
    assert!(sets >= 2, "{name}");
    assert_eq!(counted("golden z") + counted("golden delta-net z"), layers * sequences, "{name}");
    assert_eq!(counted("golden residual stream"), layers * sequences, "{name}");
    assert_eq!(counted("golden tempered logits"), sets * sequences, "{name}");
    assert_eq!(counted("golden greedy tokens"), (1 + sets) * sequences, "{name}");
}

/// Every head's ablation effect on the golden sequence matches, and so does the mapping of heads: a shifted one is off.
#[test]
fn every_single_head_ablation_is_transformers() {
    FAMILIES.into_iter().for_each(ablations);
}

fn ablations(name: &str) {
    let (golden, model) = (Golden::read(name), golden_model(name));
    let tolerance = tolerance(model.spec()) as f32;
    let (seq, target) = (golden.meta["attr"]["seq"].as_u64().unwrap(), golden.meta["attr"]["target"].as_u64().unwrap());
    let ids = golden.ids(&format!("seq{seq}.input_ids"));
    let logit = |plan: Option<&HeadPlan>| -> f32 {
        let (_, logits) = read_through(&*model, &ids, plan);
        logits.get(ids.len() - 1).unwrap().get(target as usize).unwrap().to_scalar().unwrap()
    };
    let base = logit(None);
    let theirs = golden.get("attr.ablate_dlogit").to_vec2::<f32>().unwrap();
    let mut told = 0;
    for at in model.spec().slots() {
        let effect = logit(Some(&HeadPlan::uniform(&[at], 0.0).unwrap())) - base;
        let expected = theirs[at.layer][at.head];
        assert!((effect - expected).abs() <= tolerance, "{name} {at}: {effect} is not {expected}");
        told += usize::from(expected.abs() > 10.0 * tolerance);
    }
    let heads = model.spec().slots().len();
    assert!(told * 10 >= heads * 9, "{name}: only {told} of {heads} heads have an effect to tell them by");
}

#[test]
fn llama() {
    parity("llama");
}

#[test]
fn qwen3() {
    parity("qwen3");
    parity("qwen3_tied");
}

#[test]
fn qwen3_5() {
    parity("qwen3_5");
    parity("qwen3_5_even");
}

#[test]
fn gemma4() {
    parity("gemma4");
    parity("gemma4_keqv");
    parity("gemma4_wide");
}

/// Multimodal checkpoints hold the same numbers under other names, in bf16, beside tensors that text does not use.
#[test]
fn wrapped_checkpoints_are_the_text_models() {
    for (wrapper, text) in [("qwen3_5_wrapper", "qwen3_5"), ("gemma4_wrapper", "gemma4")] {
        let (wrapper, model) = (golden_model(wrapper), golden_model(text));
        assert_eq!(wrapper.spec(), model.spec());
        let ids = Golden::read(text).ids("seq2.input_ids");
        let ((_, theirs), (_, ours)) = (read_through(&*wrapper, &ids, None), read_through(&*model, &ids, None));
        assert_eq!(worst(&theirs, &ours), 0.0, "{text}");
    }
}
