#!/usr/bin/env bash
# Stands in for nvcc where CUDA code is type-checked, or built for the stand-in driver of tests/driver. The images that it makes
# only list the kernels of their file, one per line.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
out='' dir='' src='' kind=''
while [ $# -gt 0 ]; do
  case $1 in
    --version) printf 'nvcc: none\n\n\nCuda compilation tools, release 13.0, V13.0.0\n'; exit ;;
    -o) out=$2; shift ;;
    --output-directory) dir=$2; shift ;;
    --ptx) kind=ptx ;;
    --fatbin) kind=fatbin ;;
    --lib) kind=lib ;;
    --default-stream | -Xcompiler | -ccbin) shift ;;
    *.cu) src=$1 ;;
  esac
  shift
done
kernels() {
  echo "kernels of the stand-in driver"
  "${CXX:-c++}" -x c++ -std=c++17 -E -P -D__CUDACC__ -D__CUDA_ARCH__=800 -D__global__=__global__ -w \
    -I "$root/tests/driver/include" -I "$root/tests/driver" -I "$root/crates/kernels/cuda" "$src" |
    tr '\n' ' ' | grep -oE '__global__ +void +(__launch_bounds__ *\([^()]*\) *)?[a-zA-Z0-9_]+ *\(' | sed -E 's/ *\($//; s/.* //; s/.*\)//'
}
case $kind in
  ptx) kernels > "$dir/$(basename "${src%.cu}").ptx" ;;
  fatbin) kernels > "$out"; printf '\0' >> "$out" ;; # embedded bytes end like a C string
  lib) rm -f "$out"; ar crs "$out" ;;
  *) : > "$out" ;;
esac
