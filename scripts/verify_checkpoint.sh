#!/usr/bin/env bash
# Checks a checkpoint on this machine against transformers, text side included, and against the laws of hooks.
#
#   scripts/verify_checkpoint.sh Qwen/Qwen3-0.6B        # a hub id, or a directory in Hugging Face form
#
# --revision R is a commit, branch or tag of a hub id; --out DIR keeps the golden files; all else goes to temper verify.
# Needs Rust, Python 3 with pip, a C compiler, and memory for the weights in float32. Exit codes: 0 all checks hold,
# 1 one does not, 2 could not run.
set -euo pipefail

usage() { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
step() { printf '\n== %s\n' "$*" >&2; }
trap 'exit 2' ERR

[ $# -ge 1 ] && [ "${1#-}" = "$1" ] || usage
model=$1; shift
revision=() out= rest=()
while [ $# -gt 0 ]; do
  case $1 in
    --revision) revision=(--revision "${2:?--revision lacks a value}"); shift 2 ;;
    --out) mkdir -p "${2:?--out lacks a value}"; out=$(cd "$2" && pwd); shift 2 ;;
    *) rest+=("$1"); shift ;;
  esac
done
[ ! -d "$model" ] || model=$(cd "$model" && pwd)
cd "$(dirname "$0")/.."

step "temper"
cargo build --release --locked -p headtemper-cli
temper=${CARGO_TARGET_DIR:-target}/release/temper

step "transformers"
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -c 'import gguf, safetensors, torch, transformers' 2>/dev/null \
  || .venv/bin/python -m pip install --quiet -r scripts/golden/requirements.txt
if [ -z "$out" ]; then
  out=$(mktemp -d)
  trap 'rm -rf "$out"' EXIT
fi
.venv/bin/python scripts/golden/make_checkpoint.py --model "$model" --out "$out" ${revision[@]+"${revision[@]}"}

step "temper verify"
status=0
"$temper" verify --model "$model" ${revision[@]+"${revision[@]}"} --golden "$out/golden.safetensors" \
  ${rest[@]+"${rest[@]}"} || status=$?
exit "$status"
