"""Command `dashboard`: MLflow's pages for the runs of a folder, on this machine only."""

import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path
from types import FrameType

from llmtrain.errors import ConfigError, MachineError

logger = logging.getLogger(__name__)

_HOST = "127.0.0.1"  # the server knows no users


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
    server = subprocess.Popen(
        build_command(root, port), env=os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}, start_new_session=True
    )

    def stop(number: int, frame: FrameType | None) -> None:
        os.killpg(server.pid, signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    code = server.wait()
    if code not in (0, -signal.SIGTERM, 128 + signal.SIGTERM):
        raise MachineError(f"MLflow's server ended with code {code}. Its output above tells why.")


def build_command(root: Path, port: int) -> list[str]:
    """The command line of the server."""
    database, artifacts = (root / "mlflow.db").absolute(), (root / "mlflow-artifacts").absolute()
    command = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", str(port), "--workers", "1"]
    return [*command, "--backend-store-uri", f"sqlite:///{database}", "--default-artifact-root", artifacts.as_uri()]


def _find_experiment(database: Path) -> int:
    """The experiment that was used last."""
    with sqlite3.connect(f"file:{database}?mode=ro", uri=True) as connection:
        row = connection.execute("SELECT experiment_id FROM runs ORDER BY start_time DESC LIMIT 1").fetchone()
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
