//! Helpers shared by the integration tests: the golden files, and models built from them.

#![allow(clippy::unwrap_used, reason = "in a test a surprise is a failure")]

use std::{
    path::{Path, PathBuf},
    sync::LazyLock,
};

use candle_core::{Device, Tensor};
use headtemper_engine::{Engine, ModelChoice, verify};
use headtemper_hook::{HeadPlan, Recorder, Tap};
use headtemper_model::{CausalLm, Checkpoint, Held, load, open_cuda};

/// A directory of the golden files that `scripts/golden/` made with transformers. It is in the tests' folder of this repository, or,
/// where the tests run on another machine, in the folder that `HEADTEMPER_TESTS` names.
pub fn golden_dir(name: &str) -> PathBuf {
    let tests = std::env::var_os("HEADTEMPER_TESTS").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    tests.join("golden").join(name)
}

/// One tiny model of each architecture.
pub const FAMILIES: [&str; 4] = ["llama", "qwen3", "qwen3_5", "gemma4"];

/// The golden file of a directory in this repository; a tensor or plan that it lacks fails the test.
pub struct Golden(verify::Golden);

impl std::ops::Deref for Golden {
    type Target = verify::Golden;

    fn deref(&self) -> &verify::Golden {
        &self.0
    }
}

impl Golden {
    /// Reads `golden.safetensors` and `golden.json` of a golden directory.
    pub fn read(name: &str) -> Self {
        Self::read_file(name, "golden")
    }

    /// Reads another pair of files of a golden directory.
    pub fn read_file(name: &str, stem: &str) -> Self {
        Self(verify::Golden::read(&golden_dir(name).join(format!("{stem}.safetensors"))).unwrap())
    }

    /// A tensor by name.
    pub fn get(&self, name: &str) -> &Tensor {
        self.0.get(name).unwrap()
    }

    /// A tensor of token ids.
    pub fn ids(&self, name: &str) -> Vec<u32> {
        self.0.ids(name).unwrap()
    }

    /// A plan of the golden file.
    pub fn plan(&self, set: &str) -> HeadPlan {
        self.0.plan(set).unwrap()
    }
}

/// The device of the models: the CPU, or the first CUDA device if `HEADTEMPER_TEST_DEVICE=cuda`. Only tests of the CPU alone name
/// the CPU themselves.
pub static DEVICE: LazyLock<Device> = LazyLock::new(|| match std::env::var("HEADTEMPER_TEST_DEVICE").as_deref() {
    Ok("cuda") => open_cuda(0).expect("HEADTEMPER_TEST_DEVICE asks for a CUDA device"),
    Ok(other) => panic!("HEADTEMPER_TEST_DEVICE is cuda or not set, not {other}"),
    Err(_) => Device::Cpu,
});

/// Loads a golden directory's model in f32.
pub fn golden_model(name: &str) -> Box<dyn CausalLm> {
    load(&Checkpoint::Directory(golden_dir(name)), Some(Held::F32), &DEVICE).expect("the golden model loads")
}

/// Loads a golden directory's model in f32, with the engine around it.
pub fn engine(name: &str) -> Engine {
    engine_at(&golden_dir(name))
}

/// The engine with the model of any directory, in f32.
pub fn engine_at(dir: &Path) -> Engine {
    let model = dir.to_string_lossy().into_owned();
    let device = if DEVICE.is_cpu() { "cpu" } else { "cuda" }.into();
    Engine::open(&ModelChoice { model, precision: Some(Held::F32).into(), device, ..ModelChoice::default() }).unwrap()
}

/// Runs a whole sequence through the model at once: what every site saw, and the logits of all positions.
pub fn read_through(model: &dyn CausalLm, ids: &[u32], plan: Option<&HeadPlan>) -> (Recorder, Tensor) {
    verify::read_through(model, ids, plan).unwrap()
}

/// Largest absolute difference of two tensors of the same shape. Panics unless all of it is finite: a maximum would skip NaN.
pub fn worst(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims(), "shapes differ");
    let off = (a - b).and_then(|off| off.abs()?.flatten_all()?.to_vec1::<f32>()).expect("two tensors in f32");
    assert!(off.iter().all(|off| off.is_finite()), "a difference is no number");
    off.into_iter().fold(0.0, f32::max)
}

/// The larger of the worst difference so far and this one, which must be finite: `f64::max` would skip NaN.
pub fn farther(worst: f64, off: f64) -> f64 {
    assert!(off.is_finite(), "a difference is no number");
    worst.max(off)
}

/// The program as built from this workspace, in the profile of the tests; or that of `TEMPER`, which runs on the device.
pub fn temper() -> std::process::Command {
    static PATH: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let path = PATH.get_or_init(|| {
        if let Some(built) = std::env::var_os("TEMPER") {
            return built.into();
        }
        let mut build = std::process::Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "headtemper-cli"]).current_dir(env!("CARGO_MANIFEST_DIR"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        // Cargo's variables about the tests' own package must not reach this build: ring is rebuilt when they change.
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
    // One thread per process: the tests run in parallel.
    command.env("RAYON_NUM_THREADS", "1").env_remove("HEADTEMPER_SIMD").env_remove("HEADTEMPER_KERNELS");
    command
}

/// Feeds a sequence through the model in pieces: the final hidden states of all its tokens, `[n, d]`.
pub fn in_pieces(model: &dyn CausalLm, ids: &[u32], pieces: &[usize], tap: &mut dyn Tap) -> Tensor {
    assert_eq!(pieces.iter().sum::<usize>(), ids.len(), "the pieces make up the sequence");
    verify::in_pieces(model, ids, pieces, tap).unwrap()
}
