"""`llmtrain run` with every stage on real text: done once, not again, in part, and after a kill."""

import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.helpers.commands import run_command, start_command
from tests.posttraining.stage_files import JUDGE, read_numbers

GENERATION = {"max_new_tokens": 12}
SHARED = {
    "learning_rate": 1e-3,
    "micro_batch_size": 4,
    "global_batch_size": 8,
    "validation_fraction": 0.2,
    "log_every_steps": 1,
    "save_every_steps": 1,
}
SECTIONS: dict[str, Any] = {
    "instructions": {},
    "sft": SHARED,
    "reward": SHARED | {"sampled": {"label": {"file": "judge.py"}, "pairs": 16, "generation": GENERATION}},
    "ppo": SHARED | {"train_steps": 4, "epochs": 1, "gold": {"file": "judge.py"}, "generation": GENERATION},
    "tracking": {"peak_flops": 1e12, "system_interval_seconds": 60.0},
}
# Importing it takes a third of the time of a short stage.
WITHOUT_MLFLOW = "tracking.mlflow=false"


@pytest.fixture(scope="module")
def folder(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with all stages, run once; its raw text is prepared, its instructions are not made."""
    folder = tmp_path_factory.mktemp("stages")
    shutil.copytree(project / "data", folder / "data")
    values = yaml.safe_load((project / "tiny.yaml").read_text()) | SECTIONS
    values["batch"]["sequence_length"] = 128
    values["training"]["train_steps"] = 4
    del values["evaluation"]["evaluate_every_steps"]
    (folder / "tiny.yaml").write_text(yaml.safe_dump(values))
    (folder / "judge.py").write_text(JUDGE)
    run(folder)
    return folder


def run(folder: Path, *arguments: str) -> str:
    """Run the pipeline; it must end well."""
    result = run_command(folder, "run", "tiny.yaml", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stderr


def list_states(folder: Path, *without: str) -> dict[str, tuple[int, bytes]]:
    """Time and content of every file of the run but the report, which is always drawn, locks, and some folders."""
    root = folder / "runs" / "tiny"
    paths = [path for path in root.rglob("*") if path.is_file() and path.suffix != ".lock" and path.name != "report.md"]
    kept = [path for path in paths if path.relative_to(root).parts[0] not in without]
    return {str(path.relative_to(root)): (path.stat().st_mtime_ns, path.read_bytes()) for path in kept}


def read_events(stage: Path) -> list[str]:
    path = stage / "events.jsonl"
    return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.is_file() else []


def read_weights(stage: Path) -> list[bytes]:
    return [(stage / name / "model.safetensors").read_bytes() for name in ("model", "value_model")]


def find_old(folder: Path) -> set[Path]:
    return set((folder / "runs" / "tiny" / "old").glob("*"))


def test_raw_text_becomes_a_model_that_loads_and_a_report(folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stages = folder / "runs" / "tiny"
    model = AutoModelForCausalLM.from_pretrained(stages / "ppo" / "model")
    assert type(model).__name__ == "LlamaForCausalLM"
    tokenizer = AutoTokenizer.from_pretrained(stages / "ppo" / "model")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is JSON?"}], add_generation_prompt=True, return_tensors="pt"
    )
    assert model.generate(**prompt, max_new_tokens=2, do_sample=False).shape[1] > prompt["input_ids"].shape[1]
    report = (stages / "report.md").read_text()
    for stage in ("pretrain", "sft", "reward", "ppo"):
        assert f"\n| {stage} | " in report
    assert "## Answers" in report
    assert "* ppo: " in report
    assert (stages / "ppo" / "alignment.png").stat().st_size > 10_000


def test_mlflow_holds_every_stage_in_one_experiment(folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{folder / 'runs' / 'mlflow.db'}")
    stages = folder / "runs" / "tiny"
    ids = {
        name: json.loads((stages / name / "mlflow.json").read_text())["run_id"]
        for name in (".", "sft", "reward", "ppo")
    }
    runs = {name: client.get_run(run_id) for name, run_id in ids.items()}
    assert len({run.info.experiment_id for run in runs.values()}) == 1
    assert len({run.data.tags["llmtrain.pipeline"] for run in runs.values()}) == 1
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert runs["ppo"].info.run_name == "tiny/ppo"
    assert runs["ppo"].data.tags["mlflow.parentRunId"] == ids["."]
    assert runs["ppo"].data.tags["llmtrain.parent_run.reward"] == ids["reward"]
    names = {item.dataset.name for item in runs["sft"].inputs.dataset_inputs}
    assert names == {"model: runs/tiny/export", "instructions/docstring.jsonl", "instructions/explain.jsonl"}
    assert "report.md" in {item.path for item in client.list_artifacts(ids["."])}


def test_what_is_finished_is_left_as_it_is(folder: Path) -> None:
    before, report = list_states(folder), (folder / "runs" / "tiny" / "report.md").read_bytes()
    told = run(folder)
    assert told.count("finished with the same inputs") == 5
    assert list_states(folder) == before
    assert (folder / "runs" / "tiny" / "report.md").read_bytes() == report


def test_a_run_killed_in_its_last_stage_ends_with_the_same_bits(folder: Path) -> None:
    stage, before = folder / "runs" / "tiny" / "ppo", find_old(folder)
    others = list_states(folder, "ppo", "old")
    process = start_command(folder, "run", "tiny.yaml", "--from", "ppo", WITHOUT_MLFLOW)
    deadline = time.monotonic() + 120
    while "saved" not in read_events(stage) or not find_old(folder) - before:
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert "finished" not in read_events(stage)
    assert "ppo: not finished" in run(folder, WITHOUT_MLFLOW)
    (old,) = find_old(folder) - before
    assert read_weights(stage) == read_weights(old)
    assert read_numbers(stage) == read_numbers(old)
    assert read_events(stage).count("started") == 2
    assert list_states(folder, "ppo", "old") == others


def test_a_changed_stage_is_done_again_with_the_report_and_nothing_else(folder: Path) -> None:
    before, others = find_old(folder), list_states(folder, "ppo", "old")
    weights = read_weights(folder / "runs" / "tiny" / "ppo")
    told = run(folder, "ppo.train_steps=2", WITHOUT_MLFLOW)
    assert "ppo: changed: ppo.train_steps: " in told
    assert told.count("finished with the same inputs") == 4
    assert list_states(folder, "ppo", "old") == others
    (old,) = find_old(folder) - before
    assert read_weights(old) == weights
    assert read_weights(folder / "runs" / "tiny" / "ppo") != weights
    last = read_numbers(folder / "runs" / "tiny" / "ppo")[-1]
    assert last[0] == 2
