//! The published configurations: what they promise, counted without weights.

use std::path::PathBuf;

use candle_core::Device;
use headtemper_hook::{HeadKind, Mixer, ModelSpec, Site};
use headtemper_model::{Cache, Checkpoint, HoldAs};

fn promised(name: &str) -> ModelSpec {
    let config = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../configs/models").join(format!("{name}.json"));
    Checkpoint::Random { config, seed: 0 }.promised(HoldAs::Native, &Device::Cpu).unwrap().0
}

/// Unique parameters of the text decoders, as the hub and GGUF dumps state them.
#[test]
fn parameter_counts_are_the_published_ones() {
    for (name, parameters) in [
        ("qwen3-0.6b", 596_049_920),
        ("qwen3-1.7b", 1_720_574_976),
        ("qwen3-4b", 4_022_468_096),
        ("qwen3-8b", 8_190_735_360),
        ("qwen3.5-0.8b", 752_393_024),
        ("qwen3.5-2b", 1_881_825_088),
        ("qwen3.5-4b", 4_205_751_296),
        ("qwen3.5-9b", 8_953_803_264),
        // The published 4,647,449,891 include the unused key and value projections of the layers that share keys:
        // 16 sliding and 4 global layers, two projections and a norm each.
        ("gemma-4-e2b", 4_647_449_891 - 16 * (2 * 256 * 1536 + 256) - 4 * (2 * 512 * 1536 + 512)),
        ("smollm2-135m", 134_515_008),
        ("smollm2-360m", 361_821_120),
        ("smollm2-1.7b", 1_711_376_384),
    ] {
        assert_eq!(promised(name).parameters, parameters, "{name}");
    }
}

/// Gemma 4 E2B: which layers are global, how wide their heads are, whose keys the last twenty read.
#[test]
fn gemma_4_e2b_shares_the_keys_of_layers_13_and_14() {
    let spec = promised("gemma-4-e2b");
    for (layer, l) in spec.layers.iter().enumerate() {
        let global = layer % 5 == 4;
        assert_eq!((l.heads.count, l.heads.kv, l.heads.dim), (8, 1, if global { 512 } else { 256 }), "layer {layer}");
        assert_eq!(l.mixer, if global { Mixer::Full } else { Mixer::Sliding { window: 512 } });
        assert_eq!(l.keys_of, (layer >= 15).then_some(if global { 14 } else { 13 }), "layer {layer}");
    }
    // 12 sliding layers of 256 and 3 global ones of 512, keys and values, in bf16
    assert_eq!(Cache::bytes_per_token(&spec, candle_core::DType::BF16), (12 * 256 + 3 * 512) * 2 * 2);
}

/// Qwen3.5 0.8B: three delta nets, then one attention layer; 18 MiB of recurrent state per sequence.
#[test]
fn qwen3_5_interleaves_delta_nets_and_attention() {
    let spec = promised("qwen3.5-0.8b");
    for (layer, l) in spec.layers.iter().enumerate() {
        let full = layer % 4 == 3;
        assert_eq!(l.kind(), if full { HeadKind::Query } else { HeadKind::Value });
        assert_eq!((l.heads.count, l.heads.dim), if full { (8, 256) } else { (16, 128) });
        assert_eq!(spec.head_site(layer), if full { Site::Z(layer) } else { Site::LinearZ(layer) });
    }
    assert_eq!(Cache::bytes_per_token(&spec, candle_core::DType::BF16), 12 * 1024);
    let convolution = 18 * 3 * 6144 * 2;
    assert_eq!(Cache::bytes_per_sequence(&spec, candle_core::DType::BF16), (18 << 20) + convolution);
    assert_eq!(spec.slots().len(), 18 * 16 + 6 * 8);
}

/// A configuration with random weights is a model like any other: two loads agree, two seeds do not.
#[test]
fn random_weights_are_seeded() {
    let logits = |seed| {
        let checkpoint = Checkpoint::Random { config: headtemper_tests::golden_dir("qwen3_5"), seed };
        let model = headtemper_model::load(&checkpoint, None, &Device::Cpu).unwrap();
        headtemper_tests::read_through(&*model, &[1, 2, 3], None).1.to_vec2::<f32>().unwrap()
    };
    assert_eq!(logits(1), logits(1));
    assert_ne!(logits(1), logits(2));
    assert!(logits(1).iter().flatten().all(|logit| logit.is_finite()));
}
