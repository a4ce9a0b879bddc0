//! Every site fires once a forward, in order, with the shape that the geometry says, in prefill and in decode.

use headtemper_hook::{HeadPlan, HeadScale, Site};
use headtemper_tests::{golden_model, in_pieces};

#[test]
fn every_site_fires_once_in_order() {
    let model = golden_model("llama");
    let spec = model.spec().clone();
    let pieces = [7, 1, 1];
    let mut recorder = headtemper_hook::Recorder::default();
    in_pieces(&*model, &[9; 9], &pieces, &mut recorder);
    let mut expected = Vec::new();
    for n in pieces {
        for (layer, heads) in spec.layers.iter().enumerate() {
            let heads = heads.expect("every layer of a Llama has heads");
            expected.push((Site::Z(layer), vec![n, heads.count, heads.dim]));
            expected.push((Site::ResidPost(layer), vec![n, spec.d_model]));
        }
        expected.push((Site::FinalNorm, vec![n, spec.d_model]));
    }
    let fired: Vec<_> = recorder.0.iter().map(|(site, x)| (*site, x.dims().to_vec())).collect();
    assert_eq!(fired, expected);
}

/// A planned head fires on every token of every forward, decode steps included.
#[test]
fn plans_count_what_they_touch() {
    let model = golden_model("llama");
    let plan = HeadPlan::uniform(&model.spec().slots(), 0.5).unwrap();
    let mut tap =
        HeadScale::compile(&[plan], model.spec(), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    in_pieces(&*model, &[9; 9], &[7, 1, 1], &mut tap);
    assert!(tap.fired()[0].values().all(|&tokens| tokens == 9), "{:?}", tap.fired());
}
