import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from llmtrain.errors import ConfigError, MachineError
from llmtrain.stages.dashboard import open_dashboard


def pick_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def make_database(root: Path) -> Path:
    from mlflow.tracking import MlflowClient

    root.mkdir()
    client = MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.create_experiment("llmtrain", (root / "mlflow-artifacts").as_uri())
    client.create_run(experiment, run_name="quick")
    return root / "mlflow.db"


def test_a_folder_without_runs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no mlflow.db here. Give the folder that holds the runs"):
        open_dashboard(tmp_path, pick_port())


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(MachineError, match=f"127.0.0.1:{port}: Address already in use. Choose another port"):
            open_dashboard(tmp_path, port)


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(MachineError, match="cannot be read as MLflow's database"):
        open_dashboard(tmp_path, pick_port())
    (tmp_path / "mlflow.db").unlink()
    sqlite3.connect(tmp_path / "mlflow.db").close()
    with pytest.raises(MachineError, match="no such table: runs"):
        open_dashboard(tmp_path, pick_port())


def test_it_serves_on_this_machine_only_and_leaves_no_process(tmp_path: Path) -> None:
    make_database(tmp_path / "runs")
    port = pick_port()
    command = [sys.executable, "-m", "llmtrain", "dashboard", str(tmp_path / "runs"), "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path)
    processes: list[psutil.Process] = []
    try:
        deadline = time.monotonic() + 90
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                    assert answer.status == 200
                break
            except OSError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.2)
        time.sleep(0.5)
        processes = psutil.Process(process.pid).children(recursive=True)
        addresses = {c.laddr.ip for p in processes for c in p.net_connections("inet") if c.status == psutil.CONN_LISTEN}
        assert addresses == {"127.0.0.1"}
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(30) == 0, (tmp_path / "log").read_text()
        assert not [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]
    finally:
        for left in [*processes, psutil.Process(process.pid)] if process.poll() is None else processes:
            if left.is_running():
                left.kill()
    log_text = (tmp_path / "log").read_text()
    expected = f"http://127.0.0.1:{port}/#/experiments/1/runs?workflowType=machine_learning&compareRunsMode=CHART"
    assert expected in log_text
    assert "Traceback" not in log_text
