#!/usr/bin/env bash
# Checks a device that has not been verified yet, in one command: scripts/check_device.sh cuda (or metal, or cpu to see what
# a sound device prints). Builds for it, then runs doctor, the laws and parity with transformers on the four tiny models,
# the causal map branched, plain and on the CPU, a sweep against the CPU's, and decode speed over the number of plans.
# Needs Rust, Python 3, and the toolkit of the device. TEMPER=FILE uses that binary as it is, and then needs no Rust and no
# toolkit. Exits 0 if all holds.
set -euo pipefail
cd "$(dirname "$0")/.."
device=${1:?say which device: cuda, cuda:1, metal or cpu}
case $device in
    cpu) features=() ;;
    cuda*) features=(--features cuda) ;;
    metal) features=(--features metal) ;;
    *) echo "device is '$device', but must be cuda, cuda:N, metal or cpu" >&2; exit 2 ;;
esac
step() { printf '\n== %s\n' "$*" >&2; }

temper=${TEMPER-}
if [ -z "$temper" ]; then
    step "build"
    cargo build --release --locked -p headtemper-cli "${features[@]}"
    temper=${CARGO_TARGET_DIR:-target}/release/temper
fi
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
cat > "$out/items.jsonl" <<'END'
{"id":"a","prompt":"Name the capital of France.","response":"The capital of France is Paris."}
{"id":"b","prompt":"Name the capital of Spain, in a word.","response":"Madrid, I think."}
{"id":"c","prompt":"Name a river.","response":"The Rhine is a river, and so is the Rhone."}
END

step "doctor"
$temper doctor
for family in llama qwen3 qwen3_5 gemma4; do
    model=tests/golden/$family
    step "$family: laws and parity"
    $temper verify --model "$model" --device "$device" --dtype f32 --golden "$model/golden.safetensors"
    step "$family: the causal map three ways, and a sweep"
    score() { $temper score --model "$model" --dtype f32 --items "$out/items.jsonl" --lambda 1,0.5,0 --shuffles 20 "$@" > /dev/null; }
    sweep() { $temper sweep --model "$model" --dtype f32 --items "$out/items.jsonl" --heads all --lambda 1,1,0.5 --max-new-tokens 16 "$@" > /dev/null; }
    score --device "$device" --out "$out/$family.branched"
    score --device "$device" --plain --out "$out/$family.plain"
    score --device cpu --out "$out/$family.cpu"
    sweep --device "$device" --out "$out/$family.sweep"
    sweep --device cpu --out "$out/$family.sweep-cpu"
    python3 - "$out/$family" <<'END'
import csv, json, sys

def cells(way):
    with open(f"{sys.argv[1]}.{way}/scores.csv") as file:
        return {(r["head"], r["lambda"], r["id"]): r for r in csv.DictReader(file)}

def rows(way):
    return {(r["id"], r["variant"]): r["response_ids"] for r in map(json.loads, open(f"{sys.argv[1]}.{way}/rows.jsonl"))}

branched = cells("branched")
allowed = {"plain": 2e-3, "cpu": 5e-3}  # nats a token; measured on an H200: 7.5e-6 and 4.5e-5
sound = len(branched) > 0
for way, most in allowed.items():
    others = cells(way)
    assert others.keys() == branched.keys()
    off = max(abs(float(a[k]) - float(others[at][k])) / int(a["tokens"]) for at, a in branched.items() for k in ("delta_logprob", "kl"))
    print(f"branched against {way}: {off:.1e} of {most:.0e} nats a token")
    sound &= off <= most
ours, cpu = rows("sweep"), rows("sweep-cpu")
assert ours.keys() == cpu.keys() and ours
same = sum(ours[k] == cpu[k] for k in ours)
print(f"answers equal to the CPU's: {same} of {len(ours)}")
sound &= same >= 0.9 * len(ours)  # at a near tie one of them may take the other token
sys.exit(0 if sound else 1)
END
done

step "speed over the number of plans"
# Fewer rows and plans on a CPU, which would take minutes for what a GPU hardly notices.
if [ "$device" = cpu ]; then rows=4 plans=0,1,4,0; else rows=64 plans=0,1,16,64,0; fi
$temper bench --model configs/models/qwen3-0.6b.json --random 1 --device "$device" --dtype bf16 --prompt-tokens 64 --new-tokens 16 \
    --repeat 2 --rows "$rows" --plans "$plans" --whole
step "all holds"
