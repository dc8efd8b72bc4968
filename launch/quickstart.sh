#!/usr/bin/env bash
# Set up and run the main job on this machine: raw text -> a trained, exported model -> generated text.
#
#   bash launch/quickstart.sh [section.key=value ...]
#
# Two CPU cores and 8 GiB of memory are enough; no GPU, no compiler. Killed half-way, it continues when run again.
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/install.sh
exec .venv/bin/llmtrain run configs/quickstart.yaml --nproc "${NPROC:-2}" "$@"
