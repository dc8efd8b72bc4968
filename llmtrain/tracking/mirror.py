"""The mirror: a process of its own that sends a run folder to MLflow while the run goes on.

    training        appends lines to files                        never talks to MLflow
    mirror          reads the lines, sends them, remembers        started by rank 0, ends by itself
    standard input  a pipe from training; its end means training is over, in order or killed

A server that is away costs training nothing: the lines stay, and are sent later by this process, by that of a resumed
run, or by `llmtrain tracking sync RUN`.
"""

import contextlib
import fcntl
import json
import logging
import os
import select
import subprocess
import sys
import time
from pathlib import Path

from llmtrain.errors import MachineError
from llmtrain.tracking.redaction import redact

logger = logging.getLogger(__name__)

LOCK_NAME, LOG_NAME = "mlflow.lock", "mirror.log"
_POLL_SECONDS = 2.0
_FINAL_SECONDS = 15.0
_MAX_BACKOFF_SECONDS = 60.0


class Mirror:
    """The mirror's process, as seen from training."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process

    def finish(self, timeout_seconds: float = _FINAL_SECONDS) -> None:
        """Tell it that training is over; wait for what is left, but not for long: it ends by itself."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            logger.warning("MLflow has not taken everything yet; `llmtrain tracking sync RUN` sends the rest")


def start_mirror(run_folder: Path, system_interval_seconds: float) -> Mirror:
    """Start the process; rank 0 calls it after `config.yaml` is written."""
    logs = run_folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "llmtrain.tracking.mirror", str(run_folder), str(system_interval_seconds)]
    # The lock is taken here and lives on in the process: mirrors of one run work in the order of their starts.
    lock = os.open(run_folder / LOCK_NAME, os.O_CREAT | os.O_RDWR)
    with contextlib.suppress(BlockingIOError):  # the mirror of a killed attempt has it; the process waits for it
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    with (logs / LOG_NAME).open("ab") as log:
        process = subprocess.Popen(
            [*command, str(lock)],
            pass_fds=[lock],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=environment | {"OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C on a terminal ends training; the mirror then sends the rest
        )
    os.close(lock)
    return Mirror(process)


def sync_run(run_folder: Path) -> None:
    """Send everything that MLflow lacks, now.

    Raises:
        MachineError: there is no run, another process mirrors it, or MLflow cannot be reached.
    """
    if not (run_folder / "config.yaml").exists():
        raise MachineError(f"{run_folder}: no run here. Give a run folder such as runs/quickstart.")
    from llmtrain.tracking.mlflow_run import MlflowRun, limit_waiting

    limit_waiting()
    with (run_folder / LOCK_NAME).open("w") as lock:
        _take(lock.fileno(), run_folder)
        try:
            run = MlflowRun(run_folder)
            run.send()
            run.finish()
        except Exception as error:
            raise MachineError(
                f"{run_folder}: MLflow did not take it: {redact(str(error))}. "
                "Nothing is lost; start the server and try again."
            ) from error


def wait_for_mirror(run_folder: Path) -> None:
    """Until no process mirrors the folder: one that was started knows it by its name only, and it may be moved.

    Raises:
        MachineError: one is still there after a minute.
    """
    with (run_folder / LOCK_NAME).open("w") as lock:
        _take(lock.fileno(), run_folder, patience_seconds=4 * _FINAL_SECONDS)


def _take(descriptor: int, run_folder: Path, patience_seconds: float = 0.0) -> None:
    deadline = time.monotonic() + patience_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise MachineError(f"{run_folder}: another process is mirroring this run. Wait for it.") from error
        time.sleep(0.2)


def _run_mirror(run_folder: Path, system_interval_seconds: float, lock: int) -> None:
    """The process: send until training is over and everything is sent, or the time for that is up."""
    os.nice(10)
    # The mirror of a killed attempt may still be sending when the next attempt starts.
    _take(lock, run_folder, patience_seconds=4 * _FINAL_SECONDS)
    from llmtrain.tracking.mlflow_run import MlflowRun, limit_waiting
    from llmtrain.tracking.system_metrics import SystemSampler

    limit_waiting()
    sampler = SystemSampler(run_folder, system_interval_seconds)
    run: MlflowRun | None = None
    backoff, next_try, deadline = _POLL_SECONDS, 0.0, None
    while True:
        is_over = _wait_for_end(0.0 if deadline else _POLL_SECONDS)
        if is_over and deadline is None:
            deadline, next_try = time.monotonic() + _FINAL_SECONDS, 0.0
        sampler.sample_if_due()
        if time.monotonic() < next_try:
            time.sleep(0.2)
            if deadline and time.monotonic() > deadline:
                break
            continue
        try:
            if run is None:
                run = MlflowRun(run_folder)
                run.reopen()
            run.send()
            if is_over:
                run.finish()
                return
            backoff, next_try = _POLL_SECONDS, 0.0
        except Exception as error:  # noqa: BLE001  whatever MLflow raises: a run never depends on it
            logger.warning("MLflow is away, trying again in %.0f s: %s", backoff, json.dumps(redact(str(error))[:300]))
            next_try, backoff = time.monotonic() + backoff, min(2 * backoff, _MAX_BACKOFF_SECONDS)
    logger.warning("MLflow is away; `llmtrain tracking sync %s` sends the rest", run_folder)


def _wait_for_end(seconds: float) -> bool:
    """Whether standard input has ended."""
    readable, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(readable) and not os.read(sys.stdin.fileno(), 1024)


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    try:
        _run_mirror(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))
    except MachineError as error:
        logger.warning("%s", error)
