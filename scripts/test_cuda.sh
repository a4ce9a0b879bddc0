#!/usr/bin/env bash
# Tests all that the host does for a CUDA device, on a machine without one: the CUDA build, without kernels, on the stand-in driver
# of tests/driver, which runs the kernels' source on the CPU. Needs Rust, Python 3 and a C++ compiler, and no toolkit.
# scripts/gpu-check.sh checks on a card what only a card can show.
#
#   scripts/test_cuda.sh             gpu-check.sh's short form, gpu-bench.sh's first part at a 64th of the size, faults, two devices,
#                                    goldens, laws, recorded steps, a capture, scores
#   scripts/test_cuda.sh NAME...     only the integration tests of these names, or the kernels' if the first begins with gpu::
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n== %s (%ss)\n' "$*" "$SECONDS" >&2; }

step "the build for CUDA, without kernels, and the driver"
scripts/build-cuda.sh --host
scripts/stand_in_driver.sh
built=$PWD/target/cuda-host
export LD_LIBRARY_PATH=$PWD/target/stand-in HEADTEMPER_TEST_DEVICE=cuda TEMPER=$built/temper
unset HEADTEMPER_KERNELS HEADTEMPER_SIMD
it() { (cd tests && "$built/it" "$@"); } # as cargo runs them

if [ $# -gt 0 ]; then
    case $1 in gpu::*) "$built/kernels-check" "$@" ;; *) it "$@" ;; esac
    exit
fi
step "what the driver must notice"
notices=$PWD/target/stand-in/notices
"${CXX:-c++}" -std=c++17 -O1 -o "$notices" tests/driver/notices.cpp tests/driver/memory.cpp
for deed in 0 1 2 3 4 5; do
    ended=0
    "$notices" $deed 2> /dev/null || ended=$?
    # Deed 0 must end with 7, every other with a signal (above 128).
    { [ $deed = 0 ] && [ $ended = 7 ]; } || { [ $deed != 0 ] && [ $ended -gt 128 ]; } || { echo "deed $deed ended with $ended" >&2; exit 1; }
done
# The driver computes on one core, so two processes share the work. What the second one said is shown when both are done.
integration() {
    step "what gpu-bench.sh runs first, at a 64th of the size"
    "$built/kernels-bench" tiny > "$built/tiny.jsonl"
    python3 scripts/gpu_report.py "$built/tiny.jsonl" "$TEMPER" | tail -n +4
    step "faults, two devices, launches, 16 bits"
    it cuda::
    step "transformers' numbers, the laws, a capture, scores"
    # One test at a time: the driver refuses to open a device for one test in the middle of another's recording.
    # gpu-check.sh runs the laws of recorded steps.
    it --test-threads 1 golden:: laws:: sites:: score::scores captures::a_file captures::a_plan
}
said=$built/integration.log
set -m # a process group of its own, which can be ended as a whole
integration > "$said" 2>&1 &
second=$!
set +m
trap 'kill -- -$second 2> /dev/null || true' EXIT
step "what gpu-check.sh does on a card"
first=0
HEADTEMPER_BUILT=$built SANITIZER= scripts/gpu-check.sh --short || first=$? # a sanitizer would watch the driver's own memory
failed=0
wait $second || failed=$?
trap - EXIT
cat "$said" >&2
[ $first = 0 ] && [ $failed = 0 ] || { echo "gpu-check.sh ended with $first, the integration tests with $failed" >&2; exit 1; }
step "all holds"
