"""The script for Slurm, once: launch/slurm.sbatch is it without a request, `llmtrain launch slurm` writes it with one.

Nothing of a request reaches a shell or sbatch unquoted: names are checked, arguments are quoted, and they stand below
the first command, where sbatch no longer reads directives. No environment variable is written; jobs get those of the
shell that queued them.
"""

import os
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmtrain.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,-]{0,63}")
_TIME = re.compile(r"\d+(:\d\d){0,2}|\d+-\d\d?(:\d\d){0,2}")
_PASSWORD_IN_URL = re.compile(r"://[^/\s@]+@")

_SCRIPT = """\
#!/usr/bin/env bash
# Pretrain under Slurm, one task per GPU. 90 seconds before the time limit all ranks save, and the job is queued again.
#
#   sbatch {call}
#
#SBATCH --job-name={job_name}
{directives}#SBATCH --signal=USR1@90
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
{arguments}if [ $# -lt 1 ] || [ -z "${{SLURM_JOB_ID:-}}" ]; then
    echo "usage: sbatch {usage}" >&2
    exit 2
fi
export MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export MASTER_PORT="$((20000 + SLURM_JOB_ID % 20000))"
code=0
# When a rank ends, the others get two minutes: to save and report after a signal, or to notice that one has failed.
srun --kill-on-bad-exit=0 --wait=120 {python} -m llmtrain pretrain "$@" || code=$?
if [ "$code" -eq 75 ]; then # saved after a signal: continue later
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


@dataclass(frozen=True)
class SlurmRequest:
    """What to ask Slurm for, and what to run."""

    arguments: Sequence[str]
    """Of `llmtrain pretrain`."""
    python: str
    """The interpreter on every node."""
    nodes: int
    ranks_per_node: int
    gpus_per_node: int
    """0 = ask for none."""
    time: str | None = None
    partition: str | None = None
    account: str | None = None
    job_name: str = "llmtrain"


def build_shipped_script() -> str:
    """The text of launch/slurm.sbatch, which takes everything from the command line of sbatch."""
    usage = "launch/slurm.sbatch CONFIG [section.key=value ...]"
    return _SCRIPT.format(
        call=f"--nodes 4 --ntasks-per-node 8 --gpus-per-node 8 {usage}",
        usage=f"[--nodes N ...] {usage}",
        job_name="llmtrain",
        directives="",
        arguments="",
        python="python",
    )


def build_script(request: SlurmRequest) -> str:
    """A script that needs nothing more: `sbatch FILE`.

    Raises:
        ConfigError: a name or the time is not one, or an argument holds a password.
    """
    _check(request)
    options = {
        "nodes": request.nodes,
        "ntasks-per-node": request.ranks_per_node,
        "gpus-per-node": request.gpus_per_node or None,
        "time": request.time,
        "partition": request.partition,
        "account": request.account,
    }
    return _SCRIPT.format(
        call="FILE",
        usage="FILE",
        job_name=request.job_name,
        directives="".join(f"#SBATCH --{name}={value}\n" for name, value in options.items() if value is not None),
        arguments=f"set -- {shlex.join(request.arguments)}\n",
        python=shlex.quote(request.python),
    )


def write_script(path: Path, text: str) -> None:
    """Write a script that only its owner may read and run; it appears whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o700)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(descriptor, 0o700)
        file.write(text)
    temporary.replace(path)


def _check(request: SlurmRequest) -> None:
    for option in ("partition", "account", "job_name"):
        value = getattr(request, option)
        if value is not None and not _NAME.fullmatch(value):
            raise ConfigError(
                f"command line: --{option.replace('_', '-')} = {value!r} is not a name. Allowed are up to 64 letters, "
                "digits and _ . , - with a letter or digit first."
            )
    if request.time is not None and not _TIME.fullmatch(request.time):
        raise ConfigError(
            f"command line: --time = {request.time!r} is not a time. Allowed are minutes, hours:minutes:seconds and "
            "days-hours:minutes:seconds, e.g. 24:00:00."
        )
    for argument in request.arguments:
        if "\0" in argument:
            raise ConfigError(f"command line: {argument!r} holds a NUL character, which no program can be given.")
        if _PASSWORD_IN_URL.search(argument):
            key = argument.partition("=")[0]
            raise ConfigError(
                f"command line: {key} holds a password inside a URL, which the script would keep. Leave it out and set "
                "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD in the shell that queues the job."
            )
