//! All that a directory holds of a map: the cells of one call, and those that earlier calls left complete there.
//!
//! Whoever tries one head per call has looked at all of them: p max must be over all that was tried, not only the last.

use std::collections::{BTreeMap, BTreeSet};

use headtemper_hook::HeadRef;

use crate::{
    Plan, RowLog,
    score::{ScoreRow, plan::ScorePlan, row::ItemKey},
    text::count,
};

/// A plan with every complete cell of the directory in it.
pub(crate) struct Whole {
    /// Heads and λ of the call come first, in its order; then those that only earlier calls had: heads by layer and number, λ from
    /// small to large. Cells are listed by head, then by λ.
    pub(crate) plan: Plan<ScorePlan>,
    /// Cells of other calls that lack items, with how many they have, such as `L0H1:0.5 with 3 of 8 items`.
    pub(crate) unfinished: Vec<String>,
    /// Rows of other cells whose keys are not of these items under this model: somebody put them there.
    pub(crate) foreign: usize,
}

/// A cell of another call, with the key of each item's row.
struct Other<'a> {
    at: HeadRef,
    lambda: f32,
    keys: BTreeMap<&'a str, &'a str>,
}

impl Whole {
    /// The plan of a call, and what else the rows of its directory hold.
    pub(crate) fn of(call: &Plan<ScorePlan>, log: &RowLog<ScoreRow>) -> Self {
        let ids = &call.plan.ids;
        let complete = |other: &Other<'_>| ids.iter().all(|id| other.keys.contains_key(id.as_str()));
        let (cells, foreign) = others(&call.plan, log);
        let (earlier, others): (Vec<_>, Vec<_>) = cells.into_iter().partition(complete);
        let said = |other: &Other<'_>| {
            format!("{}:{} with {} of {}", other.at, other.lambda, other.keys.len(), count(ids.len(), "item"))
        };
        let unfinished = others.iter().map(said).collect();
        let plan = if earlier.is_empty() { call.clone() } else { joined(call, &earlier) };
        Self { plan, unfinished, foreign }
    }
}

/// The cells of a log that a plan does not have, by head and then by λ; and how many rows are of none, since they have other keys: those
/// of another model, text or version.
fn others<'a>(plan: &ScorePlan, log: &'a RowLog<ScoreRow>) -> (Vec<Other<'a>>, usize) {
    let heads: BTreeSet<HeadRef> = plan.heads.iter().copied().collect();
    let planned = |at: HeadRef, lambda: f32| heads.contains(&at) && plan.lambdas.contains(&lambda);
    let items: BTreeMap<&str, &ItemKey> = plan.ids.iter().map(String::as_str).zip(&plan.items).collect();
    let own = |row: &ScoreRow| items.get(row.id.as_str()).is_none_or(|item| item.cell(row.head, row.lambda) == row.key);
    // -0 counts as 0, as it does where λ is asked for.
    let of_others = log.rows().values().map(|row| (row.head, row.lambda + 0.0, row));
    let of_others = of_others.filter(|&(at, lambda, _)| !planned(at, lambda));
    let (mut rows, foreign): (Vec<(HeadRef, f32, &ScoreRow)>, Vec<_>) = of_others.partition(|(.., row)| own(row));
    rows.sort_by(|x, y| x.0.cmp(&y.0).then(x.1.total_cmp(&y.1)));
    let cells = rows.chunk_by(|x, y| (x.0, x.1) == (y.0, y.1));
    let cell = |rows: &[(HeadRef, f32, &'a ScoreRow)]| {
        let keys = rows.iter().map(|(.., row)| (row.id.as_str(), row.key.as_str())).collect();
        Other { at: rows[0].0, lambda: rows[0].1, keys }
    };
    (cells.map(cell).collect(), foreign.len())
}

/// A plan of the call's cells and of these.
fn joined(call: &Plan<ScorePlan>, earlier: &[Other<'_>]) -> Plan<ScorePlan> {
    let (mut heads, mut lambdas) = (call.plan.heads.clone(), call.plan.lambdas.clone());
    let mut more: Vec<f32> = earlier.iter().map(|other| other.lambda).collect();
    more.sort_by(f32::total_cmp);
    for lambda in more {
        if !lambdas.contains(&lambda) {
            lambdas.push(lambda);
        }
    }
    for other in earlier {
        if !heads.contains(&other.at) {
            heads.push(other.at);
        }
    }
    let (rows, columns) = (call.plan.heads.len(), call.plan.lambdas.len());
    let asked = rows * columns;
    let earlier_at = |at: HeadRef, lambda: f32| earlier.iter().find(|other| other.at == at && other.lambda == lambda);
    // Where each cell of the whole has its keys: in the call's plan, or among the earlier ones.
    let mut cells: Vec<([usize; 2], Result<usize, &Other<'_>>)> = Vec::new();
    for (h, &at) in heads.iter().enumerate() {
        for (l, &lambda) in lambdas.iter().enumerate() {
            if h < rows && l < columns {
                cells.push(([h, l], Ok(h * columns + l)));
            } else if let Some(other) = earlier_at(at, lambda) {
                cells.push(([h, l], Err(other)));
            }
        }
    }
    let key = |item: usize, cell: &Result<usize, &Other<'_>>| match cell {
        Ok(place) => call.keys[item * asked + place].clone(),
        Err(other) => other.keys[call.plan.ids[item].as_str()].to_owned(),
    };
    let keys = (0..call.plan.ids.len()).flat_map(|item| cells.iter().map(move |(_, cell)| (item, cell)));
    let keys = keys.map(|(item, cell)| key(item, cell)).collect();
    let all = cells.len() == heads.len() * lambdas.len();
    let listed = if all { Vec::new() } else { cells.iter().map(|(at, _)| *at).collect() };
    let plan = ScorePlan { heads, lambdas, cells: listed, earlier: earlier.len(), ..call.plan.clone() };
    Plan::new(keys, plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(heads: &[HeadRef], lambdas: &[f32]) -> Plan<ScorePlan> {
        let ids = vec!["x".to_string(), "y".to_string()];
        let cells = || heads.iter().flat_map(|at| lambdas.iter().map(move |lambda| format!("{at}:{lambda}")));
        let keys = ids.iter().flat_map(|id| cells().map(move |cell| format!("{cell} {id}"))).collect();
        let plan = ScorePlan {
            file: "c.jsonl".into(),
            only: None,
            system: None,
            labels: vec![None; ids.len()],
            tokens: vec![1; ids.len()],
            items: Vec::new(),
            units: vec![vec![0], vec![1]],
            groups: None,
            ids,
            unprompted: 0,
            heads: heads.to_vec(),
            lambdas: lambdas.to_vec(),
            cells: Vec::new(),
            earlier: 0,
            contrast: None,
            beside: None,
            plain: false,
            shuffles: 9,
            seed: 0,
            heads_per_layer: vec![2, 2],
        };
        Plan::new(keys, plan)
    }

    fn log(dir: &tempfile::TempDir, cells: &[(&str, f32, &[&str])]) -> RowLog<ScoreRow> {
        let mut log = RowLog::open(&dir.path().join("scores.jsonl")).unwrap();
        for (head, lambda, ids) in cells {
            for id in *ids {
                let (key, head, id, lambda) =
                    (format!("{head}:{lambda} {id}"), head.parse().unwrap(), (*id).into(), *lambda);
                let row = ScoreRow {
                    key,
                    id,
                    head,
                    lambda,
                    tokens: 1,
                    base_logprob: 0.0,
                    sum_logprob: 0.0,
                    kl: 0.0,
                    agree: 1,
                    fired: None,
                };
                log.append(row).unwrap();
            }
        }
        log
    }

    #[test]
    fn complete_cells_of_earlier_calls_follow_those_of_the_call() {
        let temp = tempfile::tempdir().unwrap();
        let [a, b, c] = [HeadRef::query(0, 0), HeadRef::query(0, 1), HeadRef::query(1, 0)];
        let both: &[&str] = &["x", "y"];
        let cells = [
            ("L1H0", 0.0, both),
            ("L0H1", 0.5, both),
            ("L0H0", 0.0, both),
            ("L0H0", 0.5, &["y"]),
            ("L1H0", -0.0, both),
        ];
        let log = log(&temp, &cells);
        let Whole { plan: whole, unfinished, foreign } = Whole::of(&plan(&[c], &[0.0]), &log);
        assert_eq!((&whole.plan.heads, &whole.plan.lambdas), (&vec![c, a, b], &vec![0.0, 0.5]));
        assert_eq!(foreign, 0);
        assert_eq!((whole.plan.cells(), whole.plan.earlier), (vec![[0, 0], [1, 0], [2, 1]], 2));
        let of = |id: &str| ["L1H0:0", "L0H0:0", "L0H1:0.5"].map(|cell| format!("{cell} {id}"));
        assert_eq!(whole.keys, [of("x"), of("y")].concat());
        assert!(whole.plan.check(whole.keys.len()).is_ok());
        assert_eq!(unfinished, ["L0H0:0.5 with 1 of 2 items"]);
        // Where every head has every λ, it is the plan of one call that asked for all.
        let Whole { plan: whole, .. } = Whole::of(&plan(&[c, b], &[0.0]), &log);
        assert_eq!((whole.plan.cells.len(), whole.plan.earlier), (4, 2), "one head lacks one λ");
        let Whole { plan: whole, .. } = Whole::of(&plan(&[b, c], &[0.0, 0.5]), &log);
        let one = plan(&[b, c, a], &[0.0, 0.5]).plan;
        assert_eq!((whole.plan.heads, whole.plan.cells), (one.heads, vec![[0, 0], [0, 1], [1, 0], [1, 1], [2, 0]]));
    }

    #[test]
    fn rows_of_another_model_are_no_cells_of_the_map() {
        let temp = tempfile::tempdir().unwrap();
        let (a, b) = (HeadRef::query(0, 0), HeadRef::query(0, 1));
        let item = |model: &str| ItemKey::of(model);
        let mut call = plan(&[a], &[0.0]);
        call.plan.items = vec![item("this"), item("this")];
        let mut log = log(&temp, &[]);
        for (id, model) in [("x", "this"), ("y", "other")] {
            let row = ScoreRow {
                key: item(model).cell(b, 0.0),
                id: id.into(),
                head: b,
                lambda: 0.0,
                tokens: 1,
                base_logprob: 0.0,
                sum_logprob: -1.0,
                kl: 0.0,
                agree: 1,
                fired: None,
            };
            log.append(row).unwrap();
        }
        let Whole { plan: whole, unfinished, foreign } = Whole::of(&call, &log);
        assert_eq!((whole.plan.heads, &unfinished[..]), (vec![a], &["L0H1:0 with 1 of 2 items".to_string()][..]));
        assert_eq!(foreign, 1);
        // A plan of an earlier version cannot tell.
        call.plan.items.clear();
        assert_eq!(Whole::of(&call, &log).plan.plan.heads, [a, b]);
    }

    #[test]
    fn a_call_that_is_all_there_is_stays_as_it_is() {
        let temp = tempfile::tempdir().unwrap();
        let call = plan(&[HeadRef::query(0, 0)], &[0.0, 0.5]);
        let log = log(&temp, &[("L0H0", 0.5, &["x", "y"]), ("L0H0", 0.0, &["x"])]);
        let Whole { plan: whole, unfinished, .. } = Whole::of(&call, &log);
        assert_eq!((&whole, unfinished), (&call, vec![]));
        let text = serde_json::to_string(&whole).unwrap();
        assert!(
            ["cells", "earlier", "beside"].iter().all(|name| !text.contains(name)),
            "the file of a first call is as it was"
        );
    }
}
