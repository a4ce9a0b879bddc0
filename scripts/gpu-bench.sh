#!/usr/bin/env bash
# What a CUDA device reaches: each kernel beside the card's own copy and matrix product, and whole jobs beside transformers with
# hooks, all in one run. From built files (scripts/build-cuda.sh), scripts and configs/models; DEVICE=N is another card; the
# contender needs a Python with torch for this card and transformers, PYTHON names it. Prints JSON lines, and tables of them beside
# the goals (scripts/gpu_report.py); WHERE=DIR also keeps both there.
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
# Seconds of a job, from what two runs of it say, one with twice the work: what both begin with is not the job's.
told() {
    python3 - "$@" << 'END' | tell
import json, re, sys

def seconds(log):
    tokens, rate = re.search(r"done, .* (\d+) tokens, ([\d.]+) a second", open(log).read()).groups()
    return int(tokens) / float(rate)

job, config, once, twice = sys.argv[1:]
print(json.dumps({"job": job, "config": config, "ours": True, "seconds": seconds(twice) - seconds(once), "first_s": seconds(once)}))
END
}

{ nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,memory.total --format=csv,noheader || echo "nvidia-smi does not say which card this is"; } | tee "$where/card.txt"
date -u +%F | tee -a "$where/card.txt"

if [ "${1-kernels}" = kernels ]; then
    "$built/kernels-bench" | tell
elif ! grep -qs '"ceiling: product"' "$where/results.jsonl"; then
    "$built/kernels-bench" ceilings | tell
fi
report() { python3 scripts/gpu_report.py "$where/results.jsonl" "$TEMPER" | tee "$where/report.md"; }
if [ "${1-}" = kernels ]; then
    report
    exit 0
fi

models=${2:-qwen3-0.6b qwen3.5-0.8b gemma-4-e2b}
for model in $models; do
    config=configs/models/$model.json
    write() { run bench --prompt-tokens 128 --whole --json "$@" | tell || echo "bench $* of $model was not measured" >&2; }
    run() { "$TEMPER" "$@" --model "$config" --random 1 --device "cuda:${DEVICE:-0}" --dtype bf16; }
    # J1: 100 prompts of 128 tokens, 256 new ones, under 1 and each of 20 plans, and the number of plans alone at 256 rows.
    write --new-tokens 256 --rows 100 --plans 1
    write --new-tokens 256 --rows 2000 --plans 20 --repeat 1
    write --new-tokens 256 --rows 256 --plans 1,16,256
    # The same step by step, without recordings: what they save.
    write --new-tokens 64 --rows 100 --plans 1 --no-graph
    # J2: 200 texts of 1000 tokens with the norms of all heads; J3: part of a causal map.
    "$python" - "$config" "$where" <<'END'
import json, random, sys

config = json.load(open(sys.argv[1]))
vocab = config.get("text_config", config)["vocab_size"]
draw = random.Random(0)
ids = lambda count: [draw.randrange(1, vocab) for _ in range(count)]
for job, count, length, more in [("j2", 200, 1000, {}), ("j3", 8, 640, {"prompt_len": 128})]:
    lines = [json.dumps({"id": str(i), "input_ids": ids(length)} | more) + "\n" for i in range(2 * count)]
    open(f"{sys.argv[2]}/{job}.once.jsonl", "w").writelines(lines[:count])
    open(f"{sys.argv[2]}/{job}.twice.jsonl", "w").writelines(lines)
END
    for job in J1 J2 J3; do
        timeout 1800 "$python" scripts/gpu_peer.py "$config" $job "cuda:${DEVICE:-0}" | tell || echo "transformers did not run $job of $model" >&2
    done
    # Four heads of each of five layers, as they are called there: L0H0, or L0V0 in a delta net.
    heads=$("$TEMPER" inspect "$config" --json | python3 -c '
import json, sys
layers = json.load(sys.stdin)["layers"]
first = [layers[i * (len(layers) - 1) // 4]["first_head"][:-1] for i in range(5)]
print(",".join(name + str(head) for name in dict.fromkeys(first) for head in range(4)))')
    rm -rf "$where"/j[23].*.out*
    for work in once twice; do
        run capture --items "$where/j2.$work.jsonl" --heads norm --layers none --out "$where/j2.$work.out.npz" > "$where/j2.$work.log" 2>&1 || cat "$where/j2.$work.log" >&2
        run score --items "$where/j3.$work.jsonl" --heads "$heads" --lambda 0,0.5 --shuffles 20 --out "$where/j3.$work.out" > "$where/j3.$work.log" 2>&1 || cat "$where/j3.$work.log" >&2
    done
    told J2 "$config" "$where"/j2.{once,twice}.log || echo "J2 of $model was not measured" >&2
    told J3 "$config" "$where"/j3.{once,twice}.log || echo "J3 of $model was not measured" >&2
done
report
