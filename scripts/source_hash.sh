#!/usr/bin/env bash
# A hash of all that is compiled, as it lies in this tree, with or without git: the same for the same files wherever they lie.
# scripts/build-cuda.sh writes it beside what it builds; what checks and measures a card says whether the tree is still that.
# Without sources (a tree of built files alone) it prints nothing and ends with 1.
set -euo pipefail
cd "$(dirname "$0")/.."
[ -d crates ] && [ -e Cargo.lock ] || exit 1
# configs/judge is compiled into the binary, tests into target/cuda/it. Files in a fixed order whatever the language of the machine is.
find crates tests/it tests/src tests/Cargo.toml configs/judge Cargo.toml Cargo.lock scripts/build-cuda.sh -type f -not -name '*.pyc' -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -c 1-16
