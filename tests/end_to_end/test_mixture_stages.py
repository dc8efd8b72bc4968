"""A run that gets another stage, and another source with it, goes on as if both had been there from the start."""

from pathlib import Path

import pytest

from llmtrain.tracking.run_folder import read_metrics
from tests.helpers.commands import read_digest, run_command

COMMON = ["parallel.zero_stage=0", "evaluation.evaluate_every_steps=null", "sampling.sample_every_steps=null"]
STAGED = [
    "data.sources={json: {weight: 1}, email: {weight: 0}}",
    "data.stages=[{from_step: 6, weights: {email: 3, json: 1}}]",
]


def train(project: Path, name: str, *overrides: str) -> None:
    result = run_command(project, "pretrain", "tiny.yaml", "--nproc", "1", f"run.name={name}", *COMMON, *overrides)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def runs(project: Path) -> tuple[Path, Path]:
    train(project, "staged", *STAGED, "training.train_steps=12", "schedule={name: constant}")
    train(
        project, "appended", "data.sources={json: {weight: 1}}", "training.train_steps=5", "schedule={name: constant}"
    )
    train(project, "appended", *STAGED, "training.train_steps=12", "schedule={name: constant}")
    return project / "runs" / "staged", project / "runs" / "appended"


def test_an_appended_stage_gives_the_run_that_had_it_from_the_start(runs: tuple[Path, Path]) -> None:
    staged, appended = runs
    for metric in ("train/loss", "train/grad_norm", "data/loss_json", "data/loss_email"):
        assert read_metrics(appended)[metric] == read_metrics(staged)[metric]
    assert read_digest(appended, 12) == read_digest(staged, 12)


def test_a_source_is_read_from_its_stage_on(runs: tuple[Path, Path]) -> None:
    losses = read_metrics(runs[0])
    assert [step for step, _ in losses["data/loss_email"]] == list(range(7, 13))
    assert [step for step, _ in losses["data/loss_json"]][:6] == list(range(1, 7))


def test_a_stage_that_is_over_cannot_be_changed(runs: tuple[Path, Path], project: Path) -> None:
    changed = [STAGED[0], "data.stages=[{from_step: 6, weights: {email: 1, json: 1}}]", "training.train_steps=14"]
    result = run_command(
        project, "pretrain", "tiny.yaml", "run.name=staged", *COMMON, *changed, "schedule={name: constant}"
    )
    assert result.returncode == 4
    assert "96 sequences were drawn with other shares" in result.stderr
    assert "there: from sequence 0 json 1.0000; from sequence 48 json 0.2500, email 0.7500" in result.stderr
