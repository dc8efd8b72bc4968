"""Writing a checkpoint beside training, one at a time.

In: a function that writes, called with the group in which its ranks agree. Out: the directory it made, or the error it
raised, handed over on the main thread, on all ranks after the same step.

    main thread     start -> train ... poll after each step -> all ranks done -> the result or the error
    background      write, hash, flush own file -> agree in the group of its own -> commit -> retention

Why this cannot deadlock: the background threads talk only in a gloo group of their own, each save makes the same calls
on all ranks, and a background thread never waits for a main thread. So a save that was started on all ranks ends,
whatever the main threads do. Main threads meet in `poll` only, after the same step, and wait for their own background
thread only in `start` and `wait`, which all ranks call after the same step as well. A rank that dies closes its
sockets, which ends the calls of the others.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from llmtrain.errors import CheckpointError

Write = Callable[[dist.ProcessGroup | None], Path]


class BackgroundWriter:
    """Runs one write at a time in a thread; all ranks make the same calls after the same steps."""

    def __init__(self, timeout_seconds: float) -> None:
        """Make the thread and its group; all ranks call it.

        Args:
            timeout_seconds: how long ranks wait for the slowest writer.
        """
        self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_seconds))
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[Path] | None = None

    def start(self, write: Write) -> None:
        """Begin a write; the one before must have been waited for."""
        assert self._pending is None
        self._pending = self._thread.submit(write, self._group)

    def poll(self) -> Path | None:
        """What was written, once all ranks are done; None as long as one is not, and when nothing is pending.

        Raises:
            CheckpointError: on all ranks, what the write raised.
        """
        if self._pending is None:
            return None
        is_done = self._pending.done()
        # What is not a CheckpointError was raised on this rank alone; the others wait for it in vain and must be freed.
        if is_done and not isinstance(self._pending.exception(), CheckpointError | None):
            return self.wait()
        everywhere = torch.tensor(is_done, dtype=torch.int32)
        dist.all_reduce(everywhere, op=dist.ReduceOp.MIN)
        return self.wait() if everywhere else None

    def wait(self) -> Path | None:
        """What was written, when it is done; None when nothing is pending.

        Raises:
            CheckpointError: on all ranks, what the write raised.
        """
        if self._pending is None:
            return None
        pending, self._pending = self._pending, None
        return pending.result()

    def close(self) -> BaseException | None:
        """End the thread, after what is pending.

        Returns:
            What the pending write raised.
        """
        pending, self._pending = self._pending, None
        self._thread.shutdown()
        return None if pending is None else pending.exception()


class ForegroundWriter:
    """The same, with the write inside `start`: training stands still."""

    def __init__(self) -> None:
        self._written: Path | None = None

    def start(self, write: Write) -> None:
        """Write.

        Raises:
            CheckpointError: on all ranks.
        """
        self._written = write(None)

    def poll(self) -> Path | None:
        """What `start` wrote, once."""
        return self.wait()

    def wait(self) -> Path | None:
        """What `start` wrote, once."""
        written, self._written = self._written, None
        return written

    def close(self) -> BaseException | None:
        """Nothing is pending."""
        return None
