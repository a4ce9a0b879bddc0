#!/usr/bin/env bash
# Checks everything, the real model included: formatting, lints, tests, documentation, npz files in numpy, the quickstart.
# Needs Rust, Python 3 with pip, and compilers for C and C++. A second run fetches and builds only what changed.
set -euo pipefail
cd "$(dirname "$0")/.."

# A shell without job control has what it begins with `&` ignore Ctrl-C, and temper keeps what it is told to ignore: the tests that stop it
# would wait for its end.
if ! python3 -c 'import signal, sys; sys.exit(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)'; then
  restore='import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); os.execvp("bash", ["bash", *sys.argv[1:]])'
  exec python3 -c "$restore" scripts/test.sh "$@"
fi

step() { printf '\n== %s (%ss)\n' "$*" "$SECONDS" >&2; }

step "the real model"
scripts/fetch_model.sh
export HEADTEMPER_REQUIRE_MODEL=1

step "formatting and lints"
cargo fmt --all -- --check
cargo clippy --release --locked --workspace --all-targets -- -D warnings

step "tests"
# Always the whole workspace: another choice of packages has other features, and recompiles everything they depend on.
cargo build --release --locked --workspace --bins --tests
export TEMPER=$PWD/target/release/temper
cargo test --release --locked --workspace
step "the library's example"
target/release/examples/temper_heads
step "tests on the portable kernels"
HEADTEMPER_SIMD=portable cargo test --release --locked --workspace --test it -- golden laws

step "all code for CUDA, linted"
scripts/build-cuda.sh --check
step "all that the host does for a CUDA device, on the stand-in driver"
scripts/test_cuda.sh

step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --release --locked --workspace --no-deps --quiet

step "npz files in numpy"
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -c 'import numpy, jsonschema' 2>/dev/null || .venv/bin/python -m pip install --quiet 'numpy>=2,<3' 'jsonschema>=4,<5'
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
temper=target/release/temper
head -n 12 configs/data/questions.jsonl > "$out/items.jsonl"
$temper capture --model tests/golden/llama --items "$out/items.jsonl" --out "$out/tiny.npz" --layers all --heads vector --logits --plan L0H1:0.5
$temper capture --model tests/golden/qwen3_5 --items "$out/items.jsonl" --out "$out/hybrid.npz" --layers 3 --heads vector --plan L0V1:0.5
$temper capture --model models/SmolLM2-135M-Instruct.Q4_1.gguf --items "$out/items.jsonl" --out "$out/real.npz" --layers 0,29
$temper capture --model tests/golden/llama --items "$out/items.jsonl" --out "$out/pooled.npz" --layers last:2 --mean-layers 2 --pool last:4 --part-items 5
$temper capture --model tests/golden/llama --items "$out/items.jsonl" --out "$out/written.npz" --heads none --pool response --generate --max-new-tokens 8 --part-items 5
.venv/bin/python scripts/check_npz.py "$out/pooled.npz" --items "$out/items.jsonl"
.venv/bin/python scripts/check_npz.py "$out/written.npz" --items "$out/items.jsonl"
.venv/bin/python scripts/check_npz.py "$out/tiny.npz" --items "$out/items.jsonl"
.venv/bin/python scripts/check_npz.py "$out/hybrid.npz" --items "$out/items.jsonl"
.venv/bin/python scripts/check_npz.py "$out/real.npz" --items "$out/items.jsonl"

step "what this machine has, and whether it computes what it should"
$temper doctor
$temper verify models/SmolLM2-135M-Instruct.Q4_1.gguf

step "the main job on 40 questions, then again: nothing may be done twice"
run="$temper run configs/quickstart.toml --limit 40 --out $out/quickstart"
status=0; $run || status=$?
[ "$status" -le 1 ] || exit "$status" # 1: with few questions a cohort may be below the experiment's own minimum
before=$(cat "$out"/quickstart/rows.jsonl "$out"/quickstart/features.npz | sha256sum)
status=0; $run 2> "$out/second.log" || status=$?
[ "$status" -le 1 ] && grep -q "nothing left to do" "$out/second.log"
[ "$before" = "$(cat "$out"/quickstart/rows.jsonl "$out"/quickstart/features.npz | sha256sum)" ]
.venv/bin/python scripts/check_npz.py "$out/quickstart/features.npz"

step "its answers again under the paper's dispositions, with controls, and as the paper's scripts compute it"
attribute="$temper attribute --model models/SmolLM2-135M-Instruct.Q4_1.gguf --items $out/quickstart/judged.jsonl --shuffles 100"
$attribute --dispositions configs/dispositions.toml --control shuffled,random --out "$out/dispositions" > "$out/dispositions.md"
$attribute --a cw --b cr --compat dd --out "$out/dd" > "$out/dd.md"
.venv/bin/python scripts/check_schema.py "$out"/{quickstart,dispositions,dd}/attribution.json

step "two heads on two of its answers, in two parts, merged"
score="$temper score --model models/SmolLM2-135M-Instruct.Q4_1.gguf --items $out/quickstart/judged.jsonl --limit 2 --heads L2H5,L15H7 --lambda 1,0"
$score --out "$out/part1" --shard 1/2
$score --out "$out/part2" --shard 2/2
$temper merge "$out/score" "$out/part1" "$out/part2"
.venv/bin/python scripts/check_npz.py "$out/score/scores.npz"

step "its answers through the gates of a probe: whatever the verdict, it must be one"
$temper capture --model models/SmolLM2-135M-Instruct.Q4_1.gguf --items "$out/quickstart/judged.jsonl" --layers last:4 --heads none --out "$out/answers.npz"
.venv/bin/python scripts/check_npz.py "$out/answers.npz"
cat > "$out/gate.toml" <<'TOML'
name = "answers"
[train]
features = "answers.npz:h_last"
labels = "answers.npz:label==cr|hr"
items = "quickstart/judged.jsonl"
where = 'topic == "capitals"'
[fresh]
features = "answers.npz:h_last"
labels = "answers.npz:label==cr|hr"
items = "quickstart/judged.jsonl"
where = 'topic != "capitals"'
[pooled]
train = "answers.npz:h_layers[-4:]"
fresh = "answers.npz:h_layers[-4:]"
TOML
status=0; $temper falsify "$out/gate.toml" --out "$out/falsify" || status=$?
[ "$status" -eq 0 ] || [ "$status" -eq 3 ] || [ "$status" -eq 4 ]
$temper gate --model models/SmolLM2-135M-Instruct.Q4_1.gguf --items "$out/quickstart/judged.jsonl" --probe "$out/falsify" --threshold 0.5 --hedges configs/data/hedges.txt --out "$out/gated"

step "all good"
