#!/usr/bin/env bash
# Runs one job on all GPUs of this machine: one process per GPU does a share, and the shares are merged at the end.
#
#   scripts/all_gpus.sh OUT sweep --model Qwen/Qwen3-0.6B --items items.jsonl --heads all --lambda 0,0.5
#
# OUT gets a directory for each share, and OUT/all holds the whole; run again, it goes on where it stopped. GPUS=N says how many GPUs,
# CUDA_VISIBLE_DEVICES which ones (numbers, or names of GPUs or of their MIG instances); DEVICE=cpu uses the CPU instead. For several
# machines, see scripts/slurm.
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }
out=$1
shift
temper=${TEMPER:-temper}
visible=()
if [ -n "${CUDA_VISIBLE_DEVICES+set}" ]; then
    IFS=',' read -r -a visible <<< "$CUDA_VISIBLE_DEVICES" # nvidia-smi ignores it
    GPUS=${GPUS:-${#visible[@]}}
fi
gpus=${GPUS:-$(nvidia-smi --list-gpus | grep -c '^GPU ')}
[ "$gpus" -ge 1 ] || { echo "there is no GPU to run on; GPUS=N says how many" >&2; exit 2; }
mkdir -p "$out"

processes=()
trap 'kill "${processes[@]}" 2> /dev/null || true' INT TERM
for ((i = 1; i <= gpus; i++)); do
    device=${DEVICE:-cuda:$((i - 1))} own=()
    if [ -z "${DEVICE-}" ] && [ $i -le ${#visible[@]} ]; then
        # A process sees at most one MIG instance, the first that it is given, so each process gets its own as device 0.
        own=("CUDA_VISIBLE_DEVICES=${visible[i - 1]}")
        device=cuda:0
    fi
    env "${own[@]}" "$temper" "$@" --device "$device" --shard "$i/$gpus" --out "$out/part-$i" > "$out/part-$i.out" 2> "$out/part-$i.log" &
    processes+=($!)
done
failed=0
for ((i = 1; i <= gpus; i++)); do
    wait "${processes[$((i - 1))]}" || { echo "part $i failed; see $out/part-$i.log" >&2; failed=1; }
done
[ "$failed" = 0 ] || exit 1
parts=()
for ((i = 1; i <= gpus; i++)); do parts+=("$out/part-$i"); done
rm -rf "$out/all"
"$temper" merge "$out/all" "${parts[@]}"
