"""Run a function on several ranks: spawned processes, gloo, a file rendezvous, a time limit.

The function must be importable by name. Its return values come back in rank order; the first exception is raised again.
"""

import os
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


class RankError(RuntimeError):
    """A rank raised; the text holds its traceback."""


def run_ranks(world_size: int, function: Callable[..., Any], *args: Any, timeout: float = 120.0) -> list[Any]:
    """Call `function(*args)` on `world_size` joined ranks and return what each gave back."""
    context = mp.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        results = context.SimpleQueue()
        rendezvous = f"file://{Path(folder) / 'rendezvous'}"
        processes = [
            context.Process(target=_run, args=(rank, world_size, rendezvous, results, function, args), daemon=True)
            for rank in range(world_size)
        ]
        for process in processes:
            process.start()
        try:
            return _collect(processes, results, world_size, timeout)
        finally:
            for process in processes:
                if process.is_alive():
                    process.kill()
                process.join()


def _collect(processes: list[Any], results: Any, world_size: int, timeout: float) -> list[Any]:
    deadline = time.monotonic() + timeout
    values: dict[int, Any] = {}
    while len(values) < world_size:
        if not results.empty():
            rank, value, error = results.get()
            if error is not None:
                raise RankError(f"rank {rank} of {world_size}:\n{error}")
            values[rank] = value
            continue
        dead = [p.exitcode for p in processes if p.exitcode not in (None, 0)]
        if dead:
            raise RankError(f"a rank ended with exit code {dead[0]}")
        if time.monotonic() > deadline:
            raise RankError(f"no result within {timeout} s")
        time.sleep(0.01)
    return [values[rank] for rank in range(world_size)]


def _run(
    rank: int, world_size: int, rendezvous: str, results: Any, function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1", GLOO_SOCKET_IFNAME="lo", DEEPSPEED_LOG_LEVEL="error")
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world_size), LOCAL_RANK=str(rank))
    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=rendezvous, rank=rank, world_size=world_size, timeout=timedelta(seconds=60)
        )
        results.put((rank, function(*args), None))
    except BaseException:  # noqa: BLE001  every failure of a rank travels to the test
        results.put((rank, None, traceback.format_exc()))
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
