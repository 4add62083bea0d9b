#!/usr/bin/env bash
# One training on a Slurm cluster: sbatch cluster/slurm.sh /shared/runs/alpaca.yaml
# The first node is the head and trains too. The storage of the run, the base model and this project must lie on a
# disk that all nodes share, with its ledger in PostgreSQL (docs/cluster.md). Submitted again, it goes on where it
# stopped; before its time is over Slurm sends SIGTERM, which stops it cleanly.
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

# A token of this job alone, handed on in the environment, not on a command line, which others can read.
RAY_AUTH_TOKEN=$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')
export RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0
export PATH="$project/.venv/bin:$PATH"

head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
common=(--block --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="$gpus" --disable-usage-stats)

srun --nodes=1 --ntasks=1 --nodelist="$head" --export=ALL \
    ray start --head --port="$port" --dashboard-host=127.0.0.1 "${common[@]}" &
nodes=($!)
if ((SLURM_JOB_NUM_NODES > 1)); then
    srun --nodes=$((SLURM_JOB_NUM_NODES - 1)) --ntasks=$((SLURM_JOB_NUM_NODES - 1)) --exclude="$head" --export=ALL \
        bash -c 'until ray health-check --address "$1" >/dev/null 2>&1; do sleep 2; done; exec ray start --address="$1" "${@:2}"' \
        _ "$head:$port" "${common[@]}" &
    nodes+=($!)
fi
trap 'kill "${nodes[@]}" 2>/dev/null || true' EXIT

until ray health-check --address "$head:$port" >/dev/null 2>&1; do
    kill -0 "${nodes[0]}" # the head has ended: see its lines above
    sleep 2
done
# Worker groups are counted when the training begins: wait until every node is there.
python - "$head:$port" "$SLURM_JOB_NUM_NODES" <<'PYTHON'
import sys, threading, ray
ray.init(address=sys.argv[1], logging_level="warning")
pause = threading.Event()
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    pause.wait(2)
PYTHON

RAY_ADDRESS="$head:$port" python "$project/jobs/train.py" "$config" &
training=$!
trap 'kill -TERM "$training" 2>/dev/null || true' TERM
# `wait` ends early when the signal comes: wait again for what the job says last.
wait "$training" || { code=$?; wait "$training" 2>/dev/null || true; exit "$code"; }
