//! Helpers shared by the integration tests: the golden files, and models built from them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "in a test a surprise is a failure, and the measured share is shown"
)]

use std::{collections::HashMap, path::PathBuf};

use candle_core::{DType, Device, Tensor};
use headtemper_hook::{Batch, HeadPlan, HeadRef, HeadScale, Recorder, Tap, Tee};
use headtemper_model::{CausalLm, Checkpoint, load};
use serde_json::Value;

/// A directory of the golden files that `scripts/golden/` made with transformers.
pub fn golden_dir(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}

/// One tiny model of each architecture.
pub const FAMILIES: [&str; 4] = ["llama", "qwen3", "qwen3_5", "gemma4"];

/// What transformers computed for one model.
pub struct Golden {
    /// Tensors by name; the layout is described in `scripts/golden/common.py`.
    pub tensors: HashMap<String, Tensor>,
    /// Sequences, plans, versions.
    pub meta: Value,
}

impl Golden {
    /// Reads `golden.safetensors` and `golden.json` of a golden directory.
    pub fn read(name: &str) -> Self {
        Self::read_file(name, "golden")
    }

    /// Reads another pair of files of a golden directory.
    pub fn read_file(name: &str, stem: &str) -> Self {
        let dir = golden_dir(name);
        let tensors = candle_core::safetensors::load(dir.join(format!("{stem}.safetensors")), &Device::Cpu)
            .expect("the golden file is in the repository");
        let text =
            std::fs::read_to_string(dir.join(format!("{stem}.json"))).expect("the golden file is in the repository");
        Self { tensors, meta: serde_json::from_str(&text).expect("golden.json is JSON") }
    }

    /// A tensor by name.
    pub fn get(&self, name: &str) -> &Tensor {
        self.tensors.get(name).unwrap_or_else(|| panic!("the golden file has no tensor '{name}'"))
    }

    /// A tensor of token ids.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        let ids = self.get(name).to_vec1::<i64>().expect("ids are i64");
        ids.into_iter().map(|id| id as u32).collect()
    }

    /// The tempering sets of which results are stored.
    pub fn sets(&self) -> Vec<String> {
        let stored = |set: &&String| self.tensors.contains_key(&format!("seq0.{set}.logits"));
        self.meta["sets"].as_object().expect("sets").keys().filter(stored).cloned().collect()
    }

    /// A plan of the golden file: `sets[name]` is a list of `[layer, head, lambda]`.
    pub fn plan(&self, set: &str) -> HeadPlan {
        let list = self.meta["sets"][set].as_array().unwrap_or_else(|| panic!("no set '{set}'"));
        let entry = |e: &Value| {
            let (layer, head) = (e[0].as_u64().unwrap() as usize, e[1].as_u64().unwrap() as usize);
            let linear = self.meta["layers"][layer]["proj"] == "out_proj";
            let at = if linear { HeadRef::value(layer, head) } else { HeadRef::query(layer, head) };
            (at, e[2].as_f64().unwrap_or_else(|| set_lambda(set)) as f32)
        };
        HeadPlan::new(list.iter().map(entry)).expect("golden plans are valid")
    }
}

/// The λ of a set, where the file gives only layer and head.
fn set_lambda(set: &str) -> f64 {
    match set {
        "half" => 0.5,
        "zero" => 0.0,
        "one" => 1.0,
        other => panic!("set '{other}' has no lambda of its own"),
    }
}

/// Loads a golden directory's model in f32.
pub fn golden_model(name: &str) -> Box<dyn CausalLm> {
    load(&Checkpoint::Directory(golden_dir(name)), Some(DType::F32), &Device::Cpu).expect("the golden model loads")
}

/// A whole sequence through the model at once: what every site saw, and the logits of all positions.
pub fn read_through(model: &dyn CausalLm, ids: &[u32], plan: Option<&HeadPlan>) -> (Recorder, Tensor) {
    let mut recorder = Recorder::default();
    let batch = Batch::single(ids.len());
    let mut cache = model.new_cache(1, ids.len()).unwrap();
    let ids = Tensor::new(ids, &Device::Cpu).unwrap();
    let hidden = match plan {
        None => model.forward(&ids, &batch, &mut cache, &mut recorder),
        Some(plan) => {
            let mut scale =
                HeadScale::compile(std::slice::from_ref(plan), model.spec(), DType::F32, &Device::Cpu).unwrap();
            let result = model.forward(&ids, &batch, &mut cache, &mut Tee(vec![&mut scale, &mut recorder]));
            scale.check_fired().expect("a planned head fires");
            result
        }
    };
    let logits = model.logits(&hidden.unwrap()).unwrap();
    (recorder, logits)
}

/// Greedy tokens with the cache, `n` of them, whatever they are.
pub fn greedy(model: &dyn CausalLm, ids: &[u32], n: usize, tap: &mut dyn Tap) -> Vec<u32> {
    let mut cache = model.new_cache(1, ids.len() + n).unwrap();
    let (mut out, mut input, mut start) = (Vec::new(), ids.to_vec(), 0);
    while out.len() < n {
        let batch = Batch::new(vec![headtemper_hook::Span { slot: 0, start, len: input.len(), row: 0 }]);
        let hidden = model.forward(&Tensor::new(&input[..], &Device::Cpu).unwrap(), &batch, &mut cache, tap).unwrap();
        let last = hidden.narrow(0, input.len() - 1, 1).unwrap();
        let next = model.logits(&last).unwrap().argmax(1).unwrap().to_vec1::<u32>().unwrap()[0];
        start += input.len();
        input = vec![next];
        out.push(next);
    }
    out
}

/// Largest absolute difference of two tensors of one shape.
pub fn worst(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims(), "shapes differ");
    (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

/// The program as built from this workspace, in the profile of the tests.
pub fn temper() -> std::process::Command {
    static PATH: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let path = PATH.get_or_init(|| {
        let mut build = std::process::Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "headtemper-cli"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        // What cargo tells the tests of their own package is not for this build: ring is built anew when it changes.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
                build.env_remove(name);
            }
        }
        assert!(build.status().expect("cargo runs").success(), "the program does not build");
        // target/<profile>/deps/it-<hash> -> target/<profile>/temper
        let test = std::env::current_exe().expect("a running program has a path");
        test.parent().and_then(|deps| deps.parent()).expect("tests lie in deps").join("temper")
    });
    let mut command = std::process::Command::new(path);
    // One thread a process: the tests run side by side.
    command.env("RAYON_NUM_THREADS", "1").env_remove("HEADTEMPER_SIMD");
    command
}

/// Feeds a sequence through the model in pieces: the final hidden states of all its tokens, `[n, d]`.
pub fn in_pieces(model: &dyn CausalLm, ids: &[u32], pieces: &[usize], tap: &mut dyn Tap) -> Tensor {
    let mut cache = model.new_cache(1, ids.len()).unwrap();
    let (mut start, mut out) = (0, Vec::new());
    for &len in pieces {
        let batch = Batch::new(vec![headtemper_hook::Span { slot: 0, start, len, row: 0 }]);
        let part = Tensor::new(&ids[start..start + len], &Device::Cpu).unwrap();
        out.push(model.forward(&part, &batch, &mut cache, tap).unwrap());
        start += len;
    }
    assert_eq!(start, ids.len(), "the pieces make up the sequence");
    Tensor::cat(&out, 0).unwrap()
}
