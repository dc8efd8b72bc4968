"""MLflow down at the start, killed midway, slow, answering 500: nothing is lost, nothing is doubled."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from llmtrain.errors import MachineError
from llmtrain.tracking import mirror
from llmtrain.tracking.mirror import LOCK_NAME, LOG_NAME, start_mirror, sync_run, wait_for_mirror
from llmtrain.tracking.run_folder import RunWriter, read_metrics
from tests.tracking.conftest import Server, log_steps, make_run, read_mirrored


def wait_until(is_true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def read_state(folder: Path) -> dict[str, object]:
    path = folder / "mlflow.json"
    state: dict[str, object] = json.loads(path.read_text()) if path.exists() else {}
    return state


def read_log(folder: Path) -> str:
    return (folder / "logs" / LOG_NAME).read_text()


def test_a_server_that_comes_late_dies_and_is_slow_gets_every_number_once(tmp_path: Path, server: Server) -> None:
    folder = make_run(tmp_path, f"tracking.tracking_uri={server.address}", "tracking.system_interval_seconds=0.5")
    writer = RunWriter(folder)
    writer.log_event("started")
    process = start_mirror(folder, 0.5)
    log_steps(writer, 1, 20)
    wait_until(lambda: "MLflow is away" in read_log(folder))
    assert read_state(folder) == {}

    server.start()
    wait_until(lambda: "metrics.jsonl" in read_state(folder))
    server.kill()
    before = len(read_log(folder))
    log_steps(writer, 21, 40)
    wait_until(lambda: "MLflow is away" in read_log(folder)[before:])

    (server.folder / "delay").write_text("0.2")
    server.start()
    log_steps(writer, 41, 60)
    writer.log_event("finished")
    process.finish(60)
    (server.folder / "delay").unlink()
    assert read_mirrored(server.address, str(read_state(folder)["run_id"]), folder) == read_metrics(folder)

    from mlflow.tracking import MlflowClient

    client, run_id = MlflowClient(server.address), str(read_state(folder)["run_id"])
    assert client.get_run(run_id).info.status == "FINISHED"
    assert client.get_metric_history(run_id, "system/cpu_utilization_percentage")
    assert {item.path for item in client.list_artifacts(run_id)} >= {"config.yaml"}


def test_a_mirror_gives_up_in_time_and_sync_sends_the_rest(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = server.address.replace("://", "://ada:lovelace@")
    folder = make_run(tmp_path, f"tracking.tracking_uri={secret}")
    writer = RunWriter(folder)
    log_steps(writer, 1, 10)
    writer.log_event("finished")
    code = f"from llmtrain.tracking import mirror; mirror._FINAL_SECONDS = 1.0; mirror._run_mirror({folder!r}, 1.0, %d)"
    with (folder / LOCK_NAME).open("w") as lock:
        result = subprocess.run(
            [sys.executable, "-c", f"from pathlib import PosixPath; {code % lock.fileno()}"],
            pass_fds=[lock.fileno()],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    assert f"`llmtrain tracking sync {folder}` sends the rest" in result.stderr
    assert "lovelace" not in result.stderr
    with pytest.raises(MachineError, match="Nothing is lost; start the server and try again") as caught:
        sync_run(folder)
    assert "lovelace" not in str(caught.value)

    server.start()
    (server.folder / "broken").touch()
    with pytest.raises(MachineError, match="MLflow did not take it"):
        sync_run(folder)
    (server.folder / "broken").unlink()
    sync_run(folder)
    sync_run(folder)
    assert read_mirrored(server.address, str(read_state(folder)["run_id"]), folder) == read_metrics(folder)


def test_a_killed_training_is_marked_failed_and_nothing_is_left_running(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    script = f"""
import time
from pathlib import Path
from llmtrain.tracking.mirror import start_mirror
from llmtrain.tracking.run_folder import RunWriter
folder = Path({str(folder)!r})
writer = RunWriter(folder)
writer.log_event("started")
mirror = start_mirror(folder, 1.0)
for step in range(1, 31):
    writer.log_metrics(step, {{"train/loss": 1.0 / step}})
print(mirror._process.pid, flush=True)
time.sleep(60)
"""
    training = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert training.stdout is not None
    pid = int(training.stdout.readline())
    os.kill(training.pid, signal.SIGKILL)
    training.wait()
    with (folder / LOCK_NAME).open("w") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # held before the process has imported MLflow
    # The next attempt starts at once: its mirror waits for the first one to end.
    second = start_mirror(folder, 1.0)
    wait_until(lambda: not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2])
    uri = f"sqlite:///{tmp_path / 'runs' / 'mlflow.db'}"
    run_id = str(read_state(folder)["run_id"])
    assert read_mirrored(uri, run_id, folder) == read_metrics(folder)

    from mlflow.tracking import MlflowClient

    wait_until(lambda: MlflowClient(uri).get_run(run_id).info.status == "RUNNING")
    writer = RunWriter(folder)
    writer.resume(20)
    log_steps(writer, 21, 40)
    writer.log_event("stopped")
    second.finish(60)
    assert MlflowClient(uri).get_run(run_id).info.status == "KILLED"
    assert [step for step, _ in read_mirrored(uri, run_id, folder)["train/loss"]] == list(range(1, 41))
    assert "Traceback" not in read_log(folder)


def test_two_processes_never_mirror_one_run(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    with (folder / LOCK_NAME).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(MachineError, match="another process is mirroring this run"):
            sync_run(folder)


def test_a_folder_is_moved_only_when_no_process_mirrors_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import fcntl, sys, time; fcntl.flock(0, fcntl.LOCK_EX); print(flush=True); time.sleep(float(sys.argv[1]))"
    for seconds in ("1", "60"):
        with (tmp_path / LOCK_NAME).open("w") as lock:
            holder = subprocess.Popen([sys.executable, "-c", code, seconds], stdin=lock, stdout=subprocess.PIPE)
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            if seconds == "1":
                wait_for_mirror(tmp_path)
                assert holder.wait(5) == 0
            else:
                monkeypatch.setattr(mirror, "_FINAL_SECONDS", 0.05)
                with pytest.raises(MachineError, match="another process is mirroring this run"):
                    wait_for_mirror(tmp_path)
        finally:
            holder.kill()
            holder.communicate()


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="no run here"):
        sync_run(tmp_path)


def test_training_does_not_wait_for_a_mirror_that_does_not_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdin=subprocess.PIPE)
    try:
        mirror.Mirror(process).finish(0.1)
        assert "`llmtrain tracking sync RUN` sends the rest" in caplog.text
    finally:
        process.kill()
        process.wait()
