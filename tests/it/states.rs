//! The states that a capture keeps: over which tokens they are averaged, and how they are read while the model writes.

use std::ops::Range;

use headtemper_engine::{
    CaptureRequest, CaptureRow, Encoded, Engine, Event, FinishReason, GenerateOptions, Generated, HeadsWanted, Keep,
    Request, Sampling, StopRule, StopSet,
};
use headtemper_hook::{HeadList, HeadPlan, Site};
use headtemper_tests::{FAMILIES, engine, read_through};

/// The tolerance of a pass in pieces (measured: 0 on the CPU, for every family, pool and array).
pub(crate) const SAME: f32 = 1e-5;

/// How far a mean in f32 may be from one in f64, as a share of the largest (measured: 2.6e-7).
const MEAN: f64 = 1e-6;

pub(crate) fn keep(pool: &str, layers: usize) -> Keep {
    Keep {
        layers: (0..layers).collect(),
        mean_layers: Some(3),
        pool: pool.parse().unwrap(),
        heads: HeadsWanted::Vector,
        last_n: 3,
        logits: true,
    }
}

fn text(len: usize, prompt_len: usize) -> Encoded {
    Encoded { ids: (0..len).map(|i| 8 + (i * i * 7 + len) as u32 % 300).collect(), prompt_len }
}

pub(crate) fn captured(engine: &Engine, texts: &[Encoded], keep: &Keep, plans: &[HeadPlan]) -> Vec<CaptureRow> {
    let request = CaptureRequest { keep: keep.clone(), plans: plans.to_vec(), ..CaptureRequest::default() };
    let mut rows = Vec::new();
    engine
        .capture(texts, &request, |captured| {
            rows.push(captured.row);
            Ok(())
        })
        .unwrap();
    rows
}

/// Every kind of state and mean, against the f64 mean of the tokens' states in a plain pass.
#[test]
fn pooled_states_are_means_of_the_tokens_they_name() {
    let mut worst = 0f64;
    for family in FAMILIES {
        let engine = engine(family);
        let layers = engine.spec().layers.len();
        let texts = [text(9, 4), text(21, 20), text(6, 6), text(30, 11)];
        for (pool, tokens) in [("last", [8..9, 20..21, 5..6, 29..30]), ("last:4", [5..9, 20..21, 2..6, 26..30])] {
            let rows = captured(&engine, &texts, &keep(pool, layers), &[HeadPlan::none()]);
            for ((row, text), tokens) in rows.iter().zip(&texts).zip(tokens) {
                worst = worst.max(check_row(&engine, row, text, tokens, &format!("{family} {pool}")));
            }
        }
        let texts = [text(9, 4), text(21, 20), text(30, 11)];
        let rows = captured(&engine, &texts, &keep("response", layers), &[HeadPlan::none()]);
        for ((row, text), tokens) in rows.iter().zip(&texts).zip([4..9, 20..21, 11..30]) {
            worst = worst.max(check_row(&engine, row, text, tokens, &format!("{family} response")));
        }
        let last = captured(&engine, &texts, &keep("last", layers), &[HeadPlan::none()]);
        assert_ne!(last[0].h_last, rows[0].h_last, "{family}: a pool that does nothing");
        assert_eq!(last[1].h_last, rows[1].h_last, "{family}: a response of one token is its last token");
        assert_eq!(last[0].logits, rows[0].logits, "{family}: logits are the last token's");
        assert_eq!(last[0].head_norm, rows[0].head_norm, "{family}: heads have their own tokens");
        let alone: Vec<CaptureRow> = texts
            .iter()
            .map(|text| {
                captured(&engine, std::slice::from_ref(text), &keep("response", layers), &[HeadPlan::none()]).remove(0)
            })
            .collect();
        assert_eq!(alone, rows, "{family}: a row depends on its neighbours");
    }
    println!("worst share of the largest state: {worst:e}");
}

fn check_row(engine: &Engine, row: &CaptureRow, text: &Encoded, tokens: Range<usize>, what: &str) -> f64 {
    let (recorder, _) = read_through(engine.model(), &text.ids, None);
    let state = |wanted: Site| -> Vec<f64> {
        let (_, x) = recorder.0.iter().find(|(site, _)| *site == wanted).unwrap();
        let x = x.narrow(0, tokens.start, tokens.len()).unwrap().to_vec2::<f32>().unwrap();
        (0..x[0].len()).map(|i| x.iter().map(|row| f64::from(row[i])).sum::<f64>() / x.len() as f64).collect()
    };
    let layers = row.h_layers.len();
    let mut expected: Vec<(String, Vec<f64>, &[f32])> =
        (0..layers).map(|l| (format!("layer {l}"), state(Site::ResidPost(l)), &row.h_layers[l][..])).collect();
    let mean = |i: usize| (layers - 3..layers).map(|l| expected[l].1[i]).sum::<f64>() / 3.0;
    let mean: Vec<f64> = (0..row.h_mean.len()).map(mean).collect();
    expected.push(("h_mean".into(), mean, &row.h_mean));
    expected.push(("h_last".into(), state(Site::FinalNorm), &row.h_last));
    let mut worst = 0f64;
    for (name, theirs, ours) in expected {
        assert_eq!(theirs.len(), ours.len());
        // A maximum would skip NaN.
        assert!(
            theirs.iter().all(|x| x.is_finite()) && ours.iter().all(|x| x.is_finite()),
            "{what} {name}: no numbers"
        );
        let largest = theirs.iter().fold(1.0, |most: f64, x| most.max(x.abs()));
        let off = theirs.iter().zip(ours).map(|(a, b)| (a - f64::from(*b)).abs()).fold(0.0, f64::max);
        assert!(off <= MEAN * largest, "{what} {name} of {tokens:?}: off by {off:e} of {largest}");
        worst = worst.max(off / largest);
    }
    worst
}

/// States read while a row is written are those of a pass over prompt and answer: for answers that end or are cut off,
/// alone and among others, whatever start their prompts share.
#[test]
fn states_are_read_while_they_are_written() {
    let mut worst = 0f32;
    for family in FAMILIES {
        let engine = engine(family);
        let layers = engine.spec().layers.len();
        let plans = [HeadPlan::none(), HeadList::parse("L3H0:0.5").unwrap().plan(None).unwrap()];
        let shared = text(12, 12).ids;
        let mut requests: Vec<Request> = (0..10)
            .map(|i| Request {
                ids: shared.iter().copied().chain(text(2 + i % 5, 0).ids).collect(),
                plan: i % 2,
                sampling: Sampling { temperature: if i < 4 { 0.0 } else { 1.5 }, ..Sampling::default() },
                noise: i as u64,
                max_new_tokens: 1 + 3 * i,
                stop: StopRule::Model,
            })
            .collect();
        // Models of random weights never write their few stop tokens, so every third row stops at a token that it does write.
        let unstopped = generated(&engine, &requests, &plans, None, 4);
        for (request, Generated { ids, .. }) in requests.iter_mut().zip(&unstopped).skip(1).step_by(3) {
            request.stop = StopRule::Also(StopSet::of([ids[ids.len() / 2]]));
        }
        for pool in ["last", "last:4", "response"] {
            let keep = keep(pool, layers);
            let written = generated(&engine, &requests, &plans, Some(&keep), 4);
            let plain = generated(&engine, &requests, &plans, None, 4);
            let alone = generated(&engine, &requests, &plans, Some(&keep), 1);
            assert!(plain.iter().all(|result| result.kept.is_none()));
            for end in [FinishReason::Length, FinishReason::Stop] {
                let ends = |result: &Generated| result.finish_reason == end && !result.ids.is_empty();
                assert!(written.iter().any(ends), "{family} {pool}: no answer ends with {end:?}");
            }
            for (i, result) in written.iter().enumerate() {
                assert_eq!(result, &alone[i], "{family} {pool}: row {i} depends on its neighbours");
                let of = |result: &Generated| (result.ids.clone(), result.finish_reason, result.sum_logprob.to_bits());
                assert_eq!(of(result), of(&plain[i]), "{family} {pool}: to read row {i} changed it");
                if result.ids.is_empty() {
                    continue; // it has no tokens of its own to average over; the next test covers it
                }
                let whole =
                    Encoded { ids: [&requests[i].ids[..], &result.ids].concat(), prompt_len: requests[i].ids.len() };
                let plan = &plans[requests[i].plan..=requests[i].plan];
                let forced = captured(&engine, std::slice::from_ref(&whole), &keep, plan).remove(0);
                worst =
                    worst.max(difference(result.kept.as_ref().unwrap(), &forced, &format!("{family} {pool} row {i}")));
            }
        }
    }
    println!("worst difference {worst:e}");
    assert!(worst <= SAME, "off by {worst:e}");
}

fn generated(
    engine: &Engine,
    requests: &[Request],
    plans: &[HeadPlan],
    keep: Option<&Keep>,
    max_rows: usize,
) -> Vec<Generated> {
    let mut results = vec![None; requests.len()];
    let options = GenerateOptions { max_rows, keep: keep.cloned(), ..GenerateOptions::default() };
    engine
        .generate(requests, plans, &options, |event| {
            if let Event::Done { row, result } = event {
                results[row] = Some(result.clone());
            }
            Ok(())
        })
        .unwrap();
    results.into_iter().map(Option::unwrap).collect()
}

/// The largest difference between the numbers of two rows.
fn difference(a: &CaptureRow, b: &CaptureRow, what: &str) -> f32 {
    let all = |row: &CaptureRow| -> Vec<Vec<f32>> {
        let single = [&row.h_last, &row.h_mean, &row.head_norm, &row.head_norm_final, &row.logits];
        row.h_layers.iter().chain(&row.head_vectors).chain(single).cloned().collect()
    };
    let (a, b) = (all(a), all(b));
    assert_eq!(a.iter().map(Vec::len).collect::<Vec<_>>(), b.iter().map(Vec::len).collect::<Vec<_>>(), "{what}");
    assert!(a.iter().chain(&b).flatten().all(|x| x.is_finite()), "{what}: no numbers");
    let pairs = a.iter().flatten().zip(b.iter().flatten());
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// An empty answer is read at the last token of its prompt.
#[test]
fn an_empty_answer_is_read_at_the_end_of_its_prompt() {
    let engine = engine("llama");
    let prompt = text(10, 10);
    let first = generated(&engine, &[request(&prompt, StopRule::Never)], &[HeadPlan::none()], None, 1)[0].ids[0];
    let stop = StopRule::Also(StopSet::of([first]));
    let forced = captured(&engine, std::slice::from_ref(&prompt), &keep("last", 4), &[HeadPlan::none()]).remove(0);
    for pool in ["last", "last:4", "response"] {
        let keep = keep(pool, 4);
        let empty =
            generated(&engine, &[request(&prompt, stop.clone())], &[HeadPlan::none()], Some(&keep), 1).remove(0);
        assert_eq!((empty.ids.len(), empty.finish_reason), (0, FinishReason::Stop));
        let kept = empty.kept.unwrap();
        assert_eq!(
            (&kept.h_last, &kept.h_mean, &kept.logits),
            (&forced.h_last, &forced.h_mean, &forced.logits),
            "{pool}"
        );
        assert_eq!(kept.head_norm, kept.head_norm_final);
    }
}

fn request(prompt: &Encoded, stop: StopRule) -> Request {
    Request {
        ids: prompt.ids.as_slice().into(),
        plan: 0,
        sampling: Sampling::default(),
        noise: 0,
        max_new_tokens: 3,
        stop,
    }
}
