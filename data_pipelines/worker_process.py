"""Worker processes of the pipelines; apart from their work, so that each imports only what its own work needs."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """Initialize a worker that ends when its parent is killed: what it went on to write is written by the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
