import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmtrain.stages import doctor
from llmtrain.stages.doctor import run_doctor


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path / "extensions"))


def read_findings(capsys: pytest.CaptureFixture[str], fix: bool = False) -> tuple[int, dict[str, dict[str, Any]]]:
    code = run_doctor(as_json=True, fix=fix)
    return code, {finding["subject"]: finding for finding in json.loads(capsys.readouterr().out)}


def make_lock(folder: Path) -> Path:
    lock = folder / "extensions" / "py311_cpu" / "deepspeed_shm_comm" / "lock"
    lock.parent.mkdir(parents=True)
    lock.touch()
    return lock


def test_a_machine_that_passes_has_no_problem_and_every_finding_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, findings = read_findings(capsys)
    assert code == 0
    assert findings["loopback"]["status"] == findings["python"]["status"] == "ok"
    assert {"torch", "deepspeed", "CPU cores", "GPU", "C++ compiler", "disk", "build locks"} <= findings.keys()
    assert run_doctor(as_json=False, fix=False) == 0
    assert "deepspeed" in capsys.readouterr().out


def test_whatever_is_not_fine_has_a_remedy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    make_lock(tmp_path)
    _, findings = read_findings(capsys)
    assert all(finding["remedy"] for finding in findings.values() if finding["status"] != "ok")


def test_a_lock_of_a_killed_build_is_a_problem_until_it_is_fixed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = make_lock(tmp_path)
    code, findings = read_findings(capsys)
    assert code == 3
    assert findings["build lock"]["status"] == "problem"
    assert findings["build lock"]["remedy"] == "llmtrain doctor --fix"
    assert lock.exists()
    code, _ = read_findings(capsys, fix=True)
    assert code == 0
    assert not lock.exists()


def test_a_lock_that_a_build_holds_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = make_lock(tmp_path)
    lock.unlink()
    hold = f"import os, time; os.open({str(lock)!r}, os.O_CREAT | os.O_EXCL); print(1, flush=True); time.sleep(60)"
    builder = subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE, text=True)
    assert builder.stdout is not None
    builder.stdout.readline()
    os.utime(lock, (0, 0))
    code, findings = read_findings(capsys, fix=True)
    builder.kill()
    builder.wait()
    assert code == 0
    assert f"process {builder.pid} is building" in findings["build lock"]["found"]
    assert lock.exists()


def test_a_young_lock_on_a_shared_file_system_may_belong_to_another_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = make_lock(tmp_path)
    shared = type("Mount", (), {"mountpoint": str(tmp_path), "fstype": "nfs4"})
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: [shared])
    _, findings = read_findings(capsys, fix=True)
    assert findings["build lock"]["status"] == "warning"
    assert lock.exists()
    old = time.time() - 2 * 3600
    os.utime(lock, (old, old))
    read_findings(capsys, fix=True)
    assert not lock.exists()


@pytest.mark.parametrize("threads", ["4096", "4,2", "0", "many"])
def test_an_odd_number_of_threads_is_warned_about(
    threads: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    _, findings = read_findings(capsys)
    assert findings["OMP_NUM_THREADS"]["status"] == "warning"
    assert findings["OMP_NUM_THREADS"]["remedy"].startswith("export OMP_NUM_THREADS=")


def test_packages_are_held_against_their_bounds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    needed = ["numpy<1", "no-such-package-here>=2", "typer>=0.1"]
    monkeypatch.setattr(doctor, "_read_metadata", lambda: {"Requires-Python": ">=99", "Requires-Dist": needed})
    code, findings = read_findings(capsys)
    assert code == 3
    assert findings["python"]["status"] == "problem"
    assert findings["numpy"]["status"] == "warning"
    assert findings["no-such-package-here"]["remedy"] == "pip install 'no-such-package-here>=2'"
    assert findings["typer"]["status"] == "ok"


def test_a_source_tree_that_was_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "_read_metadata", dict)
    code, findings = read_findings(capsys)
    assert code == 3
    assert findings["llmtrain"]["remedy"] == "pip install -e ."


def test_ranks_that_cannot_meet_are_a_problem(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(self: socket.socket, address: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    code, findings = read_findings(capsys)
    assert code == 3
    assert findings["loopback"]["found"] == "Network is unreachable"


def test_leftovers_and_the_database_of_runs_are_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "runs" / "a" / "checkpoints" / "step-00000010.tmp").mkdir(parents=True)
    database = tmp_path / "runs" / "mlflow.db"
    database.write_bytes(b"not a database" * 100)
    _, findings = read_findings(capsys)
    assert "step-00000010.tmp is unfinished" in findings["checkpoint"]["found"]
    assert findings["MLflow database"]["status"] == "warning"
    database.unlink()
    connection = sqlite3.connect(database)
    connection.execute("CREATE TABLE runs (run_uuid TEXT)")
    connection.close()
    _, findings = read_findings(capsys)
    assert findings["MLflow database"]["found"] == "runs/mlflow.db: 0 runs"


def test_the_doctor_comes_without_torch() -> None:
    code = "import sys; from llmtrain.stages.doctor import run_doctor; run_doctor(True, False)"
    script = f"{code}; sys.exit('torch' in sys.modules or 'mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.DEVNULL, check=False).returncode == 0
