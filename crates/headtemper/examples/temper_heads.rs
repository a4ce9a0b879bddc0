//! Answers a question with heads untouched and tempered, in one batch, and writes what both answers left in the residual stream.
//!
//! `cargo run --release -p headtemper --example temper_heads -- MODEL L0H1:0,L2H4:0.5`

#![expect(clippy::print_stdout, reason = "what it shows")]

use headtemper::prelude::*;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let tiny = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/golden/llama");
    let model = args.next().unwrap_or_else(|| tiny.into());
    let heads = args.next().unwrap_or_else(|| "L0H1:0,L2H4:0.5".into());

    let engine = Engine::open(&ModelChoice { model, device: "auto".into(), ..ModelChoice::default() })?;
    // A head that the model does not have is refused before anything runs.
    let plans = [HeadPlan::none(), HeadList::parse(&heads)?.plan(None)?];
    let prompt = engine.encode("the prompt", &Input::Prompt("Who wrote Middlemarch?".into()), None)?;
    let request = |plan| Request {
        ids: prompt.ids.as_slice().into(),
        plan,
        sampling: Sampling::default(), // greedy
        noise: 0,
        max_new_tokens: 24,
        stop: StopRule::Model,
    };
    let mut answers = vec![Vec::new(); plans.len()];
    engine.generate(&[request(0), request(1)], &plans, &GenerateOptions::default(), |event| {
        if let Event::Done { row, result } = event {
            let text = engine.tokenizer().decode(&result.ids)?;
            println!("{} ({} head-tokens): {text}", plans[row], result.fired);
            answers[row].clone_from(&result.ids);
        }
        Ok(())
    })?;

    // Reads each answer under the plan that wrote it: the final norm's output at its last token, `[d_model]` f32.
    let (prompt_len, mut h_last) = (prompt.ids.len(), Vec::new());
    let text = |answer: &Vec<u32>| Encoded { ids: [&prompt.ids, answer].map(|ids| &ids[..]).concat(), prompt_len };
    let texts: Vec<Encoded> = answers.iter().map(text).collect();
    let asked = CaptureRequest { plans: plans.to_vec(), ..CaptureRequest::default() };
    engine.capture(&texts, &asked, |captured| {
        h_last.extend(captured.row.h_last);
        Ok(())
    })?;

    let out = std::env::temp_dir().join("temper_heads.npz");
    let mut npz = Npz::default();
    npz.add("h_last", Array::F32(vec![plans.len(), h_last.len() / plans.len()], h_last));
    npz.add("plan", Array::Text(plans.iter().map(ToString::to_string).collect()));
    npz.save(&out)?;
    println!("h_last of both: {}", out.display());
    Ok(())
}
