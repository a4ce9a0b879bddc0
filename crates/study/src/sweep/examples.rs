//! The examples of a report: a few items with what the model answered in each arm.

use crate::{Arm, Item, Role, Row, report::Example};

/// Items shown in a report.
const EXAMPLES: usize = 5;
/// Arms shown per item.
const ARMS: usize = 8;

/// The first items whose answer some arm changed, then others. Rows are `[arm][seed * items + item]`; only the first seed is shown, and no
/// random sets.
pub(crate) fn examples(items: &[Item], arms: &[Arm], rows: &[Vec<Row>]) -> Vec<Example> {
    let shown = || arms.iter().zip(rows).filter(|(arm, _)| arm.role != Role::Random).take(ARMS);
    let Some((_, reference)) = shown().next() else { return Vec::new() };
    let changes = |i: usize| shown().filter(|(_, rows)| rows[i].response != reference[i].response).count();
    let mut order: Vec<usize> = (0..items.len().min(reference.len())).collect();
    order.sort_by_key(|&i| (changes(i) == 0, i));
    let sets: std::collections::BTreeSet<&str> =
        arms.iter().filter(|arm| arm.role == Role::Tempered).map(|arm| arm.set.as_str()).collect();
    let label = |arm: &Arm| match arm.role {
        Role::Reference => "untouched".to_string(),
        Role::Control => format!("λ = {} (control)", arm.lambda),
        _ if sets.len() > 1 => format!("λ = {}, {}", arm.lambda, arm.set.replace('+', " ")),
        _ => format!("λ = {}", arm.lambda),
    };
    let example = |&i: &usize| Example {
        id: items[i].id.clone(),
        prompt: items[i].prompt_text(),
        responses: shown().map(|(arm, rows)| (label(arm), rows[i].response.clone())).collect(),
    };
    order.iter().take(EXAMPLES).map(example).collect()
}
