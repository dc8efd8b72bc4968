"""Start the ranks of one machine as child processes, watch them, and give one verdict.

torchrun answers 1 even after every rank saved and left in order; this launcher passes on what the ranks said: 0, 75
(saved after a signal), 124 (hang), or the code of the rank that failed first.
"""

import ctypes
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from llmtrain.errors import EXIT_HANG
from llmtrain.process.hang_report import find_hung_ranks, read_reports, report_path

logger = logging.getLogger(__name__)

_GRACE_SECONDS = 20.0
_POLL_SECONDS = 0.05
_PR_SET_PDEATHSIG = 1


def run_ranks_here(arguments: Sequence[str], num_ranks: int, log_folder: Path) -> int:
    """Run `python -m llmtrain ARGUMENTS` once per rank and wait for all.

    Rank 0 shares this terminal; the others write to `log_folder/rankNNNNN.log`. SIGTERM, SIGINT and SIGUSR1 are
    passed on. When a rank fails, the others get some seconds to notice, then are killed.

    Returns:
        The exit code of the run.
    """
    log_folder.mkdir(parents=True, exist_ok=True)
    started = time.time()
    port = _pick_port()
    processes = [_start_rank(arguments, rank, num_ranks, port, log_folder) for rank in range(num_ranks)]

    def forward(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)

    previous = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    try:
        return _wait(processes, log_folder, started)
    finally:
        _kill(processes)
        for number, handler in previous.items():
            signal.signal(number, handler)


def judge(codes: Sequence[int]) -> tuple[int, int]:
    """The rank to blame and the exit code of a run, given the exit codes of ranks that have ended.

    A rank killed by a signal, or one that knows what went wrong, is blamed before one that merely lost its peers.
    """

    def order(rank: int) -> tuple[int, int]:
        code = codes[rank]
        return (0 if code < 0 else 1 if code > 1 else 2 if code == 1 else 3), rank

    rank = min(range(len(codes)), key=order)
    return rank, 128 - codes[rank] if codes[rank] < 0 else codes[rank]


def _pick_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start_rank(
    arguments: Sequence[str], rank: int, num_ranks: int, port: int, log_folder: Path
) -> subprocess.Popen[bytes]:
    threads = max(1, (os.cpu_count() or 1) // num_ranks)
    # What torchrun said to this process is not meant for its ranks.
    own = {name: value for name, value in os.environ.items() if not name.startswith("TORCHELASTIC_")}
    environment = (
        {"OMP_NUM_THREADS": str(threads)}
        | own
        | {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(num_ranks),
            "LOCAL_WORLD_SIZE": str(num_ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
    )
    command = [sys.executable, "-m", "llmtrain", *arguments]
    # A session of its own: what a terminal sends to its whole group, Ctrl-C, reaches ranks once, through `forward`.
    with ExitStack() as stack:
        log = None if rank == 0 else stack.enter_context(_log_path(log_folder, rank).open("ab"))
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            preexec_fn=_die_with_parent,
            start_new_session=True,
        )


def _log_path(log_folder: Path, rank: int) -> Path:
    return log_folder / f"rank{rank:05d}.log"


def _die_with_parent() -> None:
    # A launcher that is killed cannot stop its ranks; the kernel does it.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _wait(processes: Sequence[subprocess.Popen[bytes]], log_folder: Path, started: float) -> int:
    deadline: float | None = None
    while None in (codes := [process.poll() for process in processes]):
        if deadline is None and any(codes):
            deadline = time.monotonic() + _GRACE_SECONDS
        if deadline is not None and (time.monotonic() > deadline or _are_stopped(processes)):
            break
        time.sleep(_POLL_SECONDS)
    rank, code = judge([code or 0 for code in codes])
    if code == EXIT_HANG:
        logger.error("%s", _explain_hang(processes, log_folder, started))
    elif code > 128:
        logger.error("rank %d of %d was killed by %s", rank, len(processes), signal.Signals(code - 128).name)
    elif code and rank != 0:
        log = _log_path(log_folder, rank)
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        logger.error("rank %d of %d ended with code %d. The end of %s:\n%s", rank, len(processes), code, log, tail)
    return code


def _explain_hang(processes: Sequence[subprocess.Popen[bytes]], log_folder: Path, started: float) -> str:
    """Which ranks the others waited for, as far as their reports tell."""
    reports = {report.rank: report for report in read_reports(log_folder, started)}
    silent = [rank for rank, process in enumerate(processes) if process.poll() is None and rank not in reports]
    blamed = find_hung_ranks(list(reports.values()), silent)
    lines = [f"the run hung ({len(reports)} of {len(processes)} ranks said where they stood)"]
    for rank in blamed:
        if rank in reports:
            lines.append(f"{reports[rank].describe()}; stacks in {report_path(log_folder, rank)}")
        else:
            state = "is stopped by a signal" if _is_stopped(processes[rank].pid) else "does not answer"
            lines.append(f"rank {rank} (process {processes[rank].pid}) {state}")
    if not blamed:
        lines.append(f"all of them waited for one another; stacks in {log_folder}/hang-rank*.txt")
    return "\n".join(lines)


def _are_stopped(processes: Sequence[subprocess.Popen[bytes]]) -> bool:
    """Whether all that still exist were stopped by a signal: they would never notice anything."""
    return all(_is_stopped(process.pid) for process in processes if process.poll() is None)


def _is_stopped(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in "Tt"


def _kill(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        if process.poll() is None:
            process.kill()
    for process in processes:
        process.wait()
