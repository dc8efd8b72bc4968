#!/usr/bin/env bash
# Make a virtual environment with the tested set of packages (requirements.lock) and llmtrain in it.
#
#   bash launch/install.sh [FOLDER]      default: .venv in the project
#
# Needs Python 3.11 or newer; no compiler, no GPU. Does nothing when FOLDER already holds this lock.
set -euo pipefail
cd "$(dirname "$0")/.."
venv="${1:-.venv}"
python="${PYTHON:-python3}"

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "install: '$python' is not Python 3.11 or newer. Install one, or set PYTHON=/path/to/python3." >&2
    exit 3
fi
if ! "$python" -c 'import venv, ensurepip' 2>/dev/null; then
    echo "install: '$python' cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv." >&2
    exit 3
fi

stamp="$venv/.installed"
wanted="$(cat requirements.lock pyproject.toml | sha256sum | cut -d' ' -f1)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

echo "install: packages into $venv (once; about two minutes and 2.5 GB with the CPU build of torch)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip=("$venv/bin/python" -m pip --disable-pip-version-check --quiet)

# Without an NVIDIA GPU the CPU build of torch saves gigabytes. PyPI has only the CUDA build for Linux, so ask torch's
# own index, if it can be reached and the user has not chosen an index.
cpu_index="https://download.pytorch.org/whl/cpu"
extra=()
if [ -z "${PIP_INDEX_URL:-}${PIP_EXTRA_INDEX_URL:-}" ] && ! command -v nvidia-smi >/dev/null 2>&1 &&
    "$venv/bin/python" -c "import urllib.request as r; r.urlopen('$cpu_index/torch/', timeout=3)" 2>/dev/null; then
    extra=(--extra-index-url "$cpu_index")
fi
"${pip[@]}" install "${extra[@]}" -r requirements.lock
"${pip[@]}" install --no-deps --editable .
echo "$wanted" >"$stamp"
