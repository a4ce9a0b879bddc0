//! Every site fires once per forward, in order, with the shape that the geometry says, in prefill and in decode.

use candle_core::Tensor;
use headtemper_engine::verify;
use headtemper_hook::{HeadKind, HeadPlan, HeadScale, HiddenCapture, OnSite, Recorder, Site, Tap, Tee};
use headtemper_tests::{FAMILIES, golden_model, in_pieces};

#[test]
fn every_site_fires_once_in_order() {
    for family in FAMILIES {
        let model = golden_model(family);
        let spec = model.spec().clone();
        let pieces = [7, 1, 1];
        let mut recorder = Recorder::default();
        in_pieces(&*model, &[9; 9], &pieces, &mut recorder);
        let mut expected = Vec::new();
        for n in pieces {
            for (layer, l) in spec.layers.iter().enumerate() {
                let heads = match l.kind() {
                    HeadKind::Query => Site::Z(layer),
                    HeadKind::Value => Site::LinearZ(layer),
                };
                expected.push((heads, vec![n, l.heads.count, l.heads.dim]));
                expected.push((Site::ResidPost(layer), vec![n, spec.d_model]));
            }
            expected.push((Site::FinalNorm, vec![n, spec.d_model]));
        }
        let fired: Vec<_> = recorder.0.iter().map(|(site, x)| (*site, x.dims().to_vec())).collect();
        assert_eq!(fired, expected, "{family}");
        let once: Vec<Site> = fired[..spec.sites().len()].iter().map(|(site, _)| *site).collect();
        assert_eq!(once, spec.sites(), "{family}");
    }
}

/// A planned head fires on every token of every forward, decode steps included, and changes the output.
#[test]
fn every_head_of_every_family_fires_and_does_something() {
    for family in FAMILIES {
        let model = golden_model(family);
        let plan = HeadPlan::uniform(&model.spec().slots(), 0.5).unwrap();
        let scale = |plan: &HeadPlan| {
            let plans = std::slice::from_ref(plan);
            HeadScale::compile(plans, model.spec(), model.device()).unwrap()
        };
        let mut tap = scale(&plan);
        in_pieces(&*model, &[9; 9], &[7, 1, 1], &mut tap);
        assert!(tap.fired()[0].values().all(|&tokens| tokens == 9), "{family}: {:?}", tap.fired());
        let ids: Vec<u32> = (20..31).collect();
        let base = in_pieces(&*model, &ids, &[8, 1, 1, 1], &mut ()).to_vec2::<f32>().unwrap();
        for at in model.spec().slots() {
            let mut tap = scale(&HeadPlan::uniform(&[at], -1.0).unwrap());
            let tempered = in_pieces(&*model, &ids, &[8, 1, 1, 1], &mut tap).to_vec2::<f32>().unwrap();
            // In the prompt and at every step of decoding.
            assert!(base.iter().zip(&tempered).all(|(base, tempered)| base != tempered), "{family} {at}");
        }
    }
}

/// A hook at a site that the model does not have would do nothing, and look like a null.
#[test]
fn a_hook_at_a_site_that_is_not_there_is_refused() {
    let model = golden_model("qwen3_5");
    let run = |tap: &mut dyn Tap| verify::in_pieces(&*model, &[9; 3], &[3], tap).map_err(|e| e.to_string());
    let same = |x: Tensor| Ok(x);
    // The first layer is a delta net.
    run(&mut OnSite(Site::LinearZ(0), same)).unwrap();
    let told = |run: Result<Tensor, String>| run.unwrap_err();
    assert!(told(run(&mut OnSite(Site::Z(0), same))).contains("a hook is for Z(0), which"), "of another kind");
    let (mut there, mut beyond) = (OnSite(Site::FinalNorm, same), OnSite(Site::ResidPost(99), same));
    assert!(told(run(&mut Tee(vec![&mut there, &mut beyond]))).contains("a hook is for ResidPost(99)"));
    let token = Tensor::new(&[2u32], model.device()).unwrap();
    assert!(told(run(&mut HiddenCapture::new(token, vec![Site::ResidPost(99)]))).contains("ResidPost(99)"));
}
