//! Scores branched off one untempered pass equal those of a forward pass for every cell.

use std::collections::BTreeMap;

use headtemper_engine::{BaseScore, Cell, CellScore, Encoded, Engine, ScoreEvent, ScoreRequest};
use headtemper_hook::HeadRef;
use headtemper_tests::{engine, farther};

/// Largest difference of a sum of log-probabilities or KL between the two ways, per scored token, in nats. Measured worst
/// case over the models below: 6.4e-5 (Gemma 4, 2026-11-21).
const TOLERANCE: f64 = 1e-4;

/// Directories with every kind of layer: shared keys, windows, delta nets, post-norms, soft caps.
const MODELS: [&str; 7] = ["llama", "qwen3", "qwen3_tied", "qwen3_5", "gemma4", "gemma4_keqv", "gemma4_wide"];

/// Texts of different lengths that begin with the same `shared` tokens.
fn texts(engine: &Engine, shared: usize) -> Vec<Encoded> {
    let vocab = engine.spec().vocab as u32;
    let text = |(i, (prompt, response)): (u32, (usize, usize))| {
        let id = |t: usize| if t < shared { t as u32 * 31 + 5 } else { (t as u32 * 7 + 1) * (i * 13 + 3) };
        Encoded { ids: (0..prompt + response).map(|t| id(t) % vocab).collect(), prompt_len: prompt }
    };
    (0..).zip([(12, 9), (20, 1), (11, 30), (16, 5), (30, 12)]).map(text).collect()
}

/// The reported scores of items and cells.
type Scored = (BTreeMap<usize, BaseScore>, BTreeMap<Cell, CellScore>);

fn scored(engine: &Engine, items: &[Encoded], request: &ScoreRequest<'_>, plain: bool) -> Scored {
    let (mut bases, mut cells) = (BTreeMap::new(), BTreeMap::new());
    let on = |event| {
        match event {
            ScoreEvent::Base { item, score } => assert!(bases.insert(item, score).is_none(), "item {item} twice"),
            ScoreEvent::Cell { cell, score } => {
                assert!(bases.contains_key(&cell.item), "{cell:?} before its base");
                assert_eq!(score.fired, items[cell.item].ids.len() as u64, "tempered on every token, once");
                assert!(cells.insert(cell, score).is_none(), "{cell:?} twice");
            }
        }
        Ok(())
    };
    let done = if plain { engine.score_plain(items, request, on) } else { engine.score(items, request, on) };
    done.unwrap();
    (bases, cells)
}

/// The law of the fast path, on every kind of layer, with and without a prefix that the items share, in small and large
/// batches. λ = 1 is the untempered model, bit for bit.
#[test]
fn branched_scores_are_those_of_a_pass_for_every_cell() {
    let lambdas = [0.0, 1.0, 0.5, -1.5];
    let mut worst = (0.0f64, String::new());
    for name in MODELS {
        let engine = engine(name);
        let heads = engine.spec().slots();
        for (shared, batch_tokens) in [(0, 60), (10, 200), (11, 10_000)] {
            let items = texts(&engine, shared);
            let request = ScoreRequest {
                heads: &heads,
                lambdas: &lambdas,
                wanted: &|_| true,
                batch_tokens,
                memory: None,
                kept: 0,
                stop: None,
            };
            let (plain_bases, plain) = scored(&engine, &items, &request, true);
            let (bases, cells) = scored(&engine, &items, &request, false);
            assert_eq!(cells.len(), heads.len() * lambdas.len() * items.len());
            assert!(cells.keys().eq(plain.keys()) && bases.keys().eq(plain_bases.keys()));
            let mut moved = 0;
            for (cell, score) in &cells {
                let (other, base) = (&plain[cell], &bases[&cell.item]);
                let tokens = base.tokens as f64;
                let off = farther((score.sum_logprob - other.sum_logprob).abs(), (score.kl - other.kl).abs()) / tokens;
                if off > worst.0 {
                    worst = (off, format!("{name} {} at {}", heads[cell.head], lambdas[cell.lambda]));
                }
                assert!(off <= TOLERANCE, "{name} {cell:?}: {score:?} is not {other:?}");
                if lambdas[cell.lambda] == 1.0 {
                    let untouched = CellScore { sum_logprob: base.sum_logprob, kl: 0.0, agree: base.tokens, ..*score };
                    assert_eq!(*score, untouched, "{name} {cell:?}");
                } else {
                    moved += usize::from((score.sum_logprob - base.sum_logprob).abs() > 100.0 * TOLERANCE);
                }
            }
            assert!(moved > cells.len() / 4, "{name}: {moved} of {} cells moved", cells.len());
        }
    }
    println!("branched: {:e} of {TOLERANCE:e} ({})", worst.0, worst.1);
}

/// Cells that are not wanted are not computed, whichever they are, and the others are unaffected.
#[test]
fn some_cells_alone_are_those_of_the_whole_map() {
    for name in ["qwen3_5", "gemma4"] {
        let engine = engine(name);
        let items = texts(&engine, 11);
        let heads: Vec<HeadRef> = engine.spec().slots().into_iter().rev().step_by(2).collect();
        let request = |wanted| ScoreRequest {
            heads: &heads,
            lambdas: &[0.5, 0.0],
            wanted,
            batch_tokens: 150,
            memory: None,
            kept: 0,
            stop: None,
        };
        let (_, all) = scored(&engine, &items, &request(&|_| true), false);
        let some = |cell: Cell| (cell.item * 5 + cell.head * 3 + cell.lambda) % 4 == 1;
        let (_, part) = scored(&engine, &items, &request(&some), false);
        assert!(part.len() > 5 && part.len() < all.len() / 2);
        for (cell, score) in part {
            assert!(some(cell));
            assert_eq!(score, all[&cell], "{name} {cell:?}: a cell alone is the cell in the map, bit for bit");
        }
    }
}
