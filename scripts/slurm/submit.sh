#!/usr/bin/env bash
# A sweep, score or capture in N shards, and a job that merges them when all are done:
#
#     scripts/slurm/submit.sh N OUT sweep --model M --items F.jsonl --heads all --each --lambda 1,1,0
#     scripts/slurm/submit.sh N OUT.npz capture --model M --items F.jsonl --heads vector
#
# Submitted again after a failure, it does only what is left. Options for sbatch, such as --cpus-per-task=4 --time=1:00:00
# --partition=gpu --gres=gpu:1, go into $SBATCH_OPTIONS. Prints the number of the merge job.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 3 ] || { sed -n '2,8s/^# \{0,1\}//p' "$0" >&2; exit 2; }

n=$1 out=$2
shift 2
case $1 in
    sweep | score | capture) ;;
    *) echo "'$1' has no shards; after N and OUT comes sweep, score or capture" >&2; exit 2 ;;
esac
mkdir -p "$out.shards"
read -ra options <<< "${SBATCH_OPTIONS:-}"
array=$(sbatch --parsable "${options[@]}" --array="1-$n" --output="$out.shards/%a.log" "$here/shard.sbatch" "$out" "$@")
sbatch --parsable --dependency="afterok:$array" --kill-on-invalid-dep=yes --output="$out.shards/merge.log" \
    "$here/merge.sbatch" "$out" "$n"
