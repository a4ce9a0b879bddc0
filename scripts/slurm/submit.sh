#!/usr/bin/env bash
# A sweep in N parts, and a job that joins them when all are done:
#
#     scripts/slurm/submit.sh N OUT --model M --items F.jsonl --heads all --each --lambda 1,1,0
#
# Submitted again after a failure, it does only what is left. Options for sbatch, such as --cpus-per-task=4 --time=1:00:00
# --partition=gpu --gres=gpu:1, go into $SBATCH_OPTIONS. Prints the number of the merge job.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

n=$1 out=$2
shift 2
mkdir -p "$out.shards"
read -ra options <<< "${SBATCH_OPTIONS:-}"
array=$(sbatch --parsable "${options[@]}" --array="1-$n" --output="$out.shards/%a.log" "$here/sweep.sbatch" "$out" "$@")
sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes --output="$out.shards/merge.log" \
    "$here/merge.sbatch" "$out" "$n"
