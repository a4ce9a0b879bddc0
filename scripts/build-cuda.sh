#!/usr/bin/env bash
# Builds `temper` for CUDA and the CPU, on any Linux machine, also one without a GPU.
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

# cudarc is compiled with its dlopen code although candle asks for dynamic linking: rustc's flags reach the library, but with
# an explicit --target not its build script, which refuses both at once.
flags=CARGO_TARGET_$(echo "$target" | tr 'a-z-' 'A-Z_')_RUSTFLAGS
export "$flags"='--cfg feature="dynamic-loading"'
# candle's own kernels are PTX for 8.0, which the driver compiles for the card at first use and keeps.
export CUDA_COMPUTE_CAP=80 CUDARC_CUDA_VERSION=13000 CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-$(nproc)}

# Stand-ins to link against; the binary needs none of them.
stubs() {
  mkdir -p "$1"
  for library in cuda nvrtc curand cublas cublasLt "${@:2}"; do
    cc -shared -fPIC -x c /dev/null -Wl,-soname,lib$library.so -o "$1/lib$library.so"
  done
}

built=target/cuda profile=release
case ${1-} in --check | --host) profile=stand-in ;; esac # quickly compiled
# The whole workspace at once: another choice of packages has other features, and everything below them is compiled anew.
chosen=(--profile $profile --locked --target "$target" --workspace
  --features headtemper-cli/cuda,headtemper-kernels/cuda,headtemper-tests/cuda)
case ${1-} in
  --check | --host)
    # A directory of its own, so that nothing empty is ever taken for a kernel.
    export CARGO_TARGET_DIR=$PWD/target/cuda-check NVCC=$PWD/scripts/no_nvcc.sh
    stubs target/cuda-check/stubs cudart
    # candle's kernels for quantised weights are functions of a library that is empty here.
    # Where they lie as seen from here, where cargo links: flags with another path would build everything anew in a clone.
    export "$flags=${!flags} -L native=target/cuda-check/stubs -C link-arg=-Wl,--unresolved-symbols=ignore-all"
    if [ "$1" = --check ]; then
      exec cargo clippy "${chosen[@]}" --all-targets -- -D warnings
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

# Of what is there now: what is changed while cargo runs may be in the binaries or not, and is a difference either way.
sources=$(scripts/source_hash.sh)
cargo build "${chosen[@]}" --bins --tests --examples
test_of() { # where cargo puts the tests of a library, or those that are named
  cargo test "${chosen[@]}" --no-run "${@:2}" 2>&1 | tee >(cat >&2) | sed -n "s/.*Executable.*(\\(.*\/$1-[0-9a-f]*\\))/\\1/p"
}
mkdir -p "$built"
rm -f "$built/sources" # until all are there
strip -o "$built/temper" "$CARGO_TARGET_DIR/$target/$profile/temper"
# The tests of our kernels, which run on a card where HEADTEMPER_TEST_DEVICE=cuda.
strip -o "$built/kernels-check" "$(test_of headtemper_kernels --lib)"
strip -o "$built/kernels-bench" "$CARGO_TARGET_DIR/$target/$profile/examples/gpu_bench"
# The integration tests, which run where HEADTEMPER_TEST_DEVICE=cuda says, with the binary that TEMPER names and the files of the
# folder that HEADTEMPER_TESTS names.
strip -o "$built/it" "$(test_of it --test it)"
# What scripts/cuda_env.sh compares with the tree.
echo "$sources" > "$built/sources"

ls -lh "$built"
echo "needs at run time: $(readelf -d "$built/temper" | sed -n 's/.*NEEDED.*\[\(.*\)\]/\1/p' | tr '\n' ' ')"
echo "on a GPU also: a driver for CUDA 13.0 (580 or later), and libcublas.so.13, libcurand.so.10 and libnvrtc.so.13 on LD_LIBRARY_PATH"
