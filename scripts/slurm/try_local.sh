#!/usr/bin/env bash
# Tries the scripts of this directory with a real Slurm on this machine: one node of four slots, in a temporary directory.
# A sweep of a tiny model in four shards, one of which is killed and requeued, must give the same files as the sweep in one piece.
# So must a capture.
#
# Needs slurmctld, slurmd, sbatch and scontrol (Debian: apt-get install slurm-wlm), the ports 16817 and 16818 on localhost,
# and a built target/release/temper, or its path in $TEMPER. No munge, no cgroups, no root, and no other Slurm is touched.
# Ends with 0 if all is the same; stops its daemons in any case.
set -euo pipefail
cd "$(dirname "$0")/../.."
export TEMPER="${TEMPER:-$PWD/target/release/temper}" RAYON_NUM_THREADS=1
PATH=$PATH:/usr/sbin
for needed in slurmctld slurmd sbatch scontrol "$TEMPER"; do
    command -v "$needed" > /dev/null || { echo "$needed is missing; the top of this script says what it needs" >&2; exit 2; }
done

dir=$(mktemp -d)
ctld='' slurmd=''
stop() {
    for pid in $slurmd $ctld; do kill "$pid" 2> /dev/null && wait "$pid" 2> /dev/null || true; done
    rm -rf "$dir"
}
trap stop EXIT

host=$(hostname -s) user=$(id -un)
mkdir "$dir/state" "$dir/spool"
cat > "$dir/slurm.conf" <<END
ClusterName=try
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/none
CredType=cred/none
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SchedulerParameters=sched_interval=2,batch_sched_delay=1
# Four slots, however many cores there are.
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=4
PartitionName=all Nodes=$host Default=YES OverSubscribe=NO
END
echo "CgroupPlugin=cgroup/v1" > "$dir/cgroup.conf"
export SLURM_CONF="$dir/slurm.conf"

slurmctld -D -f "$SLURM_CONF" > "$dir/slurmctld.log" 2>&1 &
ctld=$!
slurmd -D -f "$SLURM_CONF" -N "$host" > "$dir/slurmd.log" 2>&1 &
slurmd=$!
# Waits until a command succeeds; after a minute it shows what Slurm said and gives up.
until_true() {
    for _ in $(seq 300); do "$@" && return; sleep 0.2; done
    echo "gave up on: $*" >&2
    squeue >&2; tail -n 20 "$dir"/*.log "$dir"/part.shards/*.log >&2 || true
    exit 1
}
idle() { [ "$(sinfo -h -o %t 2> /dev/null)" = idle ]; }
until_true idle

for i in $(seq 60); do echo "{\"id\":\"q$i\",\"prompt\":\"Say $i\"}"; done > "$dir/q.jsonl"
sweep=(--model "$PWD/tests/golden/llama" --items "$dir/q.jsonl" --heads all --each --lambda 1,1,0.5,0 --max-new-tokens 12)
"$TEMPER" sweep "${sweep[@]}" --out "$dir/whole" > /dev/null 2>&1
capture=(--model "$PWD/tests/golden/llama" --items "$dir/q.jsonl" --heads vector)
"$TEMPER" capture "${capture[@]}" --out "$dir/whole.npz" > /dev/null 2>&1

merge=$(cd "$dir" && "$OLDPWD/scripts/slurm/submit.sh" 4 "$dir/part" sweep "${sweep[@]}")
array=$(squeue -h -r -o %A -n temper-shard | sort -n | head -n 1)
# Kills the first shard in the middle of its rows, and lets Slurm start it again.
until_true test -s "$dir/part.shards/1/rows.jsonl"
scontrol requeue "${array}_1" && echo "requeued   shard 1 after $(wc -l < "$dir/part.shards/1/rows.jsonl") rows"
waits() { [ "$(squeue -h -j "${array}_1" -o %t)" = PD ]; }
until_true waits
sleep 2 # within a second of the requeue Slurm takes a new start for the old one, and revokes it
scontrol update "JobId=${array}_1" StartTime=now # Slurm would let it wait two minutes
ended() { [ -z "$(squeue -h -j "$merge" 2> /dev/null)" ] || [[ "$(squeue -h -j "$merge" -o %t)" != @(PD|R|CG|CF) ]]; }
until_true ended

grep 'done before' "$dir/part.shards/1.log" # it resumed where it was
grep -h '^shard' "$dir"/part.shards/?.log
for file in sweep.json sweep.csv lambda.npz plan.json; do cmp "$dir/whole/$file" "$dir/part/$file"; done
cmp <(sort "$dir/whole/rows.jsonl") <(sort "$dir/part/rows.jsonl")
merge=$(cd "$dir" && "$OLDPWD/scripts/slurm/submit.sh" 3 "$dir/part.npz" capture "${capture[@]}")
until_true ended
cmp "$dir/whole.npz" "$dir/part.npz"
echo "all the same: $(wc -l < "$dir/part/rows.jsonl") rows of 4 shards, and a capture of 3"
