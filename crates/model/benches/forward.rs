//! Prefill and decode of the tiny golden Llama, without a tap and with every head tempered: the cost of a hook.

use std::path::Path;

use candle_core::{Device, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use headtemper_hook::{Batch, HeadPlan, HeadScale, Span, Tap};
use headtemper_model::{Checkpoint, load};

fn forward(c: &mut Criterion) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/llama");
    let model = load(&Checkpoint::Directory(path), None, &Device::Cpu).expect("the golden model is in the repository");
    let all = HeadPlan::uniform(&model.spec().slots(), 0.5).expect("0.5 is finite");
    let mut scale = HeadScale::compile(&[all], model.spec(), &Device::Cpu).expect("the heads exist");
    let mut group = c.benchmark_group("forward");
    for (name, start, len) in [("prefill_128", 0, 128), ("decode_at_128", 128, 1)] {
        let ids = Tensor::new(vec![9u32; len], &Device::Cpu).expect("ids fit");
        let batch = Batch::new(vec![Span { slot: 0, start, len, row: 0, prompt: Span::ALL_PROMPT }]);
        let taps: [(&str, &mut dyn Tap); 2] = [("bare", &mut ()), ("every_head", &mut scale)];
        for (kind, tap) in taps {
            group.bench_function(format!("{name}/{kind}"), |b| {
                b.iter_batched(
                    || {
                        let mut cache = model.new_cache(1, 256).expect("a small cache fits");
                        if start > 0 {
                            let prompt = Tensor::new(vec![9u32; start], &Device::Cpu).expect("ids fit");
                            model.forward(&prompt, &Batch::single(start), &mut cache, &mut ()).expect("it runs");
                        }
                        cache
                    },
                    |mut cache| model.forward(&ids, &batch, &mut cache, tap).expect("it runs"),
                    criterion::BatchSize::SmallInput,
                );
            });
        }
    }
    group.finish();
}

criterion_group!(benches, forward);
criterion_main!(benches);
