"""Stages of one run in MLflow: a run each, nested, with what they were made from. Folders are written by hand."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from llmtrain.config.loader import dump_config, validate_stage
from llmtrain.config.root import PosttrainingConfig
from llmtrain.tracking.mirror import sync_run
from llmtrain.tracking.mlflow_run import MlflowRun
from llmtrain.tracking.run_folder import RunWriter, read_lines, read_metrics
from llmtrain.tracking.stage_folder import find_root, name_pipeline
from tests.helpers.configs import load_tiny_config
from tests.tracking.conftest import read_mirrored

STAGES = ("sft", "reward", "ppo")
SECTIONS = ["sft.learning_rate=1e-3", "reward.learning_rate=1e-4", "ppo.learning_rate=1e-5", "ppo.train_steps=4"]
RUN, CHATS = Path("runs/tiny"), "data/own/chats.jsonl"
MODELS = {
    "sft": {"model": "runs/tiny/export"},
    "reward": {"model": "runs/tiny/sft/model"},
    "ppo": {"model": "runs/tiny/sft/model", "reward model": "runs/tiny/reward/model"},
}
SCORES = {"score_model": 0.5, "reward": 0.5, "gold": 1.0, "kl": 0.1}


@pytest.fixture(autouse=True)
def database(tmp_path: Path, empty_database: Path) -> None:
    (tmp_path / "runs").mkdir()
    shutil.copy(empty_database, tmp_path / "runs" / "mlflow.db")


def make_config(folder: Path, is_whole: bool = True) -> PosttrainingConfig:
    """Of a whole run, or of its stages alone."""
    if is_whole:
        return load_tiny_config(folder, "instructions={}", *SECTIONS)
    rates: dict[str, Any] = {name: {"learning_rate": 1e-3} for name in STAGES}
    sft = {"sft": rates["sft"] | {"data": {"chats": {"paths": [CHATS]}}}}
    reward = {"reward": rates["reward"] | {"data": {"pairs": {"paths": ["pairs.jsonl"]}}}}
    return validate_stage(
        {"run": {"name": "tiny"}} | sft | reward | {"ppo": rates["ppo"] | {"train_steps": 4}},
        {},
    )


def make_pretraining(config: PosttrainingConfig) -> Path:
    RUN.mkdir(exist_ok=True)
    (RUN / "config.yaml").write_text(dump_config(config))
    writer = RunWriter(RUN)
    writer.log_event("started")
    writer.log_metrics(1, {"train/loss": 4.0})
    writer.log_event("finished")
    writer.close()
    return RUN


def make_stage(config: PosttrainingConfig, name: str, folder: Path | None = None) -> Path:
    """A stage that ended well."""
    folder = folder or RUN / name
    writer = RunWriter(folder)
    (folder / "config.yaml").write_text(dump_config(config))
    parts = {f"model {role}": f"{path}-digest".rjust(64, "0") for role, path in MODELS[name].items()}
    parts |= {"code": "1", "seed": "7", f"section {name}": "s" * 64, f"file {CHATS}": "c" * 64}
    stage = {"stage": name, "inputs": "i" * 64, "parts": parts, "models": MODELS[name], "finished": "i" * 64}
    (folder / "stage.json").write_text(json.dumps(stage))
    writer.log_event("started")
    for step in range(1, 5):
        log_step(writer, step)
    writer.log_sample(0, "What is | it?", "a\nb", **SCORES)
    writer.log_sample(4, "What is | it?", "better", **SCORES | {"gold": 2.0})
    writer.write_summary({"run": "tiny", "stage": name})
    (folder / "summary.md").write_text(f"numbers of {name}")
    (folder / "alignment.png").write_bytes(b"\x89PNG")
    writer.log_event("finished")
    writer.close()
    return folder


def log_step(writer: RunWriter, step: int) -> None:
    writer.log_metrics(step, {"train/loss": 4 - step / 10, "ppo/kl": step / 100})
    writer.log_metrics(step, {"validation/reward": step / 10})


def find_uri() -> str:
    # Absolute: MLflow keeps databases open by their address.
    return f"sqlite:///{Path('runs/mlflow.db').absolute()}"


def open_client() -> MlflowClient:
    return MlflowClient(find_uri())


def send(folder: Path) -> str:
    """Send a whole folder; the id of its run."""
    run = MlflowRun(folder)
    run.send()
    run.finish()
    return read_run_id(folder)


def read_run_id(folder: Path) -> str:
    run_id: str = json.loads((folder / "mlflow.json").read_text())["run_id"]
    return run_id


def read_runs() -> dict[str, Run]:
    """All runs of all experiments, by name; every name is there once."""
    client = open_client()
    runs = client.search_runs([item.experiment_id for item in client.search_experiments()])
    assert len({run.info.run_name for run in runs}) == len(runs)
    return {run.info.run_name: run for run in runs}


def send_all(config: PosttrainingConfig) -> dict[str, Run]:
    send(make_pretraining(config))
    for name in STAGES:
        send(make_stage(config, name))
    return read_runs()


def test_every_stage_is_a_run_of_one_experiment_and_one_pipeline(tmp_path: Path) -> None:
    runs = send_all(make_config(tmp_path))
    assert runs.keys() == {"tiny", "tiny/sft", "tiny/reward", "tiny/ppo"}
    assert len({run.info.experiment_id for run in runs.values()}) == 1
    assert {name: run.data.tags["llmtrain.stage"] for name, run in runs.items()} == {
        "tiny": "pretrain",
        "tiny/sft": "sft",
        "tiny/reward": "reward",
        "tiny/ppo": "ppo",
    }
    assert len({run.data.tags["llmtrain.pipeline"] for run in runs.values()}) == 1
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert sorted(path.name for path in Path("runs").iterdir()) == ["mlflow-artifacts", "mlflow.db", "tiny"]
    assert not (RUN / "mlflow.db").exists()


def test_a_stage_names_the_runs_it_descends_from(tmp_path: Path) -> None:
    runs = send_all(make_config(tmp_path))
    ids = {name: run.info.run_id for name, run in runs.items()}
    parents = {
        name: {key: value for key, value in run.data.tags.items() if "arent" in key} for name, run in runs.items()
    }
    root = {"mlflow.parentRunId": ids["tiny"]}
    assert parents == {
        "tiny": {},
        "tiny/sft": root | {"llmtrain.parent_run.tiny": ids["tiny"]},
        "tiny/reward": root | {"llmtrain.parent_run.sft": ids["tiny/sft"]},
        "tiny/ppo": root
        | {"llmtrain.parent_run.sft": ids["tiny/sft"], "llmtrain.parent_run.reward": ids["tiny/reward"]},
    }


def test_stages_without_pretraining_stand_for_themselves(tmp_path: Path) -> None:
    config = make_config(tmp_path, is_whole=False)
    for name in STAGES:
        send(make_stage(config, name))
    runs = read_runs()
    assert runs.keys() == {"tiny/sft", "tiny/reward", "tiny/ppo"}
    assert not any("mlflow.parentRunId" in run.data.tags for run in runs.values())
    assert len({run.data.tags["llmtrain.pipeline"] for run in runs.values()}) == 1
    assert "llmtrain.parent_run.tiny" not in runs["tiny/sft"].data.tags
    assert runs["tiny/ppo"].data.tags["llmtrain.parent_run.sft"] == runs["tiny/sft"].info.run_id


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_stage_shows_the_parameters_of_its_section_only(tmp_path: Path, is_whole: bool) -> None:
    send(make_stage(make_config(tmp_path, is_whole), "ppo"))
    parameters = read_runs()["tiny/ppo"].data.params
    assert {key.partition(".")[0] for key in parameters} == {"run", "ppo", "tracking"}
    assert parameters["ppo.train_steps"] == "4"
    assert parameters["ppo.generation.max_new_tokens"] == "48"


def test_inputs_are_files_and_models_by_their_digests(tmp_path: Path) -> None:
    send(make_stage(make_config(tmp_path), "ppo"))
    inputs = read_runs()["tiny/ppo"].inputs.dataset_inputs
    found = {item.dataset.name: (item.dataset.digest, json.loads(item.dataset.source)["uri"]) for item in inputs}
    assert found == {
        "model: runs/tiny/sft/model": ("runs/tiny/sft/model-digest".rjust(64, "0")[:36], "runs/tiny/sft/model"),
        "reward model: runs/tiny/reward/model": (
            "runs/tiny/reward/model-digest".rjust(64, "0")[:36],
            "runs/tiny/reward/model",
        ),
        "own/chats.jsonl": ("c" * 36, CHATS),
    }
    contexts = {item.dataset.name: item.tags[0].value for item in inputs}
    assert contexts["own/chats.jsonl"] == "file"
    assert contexts["model: runs/tiny/sft/model"] == "model"


def test_files_that_look_alike_are_one_input(tmp_path: Path) -> None:
    folder = make_stage(make_config(tmp_path), "sft")
    stage = json.loads((folder / "stage.json").read_text())
    stage["parts"]["file elsewhere/data/own/chats.jsonl"] = "c" * 64  # a copy, of the same last names
    (folder / "stage.json").write_text(json.dumps(stage))
    send(folder)
    names = [item.dataset.name for item in read_runs()["tiny/sft"].inputs.dataset_inputs]
    assert sorted(names) == ["model: runs/tiny/export", "own/chats.jsonl"]


def test_the_same_records_in_two_stages_are_the_same_dataset(tmp_path: Path) -> None:
    runs = send_all(make_config(tmp_path))
    digests = {
        item.dataset.digest
        for name in ("tiny/sft", "tiny/ppo")
        for item in runs[name].inputs.dataset_inputs
        if item.dataset.name == "own/chats.jsonl"
    }
    assert digests == {"c" * 36}


def read_table(folder: Path, to: Path) -> dict[str, Any]:
    path = open_client().download_artifacts(read_run_id(folder), "samples.json", str(to))
    table: dict[str, Any] = json.loads(Path(path).read_text(encoding="utf-8"))
    return table


def test_the_table_of_samples_tells_what_an_answer_is_worth(tmp_path: Path) -> None:
    folder = make_stage(make_config(tmp_path), "ppo")
    run_id = send(folder)
    assert read_table(folder, tmp_path) == {
        "columns": ["step", "prompt", "text", "score_model", "reward", "gold", "kl"],
        "data": [[0, "What is | it?", "a\nb", 0.5, 0.5, 1.0, 0.1], [4, "What is | it?", "better", 0.5, 0.5, 2.0, 0.1]],
    }
    run = open_client().get_run(run_id)
    assert json.loads(run.data.tags["mlflow.loggedArtifacts"]) == [{"path": "samples.json", "type": "table"}]


def test_rows_from_before_a_measure_was_added_are_left_out_of_the_table(tmp_path: Path) -> None:
    folder = make_stage(make_config(tmp_path), "ppo")
    writer = RunWriter(folder)
    writer.log_sample(5, "Why?", "so", **SCORES, short=3.0)
    send(folder)
    table = read_table(folder, tmp_path)
    assert table["columns"][-1] == "short"
    assert [row[0] for row in table["data"]] == [5]


def test_summary_page_and_pictures_are_artifacts_of_the_stage(tmp_path: Path) -> None:
    run_id = send(make_stage(make_config(tmp_path), "reward"))
    client = open_client()
    assert client.get_run(run_id).data.tags["mlflow.note.content"] == "numbers of reward"
    names = {item.path for item in client.list_artifacts(run_id)}
    assert names == {"config.yaml", "samples.json", "summary.json", "alignment.png"}


def test_the_report_goes_to_the_run_of_pretraining(tmp_path: Path) -> None:
    folder = make_pretraining(make_config(tmp_path))
    (folder / "report.md").write_text("# tiny")
    (folder / "summary.json").write_text(json.dumps({"run": "tiny"}))
    (folder / "summary.md").write_text("numbers")
    run_id = send(folder)
    artifacts = open_client().list_artifacts(run_id)
    assert {item.path for item in artifacts} == {"config.yaml", "summary.json", "report.md"}


def test_a_torn_summary_keeps_nothing_else_from_mlflow(tmp_path: Path) -> None:
    folder = make_stage(make_config(tmp_path), "sft")
    (folder / "summary.json").write_text('{"run": "ti')
    run_id = send(folder)
    assert open_client().get_run(run_id).info.status == "FINISHED"


def test_sending_again_after_a_resume_doubles_nothing(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    send(make_pretraining(config))
    folder = make_stage(config, "ppo")
    first = send(folder)
    writer = RunWriter(folder)
    writer.resume(2)
    writer.log_event("started")
    for step in range(3, 7):
        log_step(writer, step)
    writer.log_sample(6, "What is | it?", "best", **SCORES)
    run = MlflowRun(folder)
    run.reopen()
    run.send()
    assert read_runs()["tiny/ppo"].info.status == "RUNNING"
    writer.log_event("finished")
    run.finish()
    sync_run(folder)
    assert read_run_id(folder) == first
    assert len(read_runs()) == 2
    assert read_mirrored(find_uri(), first, folder) == read_metrics(folder)
    assert [row[0] for row in read_table(folder, tmp_path)["data"]] == [0, 6]
    assert len(read_runs()["tiny/ppo"].inputs.dataset_inputs) == 3


def test_a_stage_done_again_is_a_new_run_beside_the_old_one(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    send(make_pretraining(config))
    old_id = send(make_stage(config, "ppo"))
    (RUN / "old").mkdir()
    old = (RUN / "ppo").rename(RUN / "old" / "ppo-20260101-000000")
    new_id = send(make_stage(config, "ppo"))
    assert new_id != old_id
    sync_run(old)
    assert read_run_id(old) == old_id
    assert find_root(old) == tmp_path / "runs"
    assert name_pipeline(old) == name_pipeline(RUN)
    assert not list(RUN.rglob("mlflow.db"))


def test_the_last_event_of_a_stage_tells_its_status(tmp_path: Path) -> None:
    folder = make_stage(make_config(tmp_path), "sft")
    events = read_lines(folder / "events.jsonl")
    statuses = {}
    for event in ("started", "saved", "stopped"):
        (folder / "events.jsonl").write_text(json.dumps(events[0] | {"event": event}) + "\n")
        statuses[event] = open_client().get_run(send(folder)).info.status
    assert statuses == {"started": "FAILED", "saved": "FAILED", "stopped": "KILLED"}
