import json
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from llmtrain.stages.run_folder import load_run_config
from llmtrain.tracking.mirror import sync_run
from llmtrain.tracking.mlflow_run import MlflowRun
from llmtrain.tracking.run_folder import RunWriter, read_metrics
from tests.tracking.conftest import log_steps, make_run, read_mirrored


@pytest.fixture(autouse=True)
def database(tmp_path: Path, empty_database: Path) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_database, tmp_path / "runs" / "mlflow.db")


def open_client(folder: Path) -> tuple[MlflowClient, str]:
    run_id: str = json.loads((folder / "mlflow.json").read_text())["run_id"]
    return MlflowClient(f"sqlite:///{folder.parent / 'mlflow.db'}"), run_id


def read_samples(folder: Path, to: Path) -> list[list[object]]:
    client, run_id = open_client(folder)
    table = json.loads(Path(client.download_artifacts(run_id, "samples.json", str(to))).read_text(encoding="utf-8"))
    assert table["columns"] == ["step", "prompt", "text"]
    rows: list[list[object]] = table["data"]
    return rows


def test_a_run_shows_its_parameters_data_and_configuration(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "tracking.experiment=bench")
    MlflowRun(folder).send()
    client, run_id = open_client(folder)
    run = client.get_run(run_id)
    assert run.info.run_name == "tiny"
    assert run.data.params["optimizer.learning_rate"] == "0.01"
    assert run.data.params["batch.micro_batch_size"] == "2"
    assert run.data.tags["llmtrain.stage"] == "pretrain"
    assert run.data.tags["version.torch"]
    dataset = run.inputs.dataset_inputs[0].dataset
    assert dataset.name == "code/train"
    assert json.loads(dataset.profile) == {"tokens": 100, "documents": 3, "licence": "PSF-2.0"}
    assert [item.path for item in client.list_artifacts(run_id)] == ["config.yaml"]


def test_what_the_preparation_of_the_data_counted_goes_with_the_dataset(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    data = load_run_config(folder).data.folder
    report = {"code": {"dropped": {"too_short": 2}, "languages": {"python": 3}, "samples": {"too_short": ["x"]}}}
    (data / "report.json").write_text(json.dumps(report))
    (data / "report.html").write_text("<p>page</p>")
    MlflowRun(folder).send()
    client, run_id = open_client(folder)
    profile = json.loads(client.get_run(run_id).inputs.dataset_inputs[0].dataset.profile)
    assert profile["prepared_dropped"] == {"too_short": 2}
    assert profile["prepared_languages"] == {"python": 3}
    assert "prepared_samples" not in profile
    assert [item.path for item in client.list_artifacts(run_id, "data")] == ["data/report.html"]


def test_artifacts_lie_beside_the_runs_and_not_in_the_current_directory(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    MlflowRun(folder).send()
    assert list((tmp_path / "runs" / "mlflow-artifacts").glob("*/artifacts/config.yaml"))
    assert not (tmp_path / "mlruns").exists()
    assert not (tmp_path / "mlflow.db").exists()


def test_no_password_reaches_mlflow(tmp_path: Path) -> None:
    folder = make_run(tmp_path, "sampling.prompts=['https://ada:lovelace@mlflow.example/x']")
    MlflowRun(folder).send()
    client, run_id = open_client(folder)
    assert client.get_run(run_id).data.params["sampling.prompts"] == "['https://***@mlflow.example/x']"
    artifact = Path(client.download_artifacts(run_id, "config.yaml", str(tmp_path)))
    assert "lovelace" not in artifact.read_text()


def test_a_kill_between_sending_and_remembering_doubles_nothing(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    writer = RunWriter(folder)
    MlflowRun(folder).send()
    before = (folder / "mlflow.json").read_bytes()
    log_steps(writer, 1, 10)
    writer.log_sample(10, "def ", "main():")
    MlflowRun(folder).send()
    (folder / "mlflow.json").write_bytes(before)
    MlflowRun(folder).send()
    client, run_id = open_client(folder)
    assert read_mirrored(f"sqlite:///{folder.parent / 'mlflow.db'}", run_id, folder) == read_metrics(folder)
    assert read_samples(folder, tmp_path) == [[10, "def ", "main():"]]
    assert json.loads(client.get_run(run_id).data.tags["mlflow.loggedArtifacts"]) == [
        {"path": "samples.json", "type": "table"}
    ]


def test_a_resumed_run_continues_its_curves_without_gaps_or_doubles(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    writer = RunWriter(folder)
    log_steps(writer, 1, 9)
    writer.log_metrics(10, {"train/loss": 4.9, "perf/tokens_per_second": 1010.0})
    writer.log_sample(9, "def ", "old")
    MlflowRun(folder).send()
    writer.close()

    writer = RunWriter(folder)
    writer.resume(5)
    log_steps(writer, 6, 20)
    writer.log_sample(9, "def ", "new")
    writer.log_sample(20, "def ", "newer")
    run = MlflowRun(folder)
    run.reopen()
    run.send()
    _, run_id = open_client(folder)
    assert read_mirrored(f"sqlite:///{folder.parent / 'mlflow.db'}", run_id, folder) == read_metrics(folder)
    assert read_samples(folder, tmp_path) == [[9, "def ", "new"], [20, "def ", "newer"]]


def test_the_last_event_tells_the_status(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    writer, run = RunWriter(folder), MlflowRun(folder)
    run.send()
    client, run_id = open_client(folder)
    statuses = {}
    for event in ("started", "stopped", "diverged", "finished"):
        writer.log_event(event)
        run.finish()
        statuses[event] = client.get_run(run_id).info.status
    assert statuses == {"started": "FAILED", "stopped": "KILLED", "diverged": "FAILED", "finished": "FINISHED"}


def test_runs_of_one_root_share_an_experiment(tmp_path: Path) -> None:
    folders = [make_run(tmp_path, f"run.name={name}") for name in ("first", "second")]
    for folder in folders:
        MlflowRun(folder).send()
    states = [json.loads((folder / "mlflow.json").read_text()) for folder in folders]
    assert states[0]["experiment_id"] == states[1]["experiment_id"]
    assert states[0]["run_id"] != states[1]["run_id"]


def test_a_run_can_be_written_into_a_new_database_from_its_folder_alone(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    writer = RunWriter(folder)
    log_steps(writer, 1, 5)
    writer.log_event("finished")
    sync_run(folder)
    (folder.parent / "mlflow.db").unlink()
    command = [sys.executable, "-m", "llmtrain", "tracking", "sync", str(folder)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 3
    assert "MLflow did not take it" in result.stderr
    (folder / "mlflow.json").unlink()
    subprocess.run(command, check=True)
    client = sqlite3.connect(folder.parent / "mlflow.db")
    rows = client.execute("SELECT step, value FROM metrics WHERE key = 'train/loss' ORDER BY step").fetchall()
    client.close()
    assert rows == read_metrics(folder)["train/loss"]


def test_a_run_that_is_sent_later_keeps_its_own_times(tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    lines = [{"time": 1000.0, "event": "started"}, {"time": 5000.0, "event": "finished"}]
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    sync_run(folder)
    client, run_id = open_client(folder)
    info = client.get_run(run_id).info
    assert (info.start_time, info.end_time) == (1_000_000, 5_000_000)
