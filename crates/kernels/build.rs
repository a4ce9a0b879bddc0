//! Compiles the kernels in `cuda/` with nvcc if the feature `cuda` is on.

use std::{
    env, fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
    process::Command,
};

/// The kernel files in `cuda/`, each compiled to its own image.
fn files() -> Vec<String> {
    let entries = fs::read_dir("cuda").expect("the kernels are beside this script").flatten();
    let name = |entry: fs::DirEntry| Some(entry.file_name().to_str()?.strip_suffix(".cu")?.to_owned());
    let mut files: Vec<String> = entries.filter_map(name).collect();
    files.sort_unstable();
    files
}

/// The path of a file that the build makes.
fn made(name: &str) -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join(name)
}

/// The targets: 8.x, 9.x, and PTX that the drivers of later cards compile.
const TARGETS: [&str; 3] =
    ["arch=compute_80,code=sm_80", "arch=compute_90,code=sm_90", "arch=compute_90,code=compute_90"];

/// Flags that nvcc takes from its environment.
const FLAGS: [&str; 2] = ["NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"];

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=cuda");
    for name in FLAGS.into_iter().chain(["NVCC"]) {
        println!("cargo:rerun-if-env-changed={name}");
    }
    if env::var_os("CARGO_FEATURE_CUDA").is_some() {
        for_cuda();
    }
}

/// Compiles an image of each file, and writes `images.rs`, which embeds them. An image that the same compiler made from the same
/// sources with the same command is kept: some take a minute.
fn for_cuda() {
    let nvcc = env::var("NVCC").unwrap_or_else(|_| "nvcc".into());
    let version = Command::new(&nvcc).arg("--version").output();
    let flags = FLAGS.map(|name| env::var(name).unwrap_or_default());
    let read = |path: PathBuf| fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let entries = fs::read_dir("cuda").expect("the kernels are beside this script").flatten();
    let mut headers: Vec<_> =
        entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|it| it == "cuh")).collect();
    headers.sort_unstable();
    let headers: Vec<_> = headers.into_iter().map(read).collect();
    let running: Vec<_> = files()
        .into_iter()
        .map(|file| {
            let (source, image) = (format!("cuda/{file}.cu"), made(&format!("{file}.fatbin")));
            let mut nvcc = Command::new(&nvcc);
            nvcc.args(["--fatbin", "-std=c++17", "-O3", "--expt-relaxed-constexpr", "--expt-extended-lambda"]);
            nvcc.args(TARGETS.iter().flat_map(|target| ["-gencode", target]));
            nvcc.arg("-o").arg(&image).arg(&source);
            let mut sources = DefaultHasher::new();
            (read(source.into()), &headers).hash(&mut sources);
            let version = version.as_ref().map(|version| &version.stdout);
            let (of, by) = (sources.finish(), made(&format!("{file}.made")));
            let command = format!("{nvcc:?} {flags:?} {version:?} {of:x}");
            if image.exists() && fs::read_to_string(&by).is_ok_and(|by| by == command) {
                return (file, None);
            }
            let _ = fs::remove_file(&by); // written once the image is complete
            let child = nvcc.spawn().unwrap_or_else(|error| {
                panic!("cannot run {nvcc:?}: {error}; set NVCC, or build with scripts/build-cuda.sh, which fetches it")
            });
            (file, Some((child, by, command)))
        })
        .collect();
    let mut images = String::new();
    for (file, run) in running {
        if let Some((mut child, by, command)) = run {
            let status = child.wait().expect("nvcc can be waited for");
            assert!(status.success(), "nvcc failed on cuda/{file}.cu");
            fs::write(by, command).expect("cargo's directory can be written");
        }
        images += &format!(
            "pub(in crate::gpu) static {}: &[u8] = include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{file}.fatbin\"));\n",
            file.to_uppercase()
        );
    }
    fs::write(made("images.rs"), images).expect("cargo's directory can be written");
}
