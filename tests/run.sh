#!/usr/bin/env bash
# Set up and pass every check: format, lint, types, tests.
#
#   bash tests/run.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
bash launch/install.sh
bin=.venv/bin
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
echo "== format" && "$bin/ruff" format --check --quiet .
echo "== lint" && "$bin/ruff" check --quiet .
echo "== types" && "$bin/mypy"
echo "== tests" && exec "$bin/python" -m pytest "$@"
