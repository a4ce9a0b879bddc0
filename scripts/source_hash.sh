#!/usr/bin/env bash
# A hash of everything that is compiled, from the files of this tree, with or without git: the same for the same files anywhere.
# scripts/build-cuda.sh writes it beside what it builds; the scripts that check or measure a card compare it with the tree.
# Without sources (a tree of built files alone) it prints nothing and exits 1.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d crates ] && [ -e Cargo.lock ] || exit 1
# configs/judge is compiled into the binary, tests into target/cuda/it. The order of files is the same in every locale.
find crates tests/it tests/src tests/Cargo.toml configs/judge Cargo.toml Cargo.lock scripts/build-cuda.sh -type f -not -name '*.pyc' -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-16
