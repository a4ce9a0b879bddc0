#!/usr/bin/env bash
# Checks a CUDA device, in one command and from built files alone: target/cuda (made by scripts/build-cuda.sh, on any machine),
# tests/golden, configs/models and scripts. Needs a driver for CUDA 13.0, CUDA's libraries somewhere on the machine, and Python 3; no
# network, no Rust. Goes through all steps whatever fails, and lists how each ended; exits 0 if all hold, within 8 minutes. The full
# output is in OUT (target/gpu-check), one file per step.
#
#   scripts/gpu-check.sh             everything
#   scripts/gpu-check.sh --short     each kernel against its oracle, and the tiny models
#
# STALE=1 checks files even if they were built from other sources than this tree's; LIMIT=SECONDS is the most that one program may take.
set -uo pipefail
cd "$(dirname "$0")/.."
case ${1-} in '' | --short) ;; *) sed -n '7,11s/^# \{0,1\}//p' "$0" >&2; exit 2 ;; esac
short=${1-}
source scripts/cuda_env.sh

logs=${OUT:-$PWD/target/gpu-check}
mkdir -p "$logs"
rm -f "$logs"/*.log "$logs/summary.txt"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
exec 3>&1 # for what is worth a line even when all is well

# A device that hangs must not keep later steps from running. The stand-in driver gets longer: it is merely slow.
limit=${LIMIT:-$([ -n "$short" ] && echo 3600 || echo 240)}
temper() { timeout "$limit" "$TEMPER" "$@"; }
say() {
    printf '%s\n' "$*"
    printf '%s\n' "$*" >&3
}
# Says what a command prints, and returns its status.
tell() {
    local said status=0
    said=$("$@") || status=$?
    say "$said"
    return $status
}

failed=0 count=0
# step NAME FUNCTION...: runs the function with its output in a file, and notes how it ended. Never call it behind `||` or in an `if`:
# the function would then go on after a command that failed.
step() {
    local name=$1 began=$SECONDS status log ended=passed
    shift
    count=$((count + 1))
    log=$logs/$(printf '%02d' "$count")-$1.log
    printf '\n== %s (%ss)\n' "$name" "$SECONDS"
    (set -e; "$@") > "$log" 2>&1
    status=$?
    if [ $status != 0 ]; then
        ended=FAILED failed=$((failed + 1))
        echo "FAILED with $status; all of it is in $log"
        grep -nE 'panicked at|FAILED|^error' "$log" | head -n 20 | cut -c 1-240
        echo "..."
        tail -n 15 "$log" | cut -c 1-240
    fi
    printf '%-7s %4ss  %s\n' "$ended" $((SECONDS - began)) "$name" >> "$logs/summary.txt"
}
skip() { printf '%-7s %4s   %s\n' skipped - "$*" >> "$logs/summary.txt"; }

# Short checks.

there() {
    say "$(date -u +%F)"
    say "$(nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total,clocks.max.sm --format=csv 2> /dev/null || echo "nvidia-smi does not say which card this is")"
    tell "$TEMPER" --version
}
recorded() { # MODEL OPTIONS...: whether its steps are recorded
    temper bench --model "$@" --device cuda --whole --prompt-tokens 8 --new-tokens 24 --rows 4 --repeat 1 --json > "$work/bench.json"
    tell python3 -c 'import json, sys
decode = json.load(open(sys.argv[1]))["decode"]
print("recordings were played:", [d["plays"] for d in decode], "of launches a step:", [d["launches"] for d in decode])
sys.exit(0 if decode and all(d["plays"] for d in decode) else 1)' "$work/bench.json"
}
families="llama qwen3 qwen3_5 gemma4"
step "what is there" there
for family in $families; do step "$family: steps are recorded at all" recorded "tests/golden/$family"; done

# Kernels against their oracles.

tested() { # PROGRAM TESTS...: runs these tests of a test binary
    local status=0
    # Golden files are those of this tree, not those where the program was built.
    HEADTEMPER_TESTS=$PWD/tests HEADTEMPER_TEST_DEVICE=cuda timeout "$limit" "$@" --test-threads 1 --nocapture > "$work/tested" 2>&1 || status=$?
    cat "$work/tested"
    grep '^test result' "$work/tested" >&3 || true
    grep -qE '^test result: ok\. [1-9]' "$work/tested" || status=1 # running no test at all is not a success
    return $status
}
kernels() { tested "$built/kernels-check" gpu::; }
step "each kernel against its oracle, in f32, bf16 and f16" kernels

# Goldens.

holds() { # OPTIONS...: runs temper verify and says its last line
    local status=0
    temper verify "$@" > "$work/verify" || status=$?
    cat "$work/verify"
    say "$2: $(tail -n 1 "$work/verify")"
    return $status
}
halves() { holds --model "tests/golden/$1" --device cuda --dtype bf16 --golden "tests/golden/$1/golden.safetensors" --quick; }
for family in $families; do step "$family in bf16 against transformers in f32" halves "$family"; done
plain() { HEADTEMPER_KERNELS=plain holds --model "tests/golden/$1" --device cuda --dtype "$2" --golden "tests/golden/$1/golden.safetensors" --quick; }
step "qwen3_5 with candle's own operations in the place of our kernels, f32" plain qwen3_5 f32
if [ -z "$short" ]; then # minutes each on the stand-in
    step "gemma4 with candle's own operations, f32" plain gemma4 f32
    for family in $families; do step "$family with candle's own operations, bf16" plain "$family" bf16; done
fi

# Recordings.

cat > "$work/same.py" <<'END'
"""Whether two sweeps wrote the same: FOLDER.played and FOLDER.alone, the least share of equal answers, and how many must have been stopped."""
import json, sys

played, alone = ({r["key"]: r for r in map(json.loads, open(f"{sys.argv[1]}.{way}/rows.jsonl"))} for way in ("played", "alone"))
assert played.keys() == alone.keys() and played, "not the same rows"
least, stopped = float(sys.argv[2]), int(sys.argv[3])
same = sum(played[key]["response_ids"] == alone[key]["response_ids"] for key in played)
ends = sum(row["finish_reason"] == "stop" for row in played.values())
print(f"{sys.argv[1].rsplit('/', 1)[1]}: {same} of {len(played)} answers are the same, {ends} of them stopped")
sys.exit(0 if same >= least * len(played) and ends >= stopped else 1)
END
# beside NAME LEAST STOPPED OPTIONS...: compares a sweep whose steps are played back with one whose steps are launched one by one.
beside() {
    local name=$1 least=$2 stopped=$3
    shift 3
    temper sweep "$@" --device cuda --heads all --lambda 1,0.5 --out "$work/$name.played" > /dev/null
    temper sweep "$@" --device cuda --heads all --lambda 1,0.5 --out "$work/$name.alone" --no-graph > /dev/null
    tell python3 "$work/same.py" "$work/$name" "$least" "$stopped"
}
# Prompts, and token ids for models without a tokenizer. The first row of ids crosses 512 keys as it is continued. No two begin alike.
python3 - "$work" <<'END'
import json, random, sys

draw = random.Random(0)
with open(f"{sys.argv[1]}/prompts.jsonl", "w") as file:
    for i in range(1, 6):
        print(json.dumps({"id": str(i), "prompt": f"Name a river, a town and {i} more things."}), file=file)
for name, lengths in [("ids", [500, 5, 30, 9]), ("few", [40, 5, 30, 9])]:
    with open(f"{sys.argv[1]}/{name}.jsonl", "w") as file:
        for i, length in enumerate(lengths):
            print(json.dumps({"id": str(i), "input_ids": [draw.randrange(40, 300) for _ in range(length)]}), file=file)
# Tiny models with a longer context, and with many tokens that end an answer.
for name in ("llama", "qwen3"):
    config = json.load(open(f"tests/golden/{name}/config.json"))
    config |= {"max_position_embeddings": 1100, "eos_token_id": list(range(20, 32))}
    json.dump(config, open(f"{sys.argv[1]}/{name}.json", "w"))
END
for name in llama qwen3; do
    mkdir "$work/$name"
    cp tests/golden/$name/{model.safetensors,tokenizer.json,tokenizer_config.json} "$work/$name"
    mv "$work/$name.json" "$work/$name/config.json"
done
# Eight rows that all end together, so that both ways compute the same products: cuBLAS may change its order of sums with the number
# of rows.
even=(--max-rows 8 --seeds 1,2 --ignore-eos --max-new-tokens 25)
drawn=(--temperature 0.9 --top-k 40 --top-p 0.95)
# Where rows end one by one, a near tie may fall the other way, more often in 16 bits; most answers must still agree.
greedy() { beside "$1-greedy" 0.9 0 --model "tests/golden/$1" --dtype f32 --items "$work/prompts.jsonl" --max-new-tokens 24; }
sampled() { beside "$1-sampled" 0.9 0 --model "tests/golden/$1" --dtype bf16 --items "$work/few.jsonl" "${even[@]}" "${drawn[@]}"; }
crossing() { beside "$1-crossing-$2" 0.9 0 --model "$work/$1" --dtype "$2" --items "$work/ids.jsonl" "${even[@]}" "${drawn[@]}"; }
stopping() { beside "$1-stopping-$2" "$3" 4 --model "$work/$1" --dtype "$2" --items "$work/few.jsonl" --max-rows 8 --seeds 1,2 --max-new-tokens 40 "${drawn[@]}"; }
for family in $families; do
    step "$family: recorded steps write what single steps do, in f32" greedy "$family"
    step "$family: the same of drawn tokens in bf16" sampled "$family"
done
if [ -z "$short" ]; then # ten minutes each on the stand-in, where the laws of recordings cover it in f32
    step "the same beyond 512 keys, in f32" crossing llama f32
    step "the same beyond 512 keys, in bf16" crossing qwen3 bf16
fi
step "the same with stop tokens, in f32" stopping qwen3 f32 0.9
step "the same with stop tokens, in bf16" stopping llama bf16 0.5
played() { tested "$built/it" played:: chosen::; }
sized() { tested "$built/it" real_heads::; }
if [ -x "$built/it" ]; then
    step "the laws of recordings and of the choice" played
    step "heads of the real sizes in bf16, beside the CPU" sized
elif [ -n "$short" ]; then
    skip "the laws of recordings, heads of the real sizes: $built has no tests of models"
else
    missing() { say "$built has no tests of models (it): build with scripts/build-cuda.sh"; return 1; }
    step "the laws of recordings, heads of the real sizes" missing
fi

# Laws and jobs at real sizes, with random weights.

real() { holds --model "configs/models/$1.json" --random 1 --device cuda --dtype bf16 --quick; }
real_sampled() { beside "$1" 0.9 0 --model "configs/models/$1.json" --random 1 --dtype bf16 --items "$work/ids.jsonl" "${even[@]}" "${drawn[@]}"; }
if [ -z "$short" ]; then
    for model in qwen3-0.6b qwen3.5-0.8b; do
        step "$model: the laws in bf16" real "$model"
        step "$model: steps are recorded" recorded "configs/models/$model.json" --random 1 --dtype bf16
        step "$model: recorded steps write what single steps do, beyond 512 keys, in bf16" real_sampled "$model"
    done
    whole() { TEMPER="timeout $limit $TEMPER" scripts/check_device.sh cuda; }
    step "laws, transformers' numbers, causal map, sweep and speed" whole
    if [ $SECONDS -lt 240 ]; then step "gemma-4-e2b: the laws in bf16" real gemma-4-e2b; else skip "gemma-4-e2b: the laws in bf16"; fi
fi

# Faults.

refused() {
    local said
    if said=$("$TEMPER" inspect --model tests/golden/llama --device "$1" 2>&1); then
        echo "--device $1 was not refused" >&2
        return 1
    fi
    printf '%s\n' "$said"
    grep -q "$2" <<< "$said"
}
faults() {
    refused cuda:99 'there is no device 99'
    CUDA_VISIBLE_DEVICES='' refused cuda 'cannot be used'
    CUDA_VISIBLE_DEVICES='' temper verify --quick tests/golden/llama --device auto
}
# full MODEL ROWS LENGTH OPTIONS...: every row has a slot for a prompt of that length, too much for any card, though all but one are short.
full() {
    local model=$1 rows=$2 length=$3 status=0
    shift 3
    python3 - "$rows" "$length" > "$work/full.jsonl" <<'END'
import json, random, sys

draw = random.Random(0)
for i in range(int(sys.argv[1])):
    print(json.dumps({"id": str(i), "input_ids": [draw.randrange(40, 300) for _ in range(int(sys.argv[2]) if i == 0 else 4)]}))
END
    job=(sweep --model "$model" "$@" --device cuda --items "$work/full.jsonl" --heads L0H0 --lambda 1 --max-new-tokens 4 --max-rows "$rows" --out "$work/full")
    temper "${job[@]}" --memory 10TB > "$work/full.said" 2>&1 || status=$?
    cat "$work/full.said"
    say "$(grep -m 1 'no memory left' "$work/full.said" | cut -c 1-200)"
    [ $status = 2 ] || { say "ended with $status, not 2"; return 1; }
    grep -q 'no memory left, though no more than .* was planned' "$work/full.said"
    temper "${job[@]}"
    [ "$(wc -l < "$work/full/rows.jsonl")" = "$rows" ] || { say "not all $rows rows are there"; return 1; }
}
step "faults are said" faults
# 1.8 TB of keys and values.
if [ -z "$short" ]; then
    step "a device that is full says so, and the job then takes what is there" full configs/models/qwen3-0.6b.json 512 30000 --random 1 --dtype bf16
fi

# Last, because it is slow and may not finish; what it says until then counts.

watch=${WATCH:-$((SECONDS < 280 ? 90 : 45))}
watched() {
    local said status=0 filter
    # The program takes tests that any filter names: one that names none would not be missed.
    for filter in "${@:2}"; do
        [ -n "$("$built/kernels-check" --list "$filter" 2> /dev/null | grep ': test$')" ] || { say "no test is called $filter"; return 1; }
    done
    said=$(HEADTEMPER_TEST_DEVICE=cuda timeout "$watch" "$sanitizer" --error-exitcode 9 --tool "$1" "$built/kernels-check" --test-threads 1 "${@:2}" 2>&1) || status=$?
    printf '%s\n' "$said"
    # Its own troubles are no findings: that it cannot watch this card, or that the program it watched was ended.
    if grep -Eq '^=+ .*(Invalid |Race reported|Program hit|SUMMARY: [1-9])' <<< "$said"; then
        say "compute-sanitizer's $1 found something"
        grep '^=' <<< "$said" | head -n 40 >&3
        return 1
    fi
    if [ $status = 9 ] || grep -q '^test .* FAILED$' <<< "$said"; then
        say "compute-sanitizer's $1 ended with $status, and the program it watched failed"
        grep '^test .* FAILED$' <<< "$said" >&3 || true
        return 1
    fi
    case $status in
        0) say "compute-sanitizer's $1 found nothing" ;;
        124) say "compute-sanitizer's $1 found nothing in the $watch s that it had, behind $(grep -c '^test .* ok$' <<< "$said" || true) tests" ;;
        *) say "compute-sanitizer's $1 ended with $status: nothing was watched" ;;
    esac
}
if sanitizer=$(command -v "${SANITIZER-compute-sanitizer}"); then
    step "memory of the kernels, watched" watched memcheck gpu::tests::rows gpu::tests::ranges gpu::tests::delta::long gpu::tests::delta_step \
        gpu::tests::conv gpu::tests::attention gpu::tests::sample
    step "races of the kernels, watched" watched racecheck gpu::tests::ranges gpu::tests::delta::long gpu::tests::delta_step gpu::tests::attention::tiles \
        gpu::tests::attention::single gpu::tests::sample::flat
else
    skip "compute-sanitizer is not here: memory and races were not watched"
fi

printf '\n== %s\n' "built of sources $sources, after $SECONDS s"
cat "$logs/summary.txt"
if [ $failed != 0 ]; then
    echo "$failed of $count steps FAILED"
    exit 1
fi
echo "all $count steps hold${short:+ (short)}"
