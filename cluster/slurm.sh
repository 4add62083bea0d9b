#!/usr/bin/env bash
# One training on a Slurm cluster: sbatch cluster/slurm.sh /shared/runs/alpaca.yaml
# The first node is the head and trains too. The run's storage, the base model and this project must be on a disk
# that all nodes share, with the ledger in PostgreSQL (docs/cluster.md). Submit it again to resume where it stopped;
# before its time limit Slurm sends SIGTERM, which stops it cleanly.
#   S3T_PROJECT   where the project and its .venv are; default: the folder that sbatch was called in
#   S3T_SCRATCH   a folder on each node's own disk for copies of slices and hidden states, about 20 GB per rank for a
#                 13B model; default: Slurm's TMPDIR, else /tmp
#SBATCH --job-name=s3t
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
set -euo pipefail
umask 077

config=${1:?usage: sbatch cluster/slurm.sh CONFIG}
project=${S3T_PROJECT:-$SLURM_SUBMIT_DIR}
gpus=${SLURM_GPUS_ON_NODE:-0}

# A token for this job only, passed in the environment, because other users can read command lines.
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
export RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH=s3t_ray.serve.access.whole_bodies.middlewares
export PATH="$project/.venv/bin:$PATH"

# Since Slurm 22.05 srun no longer inherits --cpus-per-task: without this a node trains on one core.
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

# Two jobs may share a node, so every port and folder is this job's own. Eight ports per job, below the range that
# Linux gives to outgoing connections; Ray chooses all others at random. Ray's folder holds sockets, whose paths have
# at most 107 characters: it is in /tmp, whatever TMPDIR says.
port=$((20000 + SLURM_JOB_ID % 1500 * 8))
export S3T_RAY_FOLDER=/tmp/s3t-ray-$SLURM_JOB_ID
export S3T_NODE_SCRATCH=${S3T_SCRATCH:-${TMPDIR:-/tmp}}/s3t-scratch-$SLURM_JOB_ID

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
common=(
    --block --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --disable-usage-stats --temp-dir="$S3T_RAY_FOLDER"
    --dashboard-agent-listen-port=$((port + 3)) --min-worker-port=0 --max-worker-port=0
)

# On each node: make its folders, start Ray, and remove them when Ray ends; they held records.
on_node='
    folders=("$S3T_RAY_FOLDER" "$S3T_NODE_SCRATCH")
    trap '\''exit 143'\'' TERM
    trap '\''rm -rf -- "${folders[@]}"'\'' EXIT
    rm -rf -- "${folders[@]}" # of this job, before it was requeued
    mkdir -m 0700 -- "${folders[@]}"
    export TMPDIR=$S3T_NODE_SCRATCH
    until [[ $1 == head ]] || ray health-check --address "$1" >/dev/null 2>&1; do sleep 1; done
    ray start "${@:2}"
'
srun --nodes=1 --ntasks=1 --nodelist="$head" --export=ALL bash -euc "$on_node" _ head \
    --head --port="$port" --dashboard-host=127.0.0.1 --dashboard-port=$((port + 1)) \
    --ray-client-server-port=$((port + 2)) "${common[@]}" &
nodes=($!)
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" --export=ALL \
        bash -euc "$on_node" _ "$head:$port" --address="$head:$port" "${common[@]}" &
    nodes+=($!)
fi
counting=
trap 'kill "${nodes[@]}" $counting 2>/dev/null || true; wait || true' EXIT

until ray health-check --address "$head:$port" >/dev/null 2>&1; do
    kill -0 "${nodes[0]}" # the head has ended: see its lines above
    sleep 1
done
export TMPDIR=$S3T_NODE_SCRATCH # this script runs on the head

# Worker groups are counted when the training starts: wait until every node has joined.
python - "$head:$port" "$SLURM_JOB_NUM_NODES" <<'PYTHON' &
import sys, threading, ray
ray.init(address=sys.argv[1], logging_level="warning")
pause = threading.Event()
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    pause.wait(2)
PYTHON
counting=$!
wait -n "$counting" "${nodes[@]}" || true
for node in "${nodes[@]}"; do
    kill -0 "$node" # a node has ended: see its lines above
done
wait "$counting"

RAY_ADDRESS="$head:$port" python "$project/jobs/train.py" "$config" &
training=$!
trap 'kill -TERM "$training" 2>/dev/null || true' TERM
# `wait` ends early on the signal: wait again for the job's last output.
wait "$training" || { code=$?; wait "$training" 2>/dev/null || true; exit "$code"; }
