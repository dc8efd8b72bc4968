"""As much of Slurm's `srun` as launch/slurm.sbatch relies on: tasks on this machine, their variables, their end.

Put in PATH by a script named `srun`. Signals are passed on to the tasks; the answer is the highest of their codes.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType


def main() -> int:
    """Run the tasks and wait for all of them."""
    options = list(itertools.takewhile(lambda argument: argument.startswith("--"), sys.argv[1:]))
    given = dict(option.removeprefix("--").split("=") for option in options)
    command, num_tasks = sys.argv[1 + len(options) :], int(os.environ["SLURM_NTASKS"])
    tasks = [subprocess.Popen(command, env=os.environ | variables(rank, num_tasks)) for rank in range(num_tasks)]

    def forward(number: int, frame: FrameType | None) -> None:
        for task in tasks:
            if task.poll() is None:
                task.send_signal(number)

    signal.signal(signal.SIGUSR1, forward)
    Path(os.environ["FAKE_SLURM_FOLDER"], "srun.pid").write_text(str(os.getpid()))
    deadline = None
    while None in (codes := [task.poll() for task in tasks]):
        if given["kill-on-bad-exit"] == "1" and any(codes):
            forward(signal.SIGTERM, None)
        if deadline is None and codes != [None] * num_tasks:
            deadline = time.monotonic() + int(given["wait"])
        if deadline is not None and time.monotonic() > deadline:
            forward(signal.SIGKILL, None)
        time.sleep(0.02)
    return max(code if code >= 0 else 128 - code for code in (task.wait() for task in tasks))


def variables(rank: int, num_tasks: int) -> dict[str, str]:
    """What Slurm tells a task about its place; all tasks are on one node."""
    return {
        "SLURM_PROCID": str(rank),
        "SLURM_LOCALID": str(rank),
        "SLURM_NODEID": "0",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(num_tasks),
        "SLURM_STEP_TASKS_PER_NODE": str(num_tasks),
    }


if __name__ == "__main__":
    sys.exit(main())
