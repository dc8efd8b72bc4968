"""The main job through the command line: raw text to a model that `transformers` runs."""

import json
from pathlib import Path

import pytest

from llmtrain.tracking.run_folder import read_metrics
from tests.helpers.commands import read_curve, run_command


@pytest.fixture
def run_folder(main_run: Path) -> Path:
    return main_run


def test_the_run_folder_tells_what_happened(run_folder: Path) -> None:
    summary = json.loads((run_folder / "summary.json").read_text())
    assert summary["train_tokens"] == 10 * 8 * 16
    validation = summary["validation"]
    assert validation["by_source"].keys() == {"json", "email"}
    total = sum(row["loss"] * row["target_tokens"] for row in validation["by_source"].values())
    assert validation["loss"] == pytest.approx(total / validation["target_tokens"])
    assert 0 < validation["bigram"] < validation["unigram"]
    assert summary["data_wait_fraction"] < 1
    curve = read_curve(run_folder)
    assert [step for step, metrics in curve if "train/loss" in metrics] == list(range(1, 11))
    told = {name for _, metrics in curve for name in metrics}  # a batch of eight may hold one source only
    assert {"data/loss_json", "data/loss_email", "data/epoch_json"} <= told
    assert (run_folder / "curves.png").stat().st_size > 10_000
    events = [json.loads(line)["event"] for line in (run_folder / "events.jsonl").read_text().splitlines()]
    assert events == ["started", "finished"]


def test_the_plan_foretells_the_epochs_of_the_run(project: Path, run_folder: Path) -> None:
    planned = run_command(project, "plan", "runs/main/config.yaml", "--cluster", "two_core_cpu", "--json")
    assert planned.returncode == 0, planned.stderr
    sources = {source["name"]: source for source in json.loads(planned.stdout)["mixture"]["sources"]}
    told = json.loads((run_folder / "summary.json").read_text())["validation"]["by_source"]
    assert sources.keys() == told.keys()
    for name, row in told.items():  # the run divides by tokens, some of which are behind the last window
        assert sources[name]["drawn_tokens"] / sources[name]["tokens"] == pytest.approx(row["epochs"])
        assert sources[name]["epochs"] == pytest.approx(row["epochs"], rel=0.02)


def test_planned_stands_beside_measured(run_folder: Path) -> None:
    summary = json.loads((run_folder / "summary.json").read_text())
    record = json.loads((run_folder / "plan.json").read_text())
    assert summary["plan"] == record
    assert len(json.loads((run_folder / "plan_ranks.json").read_text())) == 2
    assert (record["step"], record["cluster"]) == (10, "two CPU cores")
    assert abs(record["checkpoint_gib"]["error"]) < 0.15  # names and digests of so small a model
    assert abs(record["peak_memory_gib"]["error"]) < 0.15
    assert abs(record["sent_gib"]["error"]) < 0.05
    assert record["step_seconds"]["measured"] > 0
    told = read_metrics(run_folder)
    for name in ("step_seconds", "peak_memory_gib", "checkpoint_gib", "sent_gib"):
        for kind in ("planned", "measured", "error"):
            assert told[f"plan/{name}_{kind}"][-1] == (10, record[name][kind])


def test_mlflow_holds_what_the_run_folder_holds(run_folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{run_folder.parent / 'mlflow.db'}")
    state = json.loads((run_folder / "mlflow.json").read_text())
    run = client.get_run(state["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["model.num_layers"] == "2"
    assert {item.dataset.name for item in run.inputs.dataset_inputs} >= {"json/train", "email/validation"}
    assert "bigram" in run.data.tags["mlflow.note.content"]
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    for name in ("train/loss", "data/loss_json", "validation/loss", "perf/tokens_per_second", "plan/sent_gib_error"):
        expected = [(line["step"], line["metrics"][name]) for line in lines if name in line["metrics"]]
        found = sorted((metric.step, metric.value) for metric in client.get_metric_history(state["run_id"], name))
        assert found == expected
    assert client.get_metric_history(state["run_id"], "system/cpu_utilization_percentage")
    artifacts = {item.path for item in client.list_artifacts(state["run_id"])}
    assert {"config.yaml", "samples.json", "summary.json", "curves.png"} <= artifacts


def test_the_export_runs_in_transformers_and_gives_our_ids(run_folder: Path) -> None:
    from transformers import pipeline

    from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer

    generator = pipeline("text-generation", model=str(run_folder / "export"))
    text = generator("def ", max_new_tokens=4, do_sample=False)[0]["generated_text"]
    assert text.startswith("def ")
    ours = Tokenizer.load(run_folder.parent.parent / "data" / "tiny" / "tokenizer")
    assert generator.tokenizer("def f():\n")["input_ids"] == [ours.bos_id, *ours.encode("def f():\n")]


def test_the_model_continues_text_and_the_seed_decides(project: Path, run_folder: Path) -> None:
    arguments = ["generate", str(run_folder), "--prompt", "def ", "--max-new-tokens", "8"]
    first, again = run_command(project, *arguments), run_command(project, *arguments)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("def ")
    assert first.stdout == again.stdout


def test_a_finished_run_is_not_trained_or_summed_up_again(project: Path, run_folder: Path) -> None:
    names = ("metrics.jsonl", "samples.jsonl", "summary.json", "curves.png")
    before = {name: (run_folder / name).read_bytes() for name in names}
    config = (run_folder / "config.yaml").read_text()
    result = run_command(project, "pretrain", "runs/main/config.yaml", "--nproc", "2", "tracking.mlflow=false")
    (run_folder / "config.yaml").write_text(config)  # other tests share this run
    assert result.returncode == 0, result.stderr
    assert {name: (run_folder / name).read_bytes() for name in names} == before


def test_checkpoints_are_listed_and_verified(project: Path, run_folder: Path) -> None:
    listed = run_command(project, "checkpoint", "list", str(run_folder))
    assert "10" in listed.stdout
    verified = run_command(project, "checkpoint", "verify", str(run_folder))
    assert verified.returncode == 0
    assert "step-00000010: whole" in verified.stdout


def test_a_dry_run_prints_values_with_origins_and_the_plan_and_writes_nothing(project: Path) -> None:
    result = run_command(project, "pretrain", "tiny.yaml", "--dry-run", "--nproc", "4", "run.name=dry", "run.seed=5")
    assert result.returncode == 0, result.stderr
    assert "command line" in result.stdout
    assert "4 = data 4 x tensor 1 x pipeline 1" in result.stdout
    assert not (project / "runs" / "dry").exists()


def test_a_typing_mistake_costs_exit_code_2_and_one_line(project: Path) -> None:
    result = run_command(project, "pretrain", "tiny.yaml", "optimizer.learning_rte=1")
    assert result.returncode == 2
    assert result.stderr == (
        "configuration: command line: unknown key 'optimizer.learning_rte'. Did you mean 'optimizer.learning_rate'?\n"
    )
