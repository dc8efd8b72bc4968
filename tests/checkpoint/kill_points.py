"""Kill a process with SIGKILL at each line that saving a checkpoint runs, and look at what a reader finds.

Run as a program: `python -m tests.checkpoint.kill_points FOLDER`. It forks (before any threaded torch operation) one
child per line; the child saves step 2 over a good step 1, keeping one, and dies at its line. Prints one JSON line:
the number of lines, and for each state that readers found how often they found it.
"""

import json
import os
import shutil
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from llmtrain.checkpoint import commit, retention, tensor_file
from llmtrain.checkpoint.find import find_latest
from llmtrain.config.checkpoint import CheckpointConfig
from tests.checkpoint.small import file_name, make_checkpoint, make_manifest, rows_of_rank

WATCHED = {module.__file__ for module in (commit, tensor_file, retention)}


def save_step_2(folder: Path) -> None:
    commit.commit_checkpoint(
        folder, 2, file_name(0), rows_of_rank(2, 0, 1), lambda files: make_manifest(2, files, num_ranks=1)
    )
    retention.apply_retention(folder, CheckpointConfig(keep_last=1, keep_best=False))


def kill_at_line(number: int) -> None:
    """From now on count the lines run in the watched modules and die before the given one."""
    passed = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal passed
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            if passed == number:
                os.kill(os.getpid(), signal.SIGKILL)
            passed += 1
        return trace

    sys.settrace(trace)


def main(folder: Path) -> None:
    """Try every line until a child survives."""
    torch.set_num_threads(1)
    found: Counter[str] = Counter()
    leftovers = 0
    number = 0
    while True:
        make_checkpoint(folder, 1, num_ranks=1)
        child = os.fork()
        if child == 0:
            kill_at_line(number)
            save_step_2(folder)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        latest = find_latest(folder, "full")
        found[latest.name if latest else "nothing"] += 1
        leftovers += len(commit.remove_leftovers(folder))
        unexpected = {path.name for path in folder.iterdir()} - {"step-00000001", "step-00000002", "latest.json"}
        assert not unexpected, unexpected
        assert find_latest(folder, "full") == latest
        if not os.WIFSIGNALED(status):
            break
        shutil.rmtree(folder)
        number += 1
    print(json.dumps({"lines": number, "found": found, "leftovers": leftovers}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
