#!/usr/bin/env bash
# Runs the kernels' tests on aarch64 (NEON) under qemu, for machines of another architecture; not part of test.sh, nor of CI.
# Needs Rust's standard library for the target (rustup target add aarch64-unknown-linux-gnu) and, in Debian's names,
# gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user or qemu-user-static. Arguments go to the tests.
# Where these have other names, set cargo's own CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER and _RUNNER.
set -euo pipefail
cd "$(dirname "$0")/.."

qemu=$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)
: "${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER:=aarch64-linux-gnu-gcc}"
: "${CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER:=${qemu:?no qemu-aarch64 here} -L /usr/aarch64-linux-gnu}"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER

cargo test --release --locked -p headtemper-kernels --lib --target aarch64-unknown-linux-gnu -- "$@"
