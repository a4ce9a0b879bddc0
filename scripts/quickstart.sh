#!/usr/bin/env bash
# From nothing to a report: fetches the model if it is absent, builds, runs the main job, and says where the report is.
# Needs Rust, Python 3 with pip, and a C compiler. A second run fetches and builds nothing, and does only what is left.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/fetch_model.sh
cargo build --release --locked -p headtemper-cli
exec target/release/temper run configs/quickstart.toml "$@"
