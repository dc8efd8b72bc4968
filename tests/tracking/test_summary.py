import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from llmtrain.data.baselines import Baselines
from llmtrain.plan.build import build_plan
from llmtrain.tracking import metric_names as names
from llmtrain.tracking.run_folder import RunWriter
from llmtrain.tracking.summary import build_summary, plot_run, render_summary
from llmtrain.tracking.throughput import ThroughputMeter
from tests.helpers.configs import load_tiny_config

BASELINES = {
    "code": Baselines(unigram=5.0, bigram=3.0, target_tokens=300, train_tokens=1000),
    "web": Baselines(unigram=6.0, bigram=4.0, target_tokens=100, train_tokens=2000),
}


def finish_run(folder: Path) -> tuple[Path, dict[str, Any]]:
    """Ten steps of a run, and its summary."""
    config = load_tiny_config(folder, f"run.root={folder}")
    meter = ThroughputMeter(
        tokens_per_step=128,
        flops_per_token=1e5,
        peak_flops=1e9,
        device=torch.device("cpu"),
        read_wait_seconds=lambda: 0.0,
    )
    writer = RunWriter(config.run.folder)
    for step in range(1, 11):
        meter.end_step()
        # `web` is so rare that no interval holds one of its sequences.
        metrics = {names.TRAIN_LOSS: 5 - step / 10, names.train_loss_of("code"): 4 - step / 10}
        metrics |= {names.epoch_of("code"): step / 5, names.epoch_of("web"): 0.0}
        writer.log_metrics(step, metrics | meter.take_interval())
    writer.log_metrics(10, {names.VALIDATION_LOSS: 2.5} | {names.validation_loss_of(name): 2.5 for name in BASELINES})
    return config.run.folder, build_summary(config, build_plan(config, 1, 400), BASELINES, meter, seconds=12.0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    return finish_run(tmp_path_factory.mktemp("summary"))


def test_the_summary_sets_the_model_against_counting_on_the_same_tokens(finished: tuple[Path, dict[str, Any]]) -> None:
    _, summary = finished
    validation = summary["validation"]
    assert validation["loss"] == 2.5
    assert validation["unigram"] == pytest.approx((5 * 300 + 6 * 100) / 400)
    assert validation["bigram"] == pytest.approx((3 * 300 + 4 * 100) / 400)
    assert validation["target_tokens"] == 400
    assert validation["by_source"]["code"]["epochs"] == 2
    assert validation["by_source"]["web"]["train_loss"] is None
    assert summary["train_loss"] == pytest.approx(4.0)
    assert summary["train_tokens"] == 1280
    assert summary["wall_seconds"] == 12
    assert summary["device"] == "cpu"
    assert summary["tokens_per_second"] > 0
    assert summary["versions"].keys() >= {"python", "torch", "deepspeed", "llmtrain"}
    assert json.loads(json.dumps(summary)) == summary


def test_the_markdown_has_one_row_for_each_source_and_one_for_all(finished: tuple[Path, dict[str, Any]]) -> None:
    lines = render_summary(finished[1]).splitlines()
    assert lines[2] == "| code | 2.5000 | 3.0000 | 5.0000 | 300 | 2.00 |"
    assert lines[3] == "| web | 2.5000 | 4.0000 | 6.0000 | 100 | 0.00 |"
    assert lines[4] == "| **all** | **2.5000** | **3.2500** | 5.2500 | 400 | |"


def test_the_picture_is_drawn_even_for_a_source_that_was_never_drawn(
    finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    folder, summary = finished
    plot_run(summary, folder, tmp_path / "curves.png")
    content = (tmp_path / "curves.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 10_000


def test_the_mirror_s_process_needs_no_torch() -> None:
    code = "import sys, llmtrain.tracking.mlflow_run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
