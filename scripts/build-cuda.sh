#!/usr/bin/env bash
# Builds `temper` for CUDA and the CPU, on any Linux machine, even one without a GPU.
#
#   scripts/build-cuda.sh            target/cuda/temper, and beside it what scripts/gpu-check.sh and gpu-bench.sh run
#   scripts/build-cuda.sh --check    type-checks and lints all CUDA code with no toolkit at all
#   scripts/build-cuda.sh --host     the same files without kernels, again with no toolkit, for scripts/test_cuda.sh:
#                                    target/cuda-host
#
# Where there is no nvcc, the parts of the CUDA 13.0 toolkit that compile and link come from pinned PyPI wheels into
# target/cuda-toolkit (270 MB). Kernels are compiled ahead of time for compute capability 8.0 to 9.0 (A100 to H200), with
# PTX for later cards. CUDA's libraries are opened at run time: without a driver the binary starts and computes on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."

toolkit=$PWD/target/cuda-toolkit
target=$(uname -m)-unknown-linux-gnu

# Compiles cudarc with its dlopen code although candle asks for dynamic linking. With an explicit --target, rustc's flags reach
# the library but not its build script, which refuses both at once.
flags=CARGO_TARGET_$(echo "$target" | tr 'a-z-' 'A-Z_')_RUSTFLAGS
export "$flags"='--cfg feature="dynamic-loading"'
# candle's own kernels are PTX for 8.0; the driver compiles them for the card at first use and keeps the result.
export CUDA_COMPUTE_CAP=80 CUDARC_CUDA_VERSION=13000 CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-$(nproc)}

# Empty libraries to link against; the binary does not need them.
stubs() {
  mkdir -p "$1"
  for library in cuda nvrtc curand cublas cublasLt "${@:2}"; do
    cc -shared -fPIC -x c /dev/null -Wl,-soname,lib$library.so -o "$1/lib$library.so"
  done
}

built=target/cuda profile=release
case ${1-} in --check | --host) profile=stand-in ;; esac # quickly compiled
chosen=(--profile $profile --locked --target "$target" --features headtemper-cli/cuda,headtemper-kernels/cuda,headtemper-tests/cuda)
# These depend on all others. Another choice of packages would have other features, and recompile everything they depend on.
packages=(-p headtemper-cli -p headtemper-kernels -p headtemper-tests)
case ${1-} in
  --check | --host)
    # A directory of its own, so that an empty stand-in is never taken for a kernel.
    export CARGO_TARGET_DIR=$PWD/target/cuda-check NVCC=$PWD/scripts/no_nvcc.sh
    stubs target/cuda-check/stubs cudart
    # candle's kernels for quantised weights come from a library that is empty here, so they stay unresolved.
    # The path is relative to this directory, where cargo links: an absolute one would rebuild everything in another clone.
    export "$flags=${!flags} -L native=target/cuda-check/stubs -C link-arg=-Wl,--unresolved-symbols=ignore-all"
    if [ "$1" = --check ]; then
      exec cargo clippy "${chosen[@]}" --workspace --all-targets -- -D warnings
    fi
    built=target/cuda-host
    ;;
esac

if command -v "${NVCC:-nvcc}" > /dev/null; then
  export NVCC=${NVCC:-$(command -v nvcc)}
else
  export CUDA_HOME=$toolkit/nvidia/cu13
  if [ ! -e "$toolkit/.done" ]; then
    python3 -m pip install --quiet --no-deps --no-compile --upgrade --target "$toolkit" nvidia-cuda-nvcc==13.0.88 \
      nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
    stubs "$CUDA_HOME/lib64/stubs"
    echo "INPUT($CUDA_HOME/lib/libcudart_static.a -ldl -lrt -lpthread)" > "$CUDA_HOME/lib64/stubs/libcudart.so"
    touch "$toolkit/.done"
  fi
  export CUDA_PATH=$CUDA_HOME NVCC=$CUDA_HOME/bin/nvcc PATH=$CUDA_HOME/bin:$PATH
fi
export NVCC_APPEND_FLAGS="--compress-mode=size -w" CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/cuda-build}

# Hashed before the build: a file changed while cargo runs may or may not be in the binaries, and counts as a difference either way.
sources=$(scripts/source_hash.sh)
cargo build "${chosen[@]}" "${packages[@]}" --bin temper --example gpu_bench --test it
test_of() { # NAME CARGO-ARGS...: the path of the test binary NAME
  cargo test "${chosen[@]}" "${packages[@]}" --no-run "${@:2}" 2>&1 | tee >(cat >&2) | sed -n "s/.*Executable.*(\\(.*\/$1-[0-9a-f]*\\))/\\1/p"
}
mkdir -p "$built"
rm -f "$built/sources" # until everything is there
strip -o "$built/temper" "$CARGO_TARGET_DIR/$target/$profile/temper"
# The tests of our kernels, which run on a card if HEADTEMPER_TEST_DEVICE=cuda.
strip -o "$built/kernels-check" "$(test_of headtemper_kernels --lib)"
strip -o "$built/kernels-bench" "$CARGO_TARGET_DIR/$target/$profile/examples/gpu_bench"
# The integration tests. They run on the device of HEADTEMPER_TEST_DEVICE, with the binary that TEMPER names and the files of the
# folder that HEADTEMPER_TESTS names.
strip -o "$built/it" "$(test_of it --test it)"
# scripts/cuda_env.sh compares this with the tree.
echo "$sources" > "$built/sources"

ls -lh "$built"
echo "needs at run time: $(readelf -d "$built/temper" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | tr '\n' ' ')"
echo "on a GPU also: a driver for CUDA 13.0 (580 or later), and libcublas.so.13, libcurand.so.10 and libnvrtc.so.13 on LD_LIBRARY_PATH"
