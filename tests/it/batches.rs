//! Laws of batched generation: any row in any batch, at any place, is the row alone, bit for bit.

use headtemper_engine::{Engine, EngineError, Event, GenerateOptions, Generated, Request, Sampling, StopRule, StopSet};
use headtemper_hook::{HeadList, HeadPlan};
use headtemper_tests::{FAMILIES, engine};

/// A row before the model is known.
#[derive(Clone, Debug)]
struct Draft {
    /// How many tokens at the start of its prompt are common to all drafts.
    shared: usize,
    own: Vec<u32>,
    plan: usize,
    sampling: usize,
    seed: u64,
    noise: u64,
    most: usize,
    stop: usize,
}

/// A batch before the model is known.
#[derive(Clone, Debug)]
struct Drafts {
    /// The drafts in the order of their arrival.
    rows: Vec<Draft>,
    /// Heads, as fractions of all heads, with their λ.
    plans: Vec<Vec<(f64, f32)>>,
    max_rows: usize,
    prefill: usize,
    threads: usize,
}

/// Plans of a batch.
const PLANS: usize = 3;
/// Random batches for every family.
const BATCHES: u64 = 32;

/// Pseudorandom numbers, the same in every run (SplitMix64).
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    /// A number in `[0, 1)`.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    fn draft(&mut self) -> Draft {
        let own = 1 + self.below(30);
        Draft {
            shared: self.below(3).min(1) * self.below(40),
            own: (0..own).map(|_| self.below(1000) as u32).collect(),
            plan: self.below(PLANS),
            sampling: self.below(6),
            seed: self.next() % 3,
            noise: self.next() % 4,
            most: 1 + self.below(14),
            stop: self.below(3),
        }
    }

    fn plan(&mut self) -> Vec<(f64, f32)> {
        (0..self.below(5)).map(|_| (self.share(), (4.0 * self.share() - 2.0) as f32)).collect()
    }

    fn drafts(&mut self) -> Drafts {
        let rows = 3 + self.below(9);
        Drafts {
            rows: (0..rows).map(|_| self.draft()).collect(),
            plans: (0..PLANS).map(|_| self.plan()).collect(),
            max_rows: 1 + self.below(8),
            prefill: 1 + self.below(40),
            threads: 1 + self.below(2),
        }
    }
}

fn sampling(kind: usize, seed: u64) -> Sampling {
    let hot = Sampling { temperature: 1.0, seed, ..Sampling::default() };
    match kind {
        0 => Sampling { seed, ..Sampling::default() },
        1 => hot,
        2 => Sampling { temperature: 1.7, top_k: 20, ..hot },
        3 => Sampling { temperature: 0.7, top_p: 0.9, ..hot },
        4 => Sampling { min_p: 0.05, repetition_penalty: 1.3, ..hot },
        _ => Sampling { top_k: 40, top_p: 0.95, presence_penalty: 0.5, ..hot },
    }
}

fn request(draft: &Draft, engine: &Engine) -> Request {
    let vocab = engine.spec().vocab as u32;
    let start = (0..draft.shared as u32).map(|i| i.wrapping_mul(7919));
    Request {
        ids: start.chain(draft.own.iter().copied()).map(|id| id % vocab).collect(),
        plan: draft.plan,
        sampling: sampling(draft.sampling, draft.seed),
        noise: draft.noise,
        max_new_tokens: draft.most,
        stop: match draft.stop {
            0 => StopRule::Model,
            1 => StopRule::Never,
            _ => StopRule::Also(StopSet::of((0..vocab).step_by(5))),
        },
    }
}

fn plans(drafts: &Drafts, engine: &Engine) -> Vec<HeadPlan> {
    let slots = engine.spec().slots();
    let plan = |heads: &Vec<(f64, f32)>| {
        let heads: std::collections::BTreeMap<_, _> =
            heads.iter().map(|&(share, lambda)| (slots[(share * slots.len() as f64) as usize], lambda)).collect();
        HeadPlan::new(heads).unwrap()
    };
    drafts.plans.iter().map(plan).collect()
}

fn generate(
    engine: &Engine,
    requests: &[Request],
    plans: &[HeadPlan],
    options: &GenerateOptions<'_>,
) -> Vec<Generated> {
    let mut results = vec![None; requests.len()];
    let fired = engine.generate(requests, plans, options, |event| {
        if let Event::Done { row, result } = event {
            assert!(results[row].replace(result.clone()).is_none(), "row {row} was reported twice");
        }
        Ok(())
    });
    fired.unwrap();
    results.into_iter().map(|result| result.expect("every row is reported")).collect()
}

fn on_threads<T: Send>(threads: usize, work: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap().install(work)
}

/// Random batches for every family: prompts that share a start and prompts that do not, plans of several heads, kinds of
/// sampling, ends and limits, more rows than run at once, prompts in pieces, one thread and two.
#[test]
fn a_row_in_any_batch_is_the_row_alone() {
    for family in FAMILIES {
        let engine = engine(family);
        for case in 0..BATCHES {
            let drafts = Chance(case).drafts();
            let plans = plans(&drafts, &engine);
            let requests: Vec<Request> = drafts.rows.iter().map(|draft| request(draft, &engine)).collect();
            let Drafts { max_rows, prefill: prefill_tokens, threads, .. } = drafts;
            let options =
                GenerateOptions { max_rows, prefill_tokens: Some(prefill_tokens), ..GenerateOptions::default() };
            let together = on_threads(threads, || generate(&engine, &requests, &plans, &options));
            for (row, (request, result)) in requests.iter().zip(&together).enumerate() {
                let alone = Request { plan: 0, ..request.clone() };
                let plan = std::slice::from_ref(&plans[request.plan]);
                let alone = on_threads(1, || generate(&engine, &[alone], plan, &GenerateOptions::default()));
                let of = |result: &Generated| (result.ids.clone(), result.finish_reason, result.sum_logprob.to_bits());
                assert_eq!(of(&alone[0]), of(result), "{family}: row {row} of batch {case}, {drafts:?}");
            }
        }
    }
}

/// Twenty sampled rows through every number of slots, some ending in the middle: the same answers each time.
#[test]
fn sampled_answers_do_not_depend_on_the_number_of_rows() {
    let engine = engine("qwen3_5");
    let spec = engine.spec();
    let plans = [HeadPlan::none(), HeadPlan::uniform(&spec.slots()[..3], 0.4).unwrap()];
    let draft = |i: usize| Draft {
        shared: if i.is_multiple_of(3) { 0 } else { 17 },
        own: (0..=i as u32 * 3 % 23).map(|t| t * 31 + i as u32).collect(),
        plan: i % 2,
        sampling: 1 + i % 5,
        seed: 5,
        noise: i as u64 / 2,
        most: 3 + i * 7 % 20,
        stop: if i.is_multiple_of(4) { 2 } else { 1 },
    };
    let requests: Vec<Request> = (0..20).map(|i| request(&draft(i), &engine)).collect();
    let with = |max_rows: usize, prefill_tokens: usize| {
        generate(
            &engine,
            &requests,
            &plans,
            &GenerateOptions { max_rows, prefill_tokens: Some(prefill_tokens), ..GenerateOptions::default() },
        )
    };
    let one_by_one = with(1, 512);
    let stopped = one_by_one.iter().filter(|r| r.finish_reason == headtemper_engine::FinishReason::Stop).count();
    assert!(stopped > 0 && stopped < 20, "{stopped} of the rows end by a stop token");
    for (max_rows, prefill) in [(2, 1), (3, 7), (4, 64), (7, 16), (8, 512), (16, 5), (20, 4096)] {
        assert_eq!(with(max_rows, prefill), one_by_one, "{max_rows} rows, {prefill} prompt tokens a step");
    }
}

/// A row that heeds no stop token has exactly as many tokens as it may, and is the same row up to where it would have stopped.
#[test]
fn a_row_without_stops_goes_on_where_it_would_have_ended() {
    let engine = engine("llama");
    let stops = StopRule::Also(StopSet::of((0..engine.spec().vocab as u32).step_by(3)));
    let request = |stop: StopRule| Request {
        ids: [9, 8, 7].into(),
        plan: 0,
        sampling: sampling(1, 3),
        noise: 1,
        max_new_tokens: 40,
        stop,
    };
    let plans = [HeadPlan::none()];
    let results = generate(&engine, &[request(stops), request(StopRule::Never)], &plans, &GenerateOptions::default());
    let [ended, whole] = &results[..] else { panic!("two rows") };
    assert_eq!(whole.ids.len(), 40);
    assert!(ended.ids.len() < 40 && whole.ids.starts_with(&ended.ids), "{ended:?} {whole:?}");
    assert!(whole.ids[ended.ids.len()].is_multiple_of(3), "it goes on with the token that ended the other");
}

/// A row that does not fit the memory is refused by name. (How many rows fit is tested where the process is alone.)
#[test]
fn a_row_longer_than_the_memory_is_refused() {
    let engine = engine("llama");
    let row = |i: u32| Request {
        ids: (0..40 + i).collect(),
        plan: 0,
        sampling: sampling(1, 0),
        noise: u64::from(i),
        max_new_tokens: 8,
        stop: StopRule::Never,
    };
    let requests: Vec<Request> = (0..6).map(row).collect();
    let name = |row: usize| format!("item 'q{row}'");
    let plan = |memory: u64| {
        let options = GenerateOptions { memory: Some(memory), ..GenerateOptions::default() };
        engine.plan_generation(&requests, 1, &options, &name)
    };
    let ample = plan(1 << 40).unwrap();
    assert_eq!((ample.rows, ample.step_tokens), (6, (40..46).sum::<usize>() + 6));
    let error = plan(1 << 20).unwrap_err();
    assert!(
        matches!(&error, EngineError::Memory { what, .. } if what.starts_with("item 'q5' with up to 53")),
        "{error}"
    );
}

/// A row whose plan was not given is an error that names the row, not a panic.
#[test]
fn a_plan_that_is_not_there_is_refused() {
    let engine = engine("llama");
    let ids = [1, 2, 3].into();
    let (sampling, stop) = (Sampling::default(), StopRule::Model);
    let request = Request { ids, plan: 2, sampling, noise: 0, max_new_tokens: 4, stop };
    let plans = [HeadPlan::none(), HeadPlan::none()];
    let error = engine.generate(&[request], &plans, &GenerateOptions::default(), |_| Ok(())).unwrap_err();
    assert_eq!(error.to_string(), "row 0 asks for plan 2, but plans 0 to 1 were given");
}

/// A plan of some row must fire, whatever other plans are given; and a token must be one of the model's.
#[test]
fn what_a_request_has_is_checked() {
    let engine = engine("llama");
    let stop = StopRule::Also(StopSet::of(0..engine.spec().vocab as u32));
    let request = |id: u32| Request {
        ids: [1, id].into(),
        plan: 0,
        sampling: Sampling::default(),
        noise: 0,
        max_new_tokens: 4,
        stop: stop.clone(),
    };
    let at_response: HeadPlan = HeadList::parse("L0H1:0.5 at response").unwrap().plan(None).unwrap();
    let run = |id: u32, plans: &[HeadPlan]| {
        engine.generate(&[request(id)], plans, &GenerateOptions::default(), |_| Ok(())).map_err(|e| e.to_string())
    };
    // Every token stops, so nothing of the answer is read.
    for plans in [&[at_response.clone()][..], &[at_response, HeadPlan::none()]] {
        let error = run(2, plans).unwrap_err();
        assert!(error.contains("the plan names L0H1 at response but the hook never fired there"), "{error}");
    }
    assert!(run(2, &[HeadPlan::none(), HeadPlan::none()]).is_ok());
    let error = run(engine.spec().vocab as u32, &[HeadPlan::none()]).unwrap_err();
    assert!(error.contains("the prompt of row 0") && error.contains(&engine.spec().vocab.to_string()), "{error}");
}

/// How far an answer is read, up to the end of the context (256 tokens) and beyond any number.
#[test]
fn the_last_token_is_read_where_it_is_kept() {
    let engine = engine("llama");
    let read = |prompt, new| [false, true].map(|ending| engine.most_read(prompt, new, ending));
    assert_eq!(read(3, 1), [3, 4]);
    assert_eq!(read(250, 5), [254, 255]);
    assert_eq!((read(250, 6), read(250, 7), read(250, usize::MAX)), ([255, 256], [255, 256], [255, 256]));
}

/// A device whose memory fills up during a run: finished rows have been reported, and the error says what was planned.
#[test]
fn a_device_without_memory_says_what_was_planned() {
    let engine = engine("llama");
    let row = |i: u32| Request {
        ids: [1, 2 + i].into(),
        plan: 0,
        sampling: sampling(1, 0),
        noise: 0,
        max_new_tokens: 2,
        stop: StopRule::Never,
    };
    let requests: Vec<Request> = (0..4).map(row).collect();
    let options = GenerateOptions { memory: Some(1 << 40), max_rows: 1, ..GenerateOptions::default() };
    let full = || candle_core::Error::Msg("DriverError(CUDA_ERROR_OUT_OF_MEMORY, \"out of memory\")".into());
    let mut done = 0;
    let error = engine.generate(&requests, &[HeadPlan::none()], &options, |event| {
        done += usize::from(matches!(event, Event::Done { .. }));
        if done < 3 { Ok(()) } else { Err(full().into()) }
    });
    let error = error.unwrap_err();
    let planned = engine.plan_generation(&requests, 1, &options, &|row| format!("row {row}")).unwrap();
    assert!(matches!(&error, EngineError::DeviceMemory { limit: Some(limit), .. } if *limit == 1 << 40), "{error}");
    let text = error.to_string();
    // Candle's message comes last: with backtraces on, a stack follows it.
    let said = text.contains("MiB of 1.0 TiB was planned: DriverError(CUDA_ERROR_OUT_OF_MEMORY");
    assert!(said && error.hint().is_some_and(|hint| hint.contains("--memory")), "{text} ({planned})");
    assert_eq!(done, 3);
}
