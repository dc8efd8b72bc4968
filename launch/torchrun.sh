#!/usr/bin/env bash
# Pretrain with torchrun, on one node or many. Run this same line on every node.
#
#   NODES=2 NODE_RANK=0 MASTER_ADDR=node0 RANKS_PER_NODE=8 bash launch/torchrun.sh CONFIG [section.key=value ...]
#
# MAX_RESTARTS=N starts all ranks again after one failed, at most N times; the run resumes from its last checkpoint.
# torchrun answers 1 even after an orderly stop; the run folder's events.jsonl holds the verdict (75 = saved, requeue).
set -euo pipefail
if [ $# -lt 1 ]; then
    echo "usage: bash launch/torchrun.sh CONFIG [section.key=value ...]" >&2
    exit 2
fi
exec torchrun \
    --nnodes "${NODES:-1}" \
    --node-rank "${NODE_RANK:-0}" \
    --nproc-per-node "${RANKS_PER_NODE:-2}" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" \
    --master-port "${MASTER_PORT:-29500}" \
    --max-restarts "${MAX_RESTARTS:-0}" \
    --signals-to-handle SIGTERM,SIGINT,SIGUSR1 \
    --module llmtrain pretrain "$@"
