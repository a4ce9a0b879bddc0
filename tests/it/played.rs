//! The law of playing back: recorded decode steps that are played, with the host looking now and then, equal decode steps one by one.
//!
//! On the CPU nothing is played, and the law then checks that too. Steps of rows whose states are read are never played, so they are
//! the reference.

use std::fs;

use headtemper_engine::{
    Engine, Event, Fired, GenerateOptions, Generated, HeadsWanted, Keep, Request, Sampling, StopRule, StopSet,
};
use headtemper_hook::{HeadList, HeadPlan};
use headtemper_tests::{DEVICE, FAMILIES, engine, engine_at, golden_dir};

/// For sums of log-probabilities. Measured worst case: 0 on the stand-in driver, where both run the same kernels on the same rows.
const TOLERANCE: f64 = 1e-6;

fn plan(heads: &str, positions: &str) -> HeadPlan {
    HeadList::parse(heads).unwrap().plan(None).unwrap().at(positions.parse().unwrap())
}

/// Greedy, sampled and penalised rows of several lengths under several plans; some rows end at a token that they are known to write.
fn requests(known: Option<&[Generated]>) -> Vec<Request> {
    let greedy = Sampling::default();
    let hot = Sampling { temperature: 0.9, top_k: 20, seed: 7, ..greedy.clone() };
    let sampling = [
        greedy.clone(),
        Sampling { repetition_penalty: 1.4, ..greedy.clone() },
        hot.clone(),
        greedy.clone(),
        Sampling { presence_penalty: 0.8, repetition_penalty: 0.9, ..greedy },
        Sampling { presence_penalty: 1.5, ..hot.clone() },
        hot,
    ];
    let request = |i: usize| {
        let stops = known.and_then(|known| known[i].ids.get(4).copied()).filter(|_| i % 2 == 1);
        Request {
            ids: (0..3 + i as u32 % 3).map(|t| 5 + 11 * t + i as u32).collect(),
            plan: i % 4,
            sampling: sampling[i].clone(),
            noise: i as u64,
            max_new_tokens: [11, 1, 3, 18][i % 4],
            stop: stops.map_or(StopRule::Never, |id| StopRule::Also(StopSet::of([id]))),
        }
    };
    (0..7).map(request).collect()
}

fn generated(engine: &Engine, requests: &[Request], plans: &[HeadPlan], keep: Option<Keep>) -> (Vec<Generated>, Fired) {
    let mut results = vec![None; requests.len()];
    let options = GenerateOptions { max_rows: 3, keep, ..GenerateOptions::default() };
    let on_event = |event: Event<'_>| {
        if let Event::Done { row, result } = event {
            results[row] = Some(Generated { kept: None, ..result.clone() });
        }
        Ok(())
    };
    let fired = engine.generate(requests, plans, &options, on_event).unwrap();
    (results.into_iter().map(Option::unwrap).collect(), fired)
}

#[test]
fn steps_played_back_are_steps_one_by_one() {
    for family in FAMILIES {
        let engine = engine(family);
        let head = if family == "qwen3_5" { "L0V1:0.25" } else { "L0H1:0.25" };
        // The window begins in the middle of an answer: such a row cannot be played, and all others wait for it.
        let plans = [HeadPlan::none(), plan(head, "all"), plan(head, "response"), plan(head, "window:6..8")];
        let keep = || Some(Keep { heads: HeadsWanted::None, ..Keep::default() });
        let (known, _) = generated(&engine, &requests(None), &plans, keep());
        for rows in [requests(Some(&known)), requests(Some(&known))[..3].to_vec()] {
            let (plans, before) = (&plans[..rows.len().min(plans.len())], engine.plays());
            let ((played, fired), (alone, expected)) =
                (generated(&engine, &rows, plans, None), generated(&engine, &rows, plans, keep()));
            assert_eq!(engine.plays() > before, !DEVICE.is_cpu(), "{family}: whether steps were played");
            for (row, (played, alone)) in played.iter().zip(&alone).enumerate() {
                assert_eq!(played.ids, alone.ids, "{family} row {row}");
                assert_eq!(played.finish_reason, alone.finish_reason, "{family} row {row}");
                let off = (played.sum_logprob - alone.sum_logprob).abs();
                println!("{family} row {row}: {off:e} of {TOLERANCE:e}");
                assert!(off <= TOLERANCE, "{family} row {row}: log-probabilities are {off:e} apart");
            }
            // If states are read, a row that was cut off is also fed its last token.
            let count = |fired: &Fired| fired.iter().map(|row| row.values().sum::<u64>()).collect::<Vec<_>>();
            let cut = |plan: usize| {
                let of = rows.iter().zip(&alone).filter(|(request, result)| {
                    request.plan == plan && result.finish_reason == headtemper_engine::FinishReason::Length
                });
                of.count() as u64
            };
            for (plan, (fired, expected)) in count(&fired).into_iter().zip(count(&expected)).enumerate() {
                let more = expected - fired;
                assert!(more <= cut(plan), "{family} plan {plan}: {fired} of {expected} tokens were counted");
            }
        }
    }
}

/// Recordings are made for rows up to 512 keys, up to 1024 and so on: a row that reaches the end of one goes on in the next, and
/// the rows beside it move with it.
#[test]
fn rows_go_on_in_recordings_that_reach_further() {
    let dir = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(golden_dir("llama").join(file), dir.path().join(file)).unwrap();
    }
    let config = fs::read_to_string(golden_dir("llama").join("config.json")).unwrap();
    let longer = config.replace(r#""max_position_embeddings": 256"#, r#""max_position_embeddings": 1100"#);
    assert_ne!(longer, config);
    fs::write(dir.path().join("config.json"), longer).unwrap();
    let engine = engine_at(dir.path());
    let request = |i: usize| Request {
        ids: (0..[500, 3][i]).map(|t| 5 + (11 * t + i as u32) % 200).collect(),
        plan: i % 2,
        sampling: Sampling::default(),
        noise: i as u64,
        max_new_tokens: 24,
        stop: StopRule::Never,
    };
    let (rows, plans): (Vec<Request>, _) =
        ((0..2).map(request).collect(), [HeadPlan::none(), plan("L0H1:0.25", "all")]);
    let keep = Some(Keep { heads: HeadsWanted::None, ..Keep::default() });
    for of in [&rows[..1], &rows[..]] {
        let before = engine.plays();
        let (played, alone) = (generated(&engine, of, &plans, None).0, generated(&engine, of, &plans, keep.clone()).0);
        assert_eq!(engine.plays() > before, !DEVICE.is_cpu(), "whether steps were played");
        for (row, (played, alone)) in played.iter().zip(&alone).enumerate() {
            assert_eq!(played.ids, alone.ids, "row {row}");
            let off = (played.sum_logprob - alone.sum_logprob).abs();
            assert!(off <= TOLERANCE, "row {row}: log-probabilities are {off:e} apart");
        }
    }
}
