#!/usr/bin/env bash
# Pretrain with torchrun, on one node or many. Run this same line on every node.
#
#   NODES=2 NODE_RANK=0 MASTER_ADDR=node0 RANKS_PER_NODE=8 bash launch/torchrun.sh CONFIG [section.key=value ...]
#
# MAX_RESTARTS=N starts all ranks again after one failed, at most N times; the run resumes from its last checkpoint.
# Nodes wait MEETING_SECONDS (600) for one another.
# torchrun answers 1 even after an orderly stop; the run folder's events.jsonl holds the verdict (75 = saved, requeue).
set -euo pipefail
if [ $# -lt 1 ]; then
    echo "usage: bash launch/torchrun.sh CONFIG [section.key=value ...]" >&2
    exit 2
fi
port="${MASTER_PORT:-29500}"
if [ "${NODE_RANK:-0}" = 0 ] && (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "torchrun.sh: port $port is taken on this machine. Set MASTER_PORT to a free port, or end what listens there." >&2
    exit 3
fi
exec torchrun \
    --nnodes "${NODES:-1}" \
    --node-rank "${NODE_RANK:-0}" \
    --nproc-per-node "${RANKS_PER_NODE:-2}" \
    --master-addr "${MASTER_ADDR:-127.0.0.1}" \
    --master-port "$port" \
    --rdzv-conf "timeout=${MEETING_SECONDS:-600}" \
    --max-restarts "${MAX_RESTARTS:-0}" \
    --signals-to-handle SIGTERM,SIGINT,SIGUSR1 \
    --module llmtrain pretrain "$@"
