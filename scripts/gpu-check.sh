#!/usr/bin/env bash
# Checks a CUDA device, as one command and from built files alone: target/cuda (made by scripts/build-cuda.sh, on any machine),
# tests/golden, configs/models and scripts. Needs a driver for CUDA 13.0, CUDA's libraries somewhere on the machine, and Python 3; no network,
# no Rust. Ends with 0 if all holds, within 8 minutes.
#
#   scripts/gpu-check.sh             everything
#   scripts/gpu-check.sh --short     each kernel against its oracle, and the tiny models
set -euo pipefail
cd "$(dirname "$0")/.."
step() { printf '\n== %s (%ss)\n' "$*" "$SECONDS" >&2; }

source scripts/cuda_env.sh

step "what is there"
date -u +%F
nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total,clocks.max.sm --format=csv || echo "nvidia-smi does not say which card this is"
"$TEMPER" --version

step "each kernel against its oracle, in f32, bf16 and f16"
HEADTEMPER_TEST_DEVICE=cuda "$built/kernels-check" gpu:: --test-threads 1 --nocapture
if sanitizer=$(command -v "${SANITIZER-compute-sanitizer}"); then
    step "the same, watched"
    watched() {
        local said status=0
        said=$(HEADTEMPER_TEST_DEVICE=cuda timeout 150 "$sanitizer" --error-exitcode 9 --tool "$1" "$built/kernels-check" --test-threads 1 "${@:2}" 2>&1) || status=$?
        grep '^=' <<< "$said" | head -n 40 || true
        # Slow, and so it may not come to its end: what it says until then counts.
        # What it says of itself is no finding: that it cannot watch this card, or that what it watched was ended.
        if grep -Eq '^=+ .*(Invalid |Race reported|Program hit|SUMMARY: [1-9])' <<< "$said"; then
            echo "compute-sanitizer's $1 found something" >&2
            exit 1
        fi
        [ $status = 0 ] || [ $status = 124 ] || echo "compute-sanitizer's $1 ended with $status: nothing was watched" >&2
    }
    watched memcheck gpu::tests::rows gpu::tests::ranges gpu::tests::delta::long gpu::tests::delta_step gpu::tests::delta::a_convolution \
        gpu::tests::attention gpu::tests::sample
    watched racecheck gpu::tests::ranges gpu::tests::delta::long gpu::tests::delta_step gpu::tests::attention::tiles gpu::tests::attention::single \
        gpu::tests::sample::flat
else
    echo "compute-sanitizer is not here: memory was not watched" >&2
fi

step "faults are said"
refused() {
    local said
    if said=$("$TEMPER" inspect --model tests/golden/llama --device "$1" 2>&1); then
        echo "--device $1 was not refused" >&2
        exit 1
    fi
    printf '%s\n' "$said"
    grep -q "$2" <<< "$said"
}
refused cuda:99 'there is no device 99'
CUDA_VISIBLE_DEVICES='' refused cuda 'cannot be used'
CUDA_VISIBLE_DEVICES='' "$TEMPER" verify --quick tests/golden/llama --device auto > /dev/null

step "tiny models in bf16 against transformers in f32"
for family in llama qwen3 qwen3_5 gemma4; do
    "$TEMPER" verify --model "tests/golden/$family" --device cuda --dtype bf16 --golden "tests/golden/$family/golden.safetensors" --quick
done

step "a tiny model with candle's own operations in the place of our kernels"
HEADTEMPER_KERNELS=plain "$TEMPER" verify --model tests/golden/qwen3_5 --device cuda --dtype f32 --golden tests/golden/qwen3_5/golden.safetensors

step "recorded decode steps write what steps one by one write"
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
for i in 1 2 3 4 5; do echo "{\"id\":\"$i\",\"prompt\":\"Name a river, a town and $i more things.\"}"; done > "$out/items.jsonl"
for family in llama qwen3 qwen3_5 gemma4; do
    sweep() { "$TEMPER" sweep --model "tests/golden/$family" --device cuda --dtype f32 --items "$out/items.jsonl" --heads all --lambda 1,0.5 --max-new-tokens 24 "$@" > /dev/null 2>&1; }
    sweep --out "$out/$family.played"
    sweep --no-graph --out "$out/$family.alone"
    python3 - "$out/$family" <<'END'
import json, sys

rows = [{(r["id"], r["variant"]): r["response_ids"] for r in map(json.loads, open(f"{sys.argv[1]}.{way}/rows.jsonl"))} for way in ("played", "alone")]
same = sum(rows[0][key] == rows[1][key] for key in rows[1])
print(f"{sys.argv[1].rsplit('/', 1)[1]}: {same} of {len(rows[1])} answers are the same")
# cuBLAS may sum in another order for another number of rows: a near tie may fall the other way, most may not.
sys.exit(0 if rows[0].keys() == rows[1].keys() and same >= 0.9 * len(rows[1]) else 1)
END
done

step "steps are recorded at all"
"$TEMPER" bench --model tests/golden/llama --device cuda --whole --prompt-tokens 8 --new-tokens 24 --rows 4 --repeat 1 --json |
    python3 -c 'import json, sys; plays = [d["plays"] for d in json.load(sys.stdin)["decode"]]; print("plays", plays); sys.exit(0 if all(plays) else 1)'

if [ "${1-}" = --short ]; then
    step "short: all holds"
    exit 0
fi

step "laws, transformers' numbers, causal map, sweep and speed"
scripts/check_device.sh cuda
step "all holds"
