#!/usr/bin/env bash
# Stands in for nvcc where CUDA code is only type-checked: makes empty outputs, and nothing that it makes can run.
out='' dir='' src='' ptx='' lib=''
while [ $# -gt 0 ]; do
  case $1 in
    --version) printf 'nvcc: none\n\n\nCuda compilation tools, release 13.0, V13.0.0\n'; exit ;;
    -o) out=$2; shift ;;
    --output-directory) dir=$2; shift ;;
    --ptx) ptx=1 ;;
    --lib) lib=1 ;;
    --default-stream | -Xcompiler | -ccbin) shift ;;
    *.cu) src=$1 ;;
  esac
  shift
done
if [ -n "$ptx" ]; then
  : > "$dir/$(basename "${src%.cu}").ptx"
elif [ -n "$lib" ]; then
  rm -f "$out"
  ar crs "$out"
else
  : > "$out"
fi
