"""Section `checkpoint`: when to save, what to keep, whether to resume."""

from typing import Literal

from llmtrain.config.section import PositiveInt, Section


class CheckpointConfig(Section):
    """Checkpoints lie in `run folder/checkpoints/step-NNNNNNNN`."""

    save_every_steps: PositiveInt | None = None
    """Optimizer steps between checkpoints; null = only at the end and on SIGTERM."""
    asynchronous: bool = True
    """Copy the state to host memory, then write it beside training; false = training stands still until it is committed
    and no copy is held (12 bytes of host memory per parameter of a rank)."""
    keep_last: PositiveInt = 2
    """Newest checkpoints to keep."""
    keep_every_steps: PositiveInt | None = None
    """Also keep every checkpoint whose step is a multiple of this; null = none."""
    keep_best: bool = True
    """Also keep the checkpoint with the lowest validation loss."""
    resume: Literal["auto", "never", "must"] = "auto"
    """`auto` continues from the newest whole checkpoint if there is one, `never` refuses a folder that holds one,
    `must` refuses to start without one."""
    verify: Literal["size", "full"] = "full"
    """What is checked before loading: file sizes, or also the sha256 of every file."""
