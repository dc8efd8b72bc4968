"""Command `dashboard`: MLflow's pages for the runs of a folder, on this machine only."""

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import psutil

from llmtrain.errors import ConfigError, MachineError

_HOST = "127.0.0.1"  # the server knows no users
_POLL_SECONDS, _GRACE_SECONDS = 0.2, 10.0


def open_dashboard(root: Path, port: int) -> None:
    """Serve until Ctrl-C.

    Args:
        root: folder that holds the runs and their database.
        port: on 127.0.0.1.

    Raises:
        ConfigError: there is no database.
        MachineError: the port is taken, or the server failed.
    """
    database = root / "mlflow.db"
    if not database.is_file():
        raise ConfigError(
            f"{root}: no mlflow.db here. Give the folder that holds the runs, e.g. llmtrain dashboard runs."
        )
    _check_port(port)
    address = f"http://{_HOST}:{port}/#/experiments/{_find_experiment(database)}/runs?workflowType=machine_learning&compareRunsMode=CHART"
    sys.stderr.write(f"MLflow starts in some seconds (Ctrl-C ends it):\n  {address}\n")
    was_stopped = _serve(build_command(root, port))
    if not was_stopped:
        raise MachineError(f"{_HOST}:{port}: MLflow's server ended by itself. Its output above tells why.")


def build_command(root: Path, port: int) -> list[str]:
    """The command line of the server."""
    database, artifacts = (root / "mlflow.db").absolute(), (root / "mlflow-artifacts").absolute()
    command = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1"]
    return [*command, "--backend-store-uri", f"sqlite:///{database}", "--default-artifact-root", artifacts.as_uri()]


def _serve(command: list[str]) -> bool:
    """Run the server until a signal asks to stop, and leave none of its processes; whether a signal came."""
    is_stopping = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal is_stopping
        is_stopping = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    # Telemetry and the job runner (two more processes) serve other uses of MLflow.
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    server = subprocess.Popen(command, env=environment, start_new_session=True)
    processes = [psutil.Process(server.pid)]
    while not is_stopping and server.poll() is None:
        time.sleep(_POLL_SECONDS)
        with contextlib.suppress(psutil.NoSuchProcess):
            processes = [processes[0], *processes[0].children(recursive=True)]
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=_GRACE_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    return is_stopping


def _find_experiment(database: Path) -> int:
    """The experiment that was used last."""
    try:
        with contextlib.closing(sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT experiment_id FROM runs ORDER BY start_time DESC LIMIT 1").fetchone()
    except sqlite3.Error as error:
        raise MachineError(
            f"{database}: cannot be read as MLflow's database: {error}. "
            "Move it and the mlflow.json of every run away; `llmtrain tracking sync RUN` writes a run into a new one."
        ) from error
    return 0 if row is None else int(row[0])


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError as error:
            raise MachineError(
                f"{_HOST}:{port}: {error.strerror}. Choose another port: llmtrain dashboard --port N."
            ) from error
