#!/usr/bin/env bash
# Test on several GPUs, or in several processes on CPUs:
#     tools/dist_test.sh CONFIG CHECKPOINT GPUS [OPTIONS OF tools/test.py ...]
# On several machines, run the same command on each with NNODES, NODE_RANK and MASTER_ADDR set, and put --featviz-dir on
# a disk that they share. Under Slurm or MPI, call tools/test.py with --launcher slurm or mpi instead.
set -e
if [ $# -lt 3 ]; then
    sed -n '2,3s/^# //p' "$0" >&2
    exit 2
fi
config=$1 checkpoint=$2 gpus=$3
shift 3

"${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
