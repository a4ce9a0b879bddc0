//! What the statistics of an attribution take: `cargo bench -p headtemper-study --bench attribution`.
//!
//! All heads of a model the size of SmolLM2-135M (270) or Gemma 4 E2B (280), with vectors of 64 or 256 numbers, over 100
//! items and 1,000 shuffles; the same items many, where the vectors and no longer the items are the smaller table.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use headtemper_hook::{HeadRef, Site};
use headtemper_stats::Random;
use headtemper_study::{
    AttributeOptions, Cohorts, DispositionSpec, FeatureMeta, Features, HeadVectors, ItemFacts, attribute,
};

/// Noise of this shape.
fn features(items: usize, layers: usize, heads: usize, dim: usize) -> Features {
    let mut random = Random::new(1, 0);
    let mut draw = |count: usize| (0..count).map(|_| random.uniform() as f32 - 0.4).collect::<Vec<_>>();
    let slots = layers * heads;
    let meta = serde_json::json!({
        "schema": "features/v1", "model": "noise", "architecture": "none", "weights_sha256": "", "dtype": "f32",
        "device": "cpu", "version": "0", "plan": [], "site": "", "layer_site": "", "last_n": 32,
    });
    let meta: FeatureMeta = serde_json::from_value(meta).expect("the meta of a capture");
    let vectors = |layer| HeadVectors { site: Site::Z(layer), heads, dim, values: draw(items * heads * dim) };
    let head_vectors = (0..layers).map(vectors).collect();
    Features {
        ids: (0..items).map(|item| item.to_string()).collect(),
        labels: vec![String::new(); items],
        prompt_len: vec![20; items],
        total_len: (0..items).map(|item| 60 + item % 7).collect(),
        d_model: 1,
        h_last: vec![0.0; items],
        layers: Vec::new(),
        h_layers: Vec::new(),
        h_mean: Vec::new(),
        slots: (0..layers).flat_map(|layer| (0..heads).map(move |head| HeadRef::query(layer, head))).collect(),
        head_norm: draw(items * slots),
        head_norm_final: draw(items * slots),
        head_vectors,
        vocab: 0,
        logits: Vec::new(),
        columns: headtemper_study::Columns::default(),
        meta,
    }
}

fn attributions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("attribution, 1000 shuffles");
    group.sample_size(10);
    for (items, layers, heads, dim) in [(100, 30, 9, 64), (100, 35, 8, 256), (400, 30, 9, 64)] {
        let features = features(items, layers, heads, dim);
        let spec = DispositionSpec::of_labels("noise", "a", "b").expect("two labels");
        let cohorts = Cohorts { a: (0..items / 2).collect(), b: (items / 2..items).collect() };
        let facts: Vec<ItemFacts> =
            (0..items).map(|item| ItemFacts { prompt: item.to_string(), ..ItemFacts::default() }).collect();
        let options = AttributeOptions::default();
        let run = || attribute(&features, &spec, &cohorts, &facts, &options).expect("noise can be attributed");
        group.bench_function(format!("{items} items x {} heads x {dim}", layers * heads), |bencher| {
            bencher.iter(|| black_box(run()));
        });
    }
    group.finish();
}

criterion_group!(benches, attributions);
criterion_main!(benches);
