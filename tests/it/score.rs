//! The causal map as the library computes it: its laws on every family, and its numbers against an independent computation.

#![expect(clippy::unwrap_used, reason = "in the helpers a surprise is a failure of the test too")]

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use headtemper_engine::{BaseScore, Cell, CellScore, Encoded, Engine, EngineError, ScoreEvent, ScoreRequest};
use headtemper_hook::{HeadPlan, HeadRef};
use headtemper_model::CausalLm;
use headtemper_tests::{FAMILIES, Golden, engine, farther, golden_model, read_through};

/// For sums of f64 terms in another order, in nats. Measured worst case: 1.8e-13 (2026-11-21).
const TOLERANCE: f64 = 1e-10;

/// A long response, a text without a prompt, and a response of one token.
fn items(family: &str) -> Vec<Encoded> {
    let golden = Golden::read(family);
    let ids = |seq: usize| golden.ids(&format!("seq{seq}.input_ids"));
    let last = ids(1);
    let prompt_len = last.len() - 1;
    vec![
        Encoded { ids: ids(2), prompt_len: 3 },
        Encoded { ids: ids(0), prompt_len: 0 },
        Encoded { ids: last, prompt_len },
    ]
}

/// The first and the last head of the first, a middle and the last layer.
fn heads(model: &dyn CausalLm) -> Vec<HeadRef> {
    let last = model.spec().layers.len() - 1;
    let ends = |layer| {
        let heads: Vec<HeadRef> = model.spec().heads_of(layer).collect();
        [heads[0], heads[heads.len() - 1]]
    };
    [0, last / 2, last].into_iter().flat_map(ends).collect()
}

type Scored = (BTreeMap<usize, BaseScore>, BTreeMap<Cell, CellScore>);

fn score(engine: &Engine, items: &[Encoded], request: &ScoreRequest<'_>) -> Scored {
    let (mut bases, mut cells) = (BTreeMap::new(), BTreeMap::new());
    let done = engine.score_plain(items, request, |event| {
        let twice = match event {
            ScoreEvent::Base { item, score } => bases.insert(item, score).is_some(),
            ScoreEvent::Cell { cell, score } => {
                assert!(bases.contains_key(&cell.item), "an item's base comes before its cells");
                assert_eq!(score.fired, items[cell.item].ids.len() as u64, "tempered on every token, once");
                cells.insert(cell, score).is_some()
            }
        };
        assert!(!twice, "{event:?} is reported twice");
        Ok(())
    });
    done.unwrap();
    (bases, cells)
}

fn all<'a>(heads: &'a [HeadRef], lambdas: &'a [f32], batch_tokens: usize) -> ScoreRequest<'a> {
    ScoreRequest { heads, lambdas, wanted: &|_| true, batch_tokens, memory: None, kept: 0, stop: None }
}

/// λ = 1 changes exactly nothing, λ = 0 changes something, and a cell has the same bits in any batch.
#[test]
fn lambda_one_is_the_untempered_model_and_batches_do_not_matter() {
    for family in FAMILIES {
        let (engine, items) = (engine(family), items(family));
        let heads = heads(engine.model());
        let packed = score(&engine, &items, &all(&heads, &[1.0, 0.0], 2048));
        assert_eq!(packed.1.len(), heads.len() * 2 * items.len());
        for (cell, score) in &packed.1 {
            let base = packed.0[&cell.item];
            assert_eq!(base.tokens, items[cell.item].scored().len());
            if cell.lambda == 0 {
                let same = CellScore { sum_logprob: base.sum_logprob, kl: 0.0, agree: base.tokens, ..*score };
                assert_eq!(*score, same, "{family} {cell:?}");
            } else {
                assert!(score.kl > 0.0 && score.sum_logprob != base.sum_logprob, "{family} {cell:?} does nothing");
            }
        }
        assert_eq!(score(&engine, &items, &all(&heads, &[1.0, 0.0], 1)), packed, "{family}: one at a time");
        // Half of the cells, beside other neighbours.
        let odd = |cell: Cell| (cell.item + cell.head + cell.lambda) % 2 == 1;
        let half = score(&engine, &items, &ScoreRequest { wanted: &odd, ..all(&heads, &[1.0, 0.0], 2048) });
        let expected: BTreeMap<_, _> = packed.1.into_iter().filter(|&(cell, _)| odd(cell)).collect();
        assert_eq!(half.1, expected, "{family}: what is not wanted is not computed");
    }
}

/// ln softmax of one row, by its definition.
fn log_softmax(row: &[f32]) -> Vec<f64> {
    let exps: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
    row.iter().map(|&x| f64::from(x) - exps.ln()).collect()
}

fn likeliest(row: &[f64]) -> usize {
    (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// Scores against all logits of a whole forward pass under the plan, with the sums written out.
#[test]
fn scores_are_what_the_logits_say() {
    let mut worst = 0f64;
    for family in FAMILIES {
        let (engine, items, model) = (engine(family), items(family), golden_model(family));
        let (heads, lambdas) = (heads(&*model), [0.5, -1.0]);
        let (bases, cells) = score(&engine, &items, &all(&heads, &lambdas, 2048));
        for (index, item) in items.iter().enumerate() {
            let rows = |plan: Option<&HeadPlan>| -> Vec<Vec<f64>> {
                let (_, logits) = read_through(&*model, &item.ids, plan);
                logits.to_vec2::<f32>().unwrap().iter().map(|row| log_softmax(row)).collect()
            };
            let base = rows(None);
            // The token at `t` is predicted by the row before it.
            let scored: Vec<usize> = (item.prompt_len.max(1)..item.ids.len()).collect();
            let sum = |rows: &[Vec<f64>]| -> f64 { scored.iter().map(|&t| rows[t - 1][item.ids[t] as usize]).sum() };
            worst = farther(worst, (bases[&index].sum_logprob - sum(&base)).abs());
            for (head, &at) in heads.iter().enumerate() {
                for (lambda, &value) in lambdas.iter().enumerate() {
                    let tempered = rows(Some(&HeadPlan::uniform(&[at], value).unwrap()));
                    let kl = |&t: &usize| -> f64 {
                        base[t - 1].iter().zip(&tempered[t - 1]).map(|(p, q)| p.exp() * (p - q)).sum()
                    };
                    let found = cells[&Cell { item: index, head, lambda }];
                    worst = farther(worst, (found.sum_logprob - sum(&tempered)).abs());
                    worst = farther(worst, (found.kl - scored.iter().map(kl).sum::<f64>()).abs());
                    let agree = scored.iter().filter(|&&t| likeliest(&base[t - 1]) == likeliest(&tempered[t - 1]));
                    assert_eq!(found.agree, agree.count(), "{family} {at} {value}");
                }
            }
        }
    }
    println!("scores: {worst:e} of {TOLERANCE:e}");
    assert!(worst < TOLERANCE, "off by {worst:e}");
}

#[test]
fn what_cannot_be_scored_is_refused() {
    let engine = engine("qwen3_5");
    let items = items("qwen3_5");
    let head = [engine.spec().slots()[0]];
    let refused = |items: &[Encoded], request: &ScoreRequest<'_>, part: &str| {
        let report = |event| panic!("{event:?} was computed");
        let message = engine.score_plain(items, request, report).err().unwrap().to_string();
        assert!(message.contains(part), "{message}");
    };
    refused(&items, &all(&[], &[0.0], 8), "list of heads is empty");
    refused(&items, &all(&head, &[], 8), "list of lambda is empty");
    refused(&items, &all(&head, &[0.0, -0.0], 8), "-0 twice");
    refused(&items, &all(&head, &[f32::NAN], 8), "is not a number from -1000000 to 1000000");
    refused(&items, &all(&[head[0], head[0]], &[0.0], 8), "listed twice");
    refused(&items, &all(&[HeadRef::value(99, 0)], &[0.0], 8), "does not exist");
    refused(&items, &all(&head, &[0.0], 0), "batch_tokens is 0");
    let silent = Encoded { ids: vec![1, 2, 3], prompt_len: 3 };
    refused(&[items[0].clone(), silent], &all(&head, &[0.0], 8), "the response of item 1 has no tokens");
    let stop = AtomicBool::new(true);
    refused(&items, &ScoreRequest { stop: Some(&stop), ..all(&head, &[0.0], 8) }, "interrupted");
    engine.score_plain(&[], &all(&head, &[0.0], 8), |event| panic!("{event:?} of no item")).unwrap();
}

/// After a stop in the middle, what was reported is complete, and nothing more is begun.
#[test]
fn a_stop_keeps_what_was_reported() {
    let (engine, items) = (engine("llama"), items("llama"));
    let (heads, stop) = (engine.spec().slots(), AtomicBool::new(false));
    let mut cells = 0;
    let request = ScoreRequest { stop: Some(&stop), ..all(&heads, &[0.0], 1) };
    let result = engine.score_plain(&items, &request, |event| {
        cells += usize::from(matches!(event, ScoreEvent::Cell { .. }));
        stop.store(cells == 5, Ordering::Relaxed);
        Ok(())
    });
    assert!(matches!(result, Err(EngineError::Interrupted)));
    assert_eq!(cells, 5);
}
