"""`python -m tests.posttraining.dying_stage MOMENT STEP ARGUMENTS` is `llmtrain ARGUMENTS`, killed while it saves STEP.

All ranks have written their files. Rank 0 kills itself with SIGKILL: at moment `torn` before the checkpoint is declared
whole, at moment `whole` right after.
"""

import os
import signal
import sys
from typing import Any

from llmtrain.__main__ import main
from llmtrain.posttraining import callback
from llmtrain.posttraining.checkpoints import commit_checkpoint

if __name__ == "__main__":
    MOMENT, STEP = sys.argv[1], int(sys.argv[2])
    del sys.argv[1:3]

    def commit_or_die(folder: Any, step: int, *rest: Any) -> None:
        """In place of `commit_checkpoint`."""
        if step != STEP or MOMENT == "whole":
            commit_checkpoint(folder, step, *rest)
        if step == STEP:
            os.kill(os.getpid(), signal.SIGKILL)

    vars(callback)["commit_checkpoint"] = commit_or_die
    main()
