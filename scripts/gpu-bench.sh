#!/usr/bin/env bash
# Measures what a CUDA device reaches, in one run: each kernel against the card's own copy and matrix product, and whole jobs against
# transformers with hooks. Needs built files (scripts/build-cuda.sh), scripts and configs/models; DEVICE=N chooses another card. The
# contender needs a Python (PYTHON names it) with transformers and torch for this card, and has PATIENCE=1800 seconds a job; PATIENCE=0
# leaves it out. Prints JSON lines, and tables that compare them with the goals (scripts/gpu_report.py), rewritten after each model;
# WHERE=DIR (or OUT) also keeps both there. Ours runs first. A failure is reported and the rest goes on; exits 1 if it was ours.
#
#   scripts/gpu-bench.sh             kernels, and jobs of all three models
#   scripts/gpu-bench.sh kernels     kernels alone
#   scripts/gpu-bench.sh jobs qwen3-0.6b
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/cuda_env.sh
python=${PYTHON:-python3}
work=$(mktemp -d) # items, logs and what jobs write
trap 'rm -rf "$work"' EXIT
where=${WHERE:-${OUT:-$work/results}}
patience=${PATIENCE:-1800}
mkdir -p "$where"
tell() { tee -a "$where/results.jsonl"; }
rm -f "$where/missed.txt"
failed=0
lack() { echo "$* not measured" | tee -a "$where/missed.txt" >&2; }
miss() { # the same for a measurement of ours
    failed=1
    lack "$@"
}
# Seconds of a job: the difference of two runs, one with twice the work, so that the start-up of both does not count.
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
echo "sources $sources" | tee -a "$where/card.txt"

# Results of another card or build, in a folder that has some, are not of this one.
of=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2> /dev/null || true; echo "sources $sources")
if [ -s "$where/results.jsonl" ] && [ "$of" != "$(cat "$where/of.txt" 2> /dev/null)" ]; then
    mv "$where/results.jsonl" "$where/results.before.jsonl"
    echo "earlier results are of another card or build: $where/results.before.jsonl" >&2
fi
printf '%s\n' "$of" > "$where/of.txt"
touch "$where/results.jsonl"

if [ "${1-kernels}" = kernels ]; then
    "$built/kernels-bench" | tell || miss "some kernels were"
fi
if ! grep -q '"ceiling: product"' "$where/results.jsonl"; then
    "$built/kernels-bench" ceilings | tell || miss "the card's copy and product were"
fi
# The tables of the results so far; without ceilings there are none.
report() { python3 scripts/gpu_report.py "$where/results.jsonl" "$TEMPER" > "$where/report.md" || failed=1; }
finish() {
    report
    cat "$where/report.md"
    [ ! -e "$where/missed.txt" ] || cat "$where/missed.txt" >&2
    exit $failed
}
[ "${1-}" != kernels ] || finish

models=${2:-qwen3-0.6b qwen3.5-0.8b gemma-4-e2b}
for model in $models; do
    config=configs/models/$model.json
    run() { "$TEMPER" "$@" --model "$config" --random 1 --device "cuda:${DEVICE:-0}" --dtype bf16; }
    write() { run bench --prompt-tokens 128 --whole --json "$@" | tell || miss "bench $* of $model was"; }
    # J1: 100 prompts of 128 tokens, 256 new ones, under 1 plan and under each of 20; then 256 rows under 1, 16 and 256 plans.
    write --new-tokens 256 --rows 100 --plans 1
    write --new-tokens 256 --rows 2000 --plans 20 --repeat 1
    write --new-tokens 256 --rows 256 --plans 1,16,256
    # The same prompts, of which 96 tokens are a common beginning: read once, and copied into the cache of every row.
    write --new-tokens 256 --rows 256 --plans 1 --shared-tokens 96
    # The same step by step, without recordings, to show what they save.
    write --new-tokens 64 --rows 100 --plans 1 --no-graph
    # J2: 200 texts of 1000 tokens with the norms of all heads; J3: part of a causal map.
    python3 - "$config" "$work" <<'END'
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
    # Four heads of each of five layers, by the model's own names: L0H0, or L0V0 in a delta net.
    heads=$("$TEMPER" inspect "$config" --json | python3 -c '
import json, sys
layers = json.load(sys.stdin)["layers"]
first = [layers[i * (len(layers) - 1) // 4]["first_head"][:-1] for i in range(5)]
print(",".join(name + str(head) for name in dict.fromkeys(first) for head in range(4)))')
    rm -rf "$work"/j[23].*.out*
    for work_of in once twice; do
        j2=$work/j2.$work_of j3=$work/j3.$work_of
        run capture --items "$j2.jsonl" --heads norm --layers none --out "$j2.out.npz" > "$j2.log" 2>&1 || cat "$j2.log" >&2
        run score --items "$j3.jsonl" --heads "$heads" --lambda 0,0.5 --shuffles 20 --out "$j3.out" > "$j3.log" 2>&1 || cat "$j3.log" >&2
    done
    told J2 "$config" "$work"/j2.{once,twice}.log || miss "J2 of $model was"
    told J3 "$config" "$work"/j3.{once,twice}.log || miss "J3 of $model was"
    report
done
# Theirs after all of ours, so that our numbers are there whatever happens to it.
[ "$patience" != 0 ] || finish
for model in $models; do
    for job in J1 J2 J3; do
        timeout -k 30 "$patience" "$python" scripts/gpu_peer.py "configs/models/$model.json" $job "cuda:${DEVICE:-0}" | tell || lack "transformers' $job of $model was"
    done
    report
done
finish
