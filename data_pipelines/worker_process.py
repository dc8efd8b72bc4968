"""Worker processes of the pipelines; apart from their work, so that each imports only what its own work needs."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any

from llmtrain.errors import MemoryExhaustedError


@contextmanager
def worker_pool(
    processes: int, initialize: Callable[..., None], *arguments: Any, workers: int, after: str
) -> Iterator[ProcessPoolExecutor]:
    """Processes that each begin with `initialize(*arguments)`; what waits for them is given up when the block fails.

    Args:
        processes: how many.
        initialize: called in each; it calls `end_with_parent`.
        arguments: of `initialize`.
        workers: `corpus.workers`, for the message.
        after: what a run after this one finds, for the message.

    Raises:
        MemoryExhaustedError: the system ended one.
    """
    context = multiprocessing.get_context("spawn")  # forked workers would share locks with this process
    with ProcessPoolExecutor(processes, context, initialize, arguments) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise MemoryExhaustedError(
                f"corpus.workers = {workers}: the system ended a worker, most likely because memory ran out. "
                f"Set fewer, then run `llmtrain data prepare` again: {after}."
            ) from error
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def end_with_parent() -> None:
    """Initialize a worker that ends when its parent is killed: what it went on to write is written by the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
