#!/usr/bin/env bash
# What a CUDA device reaches: each kernel beside the card's own copy and matrix product, and whole jobs beside transformers with
# hooks, all in one run. From built files (scripts/build-cuda.sh), scripts and configs/models; DEVICE=N is another card; the contender needs a Python with torch for this card and
# transformers, PYTHON names it. Prints JSON lines; WHERE=DIR also keeps them there.
#
#   scripts/gpu-bench.sh             kernels, and jobs of all three models
#   scripts/gpu-bench.sh kernels     kernels alone
#   scripts/gpu-bench.sh jobs qwen3-0.6b
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/cuda_env.sh
python=${PYTHON:-python3}
where=${WHERE:-$(mktemp -d)}
mkdir -p "$where"
tell() { tee -a "$where/results.jsonl"; }
told() { python3 -c 'import json, sys, time; print(json.dumps({"job": sys.argv[1], "config": sys.argv[2], "ours": True, "whole_command_s": time.time() - float(sys.argv[3])}))' "$@" | tell; }

nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,memory.total --format=csv,noheader | tee "$where/card.txt"
date -u +%F | tee -a "$where/card.txt"

if [ "${1-kernels}" = kernels ]; then
    target/cuda/kernels-bench | tell
fi
[ "${1-}" != kernels ] || exit 0

models=${2:-qwen3-0.6b qwen3.5-0.8b gemma-4-e2b}
for model in $models; do
    config=configs/models/$model.json
    run() { "$TEMPER" "$@" --model "$config" --random 1 --device "cuda:${DEVICE:-0}" --dtype bf16; }
    # J1: 100 prompts of 128 tokens, 256 new ones, under 1 and 20 plans, and the number of plans alone at 256 rows.
    run bench --prompt-tokens 128 --new-tokens 256 --rows 100 --plans 1,20 --whole --json | tell
    run bench --prompt-tokens 128 --new-tokens 256 --rows 256 --plans 1,16,256 --whole --json | tell
    # The same step by step, without recordings: what they save.
    run bench --prompt-tokens 128 --new-tokens 64 --rows 100 --plans 1 --whole --json --no-graph | tell
    # J2: 200 texts of 1000 tokens with the norms of all heads; J3: part of a causal map.
    "$python" - "$config" "$where" <<'END'
import json, random, sys

config = json.load(open(sys.argv[1]))
vocab = config.get("text_config", config)["vocab_size"]
draw = random.Random(0)
ids = lambda count: [draw.randrange(1, vocab) for _ in range(count)]
with open(f"{sys.argv[2]}/j2.jsonl", "w") as file:
    for i in range(200):
        print(json.dumps({"id": str(i), "input_ids": ids(1000)}), file=file)
with open(f"{sys.argv[2]}/j3.jsonl", "w") as file:
    for i in range(8):
        print(json.dumps({"id": str(i), "input_ids": ids(640), "prompt_len": 128}), file=file)
END
    for job in J1 J2 J3; do
        "$python" scripts/gpu_peer.py "$config" $job | tell || echo "transformers did not run $job of $model" >&2
    done
    # The same work as the contender's J2 and J3, as whole commands: loading counts for ours.
    rm -rf "$where/j2.npz" "$where/j3"
    start=$(date +%s.%N)
    if run capture --items "$where/j2.jsonl" --heads norm --layers none --out "$where/j2.npz" > "$where/j2.log" 2>&1; then
        told J2 "$config" "$start"
    else
        cat "$where/j2.log" >&2
    fi
    # Four heads of each of five layers, as they are called there: L0H0, or L0V0 in a delta net.
    heads=$("$TEMPER" inspect "$config" --json | python3 -c '
import json, sys
layers = json.load(sys.stdin)["layers"]
first = [layers[i * (len(layers) - 1) // 4]["first_head"][:-1] for i in range(5)]
print(",".join(name + str(head) for name in first for head in range(4)))')
    start=$(date +%s.%N)
    if run score --items "$where/j3.jsonl" --heads "$heads" --lambda 0,0.5 --shuffles 20 --out "$where/j3" > "$where/j3.log" 2>&1; then
        told J3 "$config" "$start"
    else
        cat "$where/j3.log" >&2
    fi
done
