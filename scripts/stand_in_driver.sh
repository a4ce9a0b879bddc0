#!/usr/bin/env bash
# Builds the stand-in driver of tests/driver, for binaries that scripts/build-cuda.sh made. The result is target/stand-in, which
# LD_LIBRARY_PATH must name. Does nothing if nothing changed.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/target/stand-in
if [ -e "$out/libcuda.so.1" ]; then
    newer=$(find tests/driver crates/kernels/cuda scripts/stand_in_driver.sh scripts/no_nvcc.sh Cargo.lock -newer "$out/libcuda.so.1" -print -quit)
    [ -n "$newer" ] || exit 0
fi
host=$(rustc -vV | sed -n 's/^host: //p')
candle=$(cargo metadata --locked --all-features --filter-platform "$host" --format-version 1 | python3 -c '
import json, os, sys
(package,) = [p for p in json.load(sys.stdin)["packages"] if p["name"] == "candle-kernels"]
print(os.path.dirname(package["manifest_path"]) + "/src")')
mkdir -p "$out"

# Every kernel of ours, as in the build for tests.
for file in crates/kernels/cuda/*.cu; do echo "#include \"$(basename "$file")\""; done > "$out/all.cuh"
# A card fails on a misaligned vector access; -fsanitize=alignment makes the CPU fail too.
compile="${CXX:-c++} -std=c++17 -O2 -fsanitize=alignment -fsanitize-undefined-trap-on-error -fPIC -ftls-model=initial-exec -I tests/driver -I crates/kernels/cuda -I $out"
candles="$compile -w -fno-strict-aliasing -I tests/driver/include -I $candle -D__CUDA_ARCH__=800 -D__CUDACC_VER_MAJOR__=13 -D__CUDACC_VER_MINOR__=0"
{
    echo "$compile -Wno-unknown-pragmas -Wno-clobbered -c tests/driver/emulate.cpp -o $out/emulate.o"
    for part in driver libraries memory; do echo "$compile -Wall -Wextra -c tests/driver/$part.cpp -o $out/$part.o"; done
    for file in affine binary cast fill indexing reduce ternary unary; do
        # The names of its kernels, as an image of this file would list them.
        scripts/no_nvcc.sh --fatbin -o "$out/$file.image" "$candle/$file.cu"
        tr -d '\0' < "$out/$file.image" | sed -n '2,$ s/.*/ENTER(&)/p' > "$out/$file.table"
        echo "$candles -DSOURCE='\"$file.cu\"' -DTABLE='\"$file.table\"' -c tests/driver/candle.cpp -o $out/candle-$file.o"
    done
} | xargs -P "$(nproc)" -d '\n' -n 1 bash -c 'eval "$0"'
"${CXX:-c++}" -shared -Wl,-soname,libcuda.so.1 -o "$out/libcuda.so.1" "$out"/*.o
for name in libcuda.so libcublas.so.13 libcurand.so.10; do ln -sf libcuda.so.1 "$out/$name"; done
