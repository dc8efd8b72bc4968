#!/usr/bin/env bash
# Pretrain with DeepSpeed's launcher: this machine, or every machine of a hostfile ("node0 slots=8" a line).
#
#   [HOSTFILE=hosts] [RANKS_PER_NODE=8] bash launch/deepspeed.sh CONFIG [section.key=value ...]
set -euo pipefail
if [ $# -lt 1 ]; then
    echo "usage: bash launch/deepspeed.sh CONFIG [section.key=value ...]" >&2
    exit 2
fi
if [ -n "${HOSTFILE:-}" ]; then
    where=(--hostfile "$HOSTFILE")
else
    where=(--num_gpus "${RANKS_PER_NODE:-2}" --master_addr 127.0.0.1)
    # Where there is no GPU the launcher counts CPU cores as slots.
    command -v nvidia-smi >/dev/null 2>&1 || export DS_ACCELERATOR=cpu
fi
exec deepspeed "${where[@]}" --master_port "${MASTER_PORT:-29500}" --no_local_rank --module llmtrain pretrain "$@"
