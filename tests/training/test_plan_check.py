"""Planned beside measured, of runs on two ranks."""

from pathlib import Path

import pytest
import torch

from llmtrain.config.cluster import load_cluster
from llmtrain.errors import ConfigError
from llmtrain.plan.build import build_plan
from llmtrain.plan.memory import GIB, compute_checkpoint_bytes, list_rank_memories
from llmtrain.plan.step_time import compute_step_time
from llmtrain.plan.traffic import Traffic, compute_traffic
from llmtrain.plan.workload import Workload, build_workload
from llmtrain.training import plan_check
from llmtrain.training.plan_check import (
    RankMeasurement,
    compare_with_plan,
    find_cluster,
    list_rank_comparisons,
    plan_run,
)
from tests.helpers.configs import load_tiny_config

CLUSTER = load_cluster("two_core_cpu")


def make_work(folder: Path) -> Workload:
    config = load_tiny_config(folder, "parallel.pipeline_parallel_size=2")
    return build_workload(config, build_plan(config, 2, 300))


def measure(rank: int, peak_bytes: int | None, sent: float | None) -> RankMeasurement:
    return RankMeasurement(rank, rank, peak_bytes, None if sent is None else Traffic(0.0, 0.0, sent))


def test_each_rank_is_held_against_the_plan_of_its_stage(tmp_path: Path) -> None:
    work = make_work(tmp_path)
    peaks = [memory.allocated for memory in list_rank_memories(work, is_cpu=True)]
    assert peaks[0] != peaks[1]
    planned, measured = plan_run(work, CLUSTER, is_cpu=True), [measure(0, 1000, 10.0), measure(1, 2000, 5.0)]
    rows = list_rank_comparisons(planned, measured)
    assert [row["peak_memory_gib"]["planned"] for row in rows] == [size / GIB for size in peaks]
    assert [row["peak_memory_gib"]["measured"] for row in rows] == [1000 / GIB, 2000 / GIB]
    assert [row["sent_gib"]["pipeline"]["measured"] for row in rows] == [10 / GIB, 5 / GIB]
    record = compare_with_plan(planned, measured, 0.5, 4096)
    # Headlines: the rank that held most, and the one that sent most.
    assert record["peak_memory_gib"]["planned"] == peaks[1] / GIB
    assert record["sent_gib"]["planned"] == compute_traffic(work, 0).total / GIB
    assert record["step_seconds"]["planned"] == compute_step_time(work, CLUSTER).total
    assert record["step_seconds"]["measured"] == 0.5
    assert record["checkpoint_gib"]["planned"] == compute_checkpoint_bytes(work.shape) / GIB
    assert record["checkpoint_gib"]["measured"] == 4096 / GIB


def test_what_is_not_known_yet_stays_open(tmp_path: Path) -> None:
    planned = plan_run(make_work(tmp_path), None, is_cpu=True)
    record = compare_with_plan(planned, [measure(0, None, None)], None, None)
    assert record["cluster"] is None
    assert record["step_seconds"] == {"planned": None, "measured": None, "error": None}
    for name in ("peak_memory_gib", "checkpoint_gib", "sent_gib"):
        assert record[name]["measured"] is None
        assert record[name]["planned"] > 0


def test_a_plan_that_fails_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("float division by zero")

    monkeypatch.setattr(plan_check, "compute_step_time", fail)
    assert plan_check._plan_or_warn(make_work(tmp_path), CLUSTER, is_cpu=True) is None
    assert "planned numbers are not recorded: ZeroDivisionError: float division by zero" in caplog.text


def test_a_checkpoint_that_gives_way_meanwhile_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert plan_check._measure_newest_checkpoint(tmp_path) is None
    for step in (10, 20):
        (tmp_path / f"step-{step:08d}").mkdir()
        (tmp_path / f"step-{step:08d}" / "rank00000.safetensors").write_bytes(b"0" * step)
    assert plan_check._measure_newest_checkpoint(tmp_path) == 20
    gone = [tmp_path / "step-00000030"]
    monkeypatch.setattr(plan_check, "list_checkpoints", lambda folder: gone)
    assert plan_check._measure_newest_checkpoint(tmp_path) is None


def test_a_run_is_planned_for_the_cluster_that_it_names(tmp_path: Path) -> None:
    assert find_cluster(load_tiny_config(tmp_path), torch.device("cpu")) == CLUSTER
    named = find_cluster(load_tiny_config(tmp_path, "tracking.cluster=dgx_h100"), torch.device("cpu"))
    assert named == load_cluster("dgx_h100")
    with pytest.raises(ConfigError, match=r"tracking.cluster = dgx_h10: .* Did you mean 'dgx_h100'"):
        find_cluster(load_tiny_config(tmp_path, "tracking.cluster=dgx_h10"), torch.device("cpu"))
