"""Curves of scaling: their points are estimates of runs, and their ranks are those that can run."""

import dataclasses
from pathlib import Path

import pytest

from llmtrain.config.cluster import ClusterConfig, load_cluster
from llmtrain.config.loader import load_config
from llmtrain.config.root import Config
from llmtrain.plan.build import build_plan
from llmtrain.plan.estimate import Estimate, build_estimate
from llmtrain.plan.feasible import list_world_sizes
from llmtrain.plan.scaling import FEWEST_RANKS, MOST_RANKS, Scaling, scale_configured, scale_searched
from llmtrain.plan.search import search_layouts

H100 = load_cluster("dgx_h100")
LARGER = H100.model_copy(update={"nodes": 12_500})


def load(name: str, *overrides: str) -> Config:
    return load_config([Path(f"configs/pretrain/{name}.yaml")], list(overrides)).config


def estimate(config: Config, ranks: int, cluster: ClusterConfig = LARGER) -> Estimate:
    return build_estimate(config, build_plan(config, ranks, config.model.vocab_size or 50_257), cluster)


@pytest.fixture(scope="module")
def gpt3() -> Scaling:
    config = load("gpt3_175b")
    return scale_configured(config, estimate(config, 1536))


def test_strong_points_are_the_estimates_of_the_run_on_so_many_ranks(gpt3: Scaling) -> None:
    config = load("gpt3_175b")
    for point in gpt3.strong:
        told = estimate(config, point.ranks)
        assert point.work == told.work
        assert point.step == told.step
        assert point.tokens_per_second == told.tokens_per_second
        assert point.model_flops_utilization == told.model_flops_utilization
        assert point.train_seconds == pytest.approx(told.train_seconds)
        assert (point.memory, point.verdict) == (told.worst, told.verdict)


def test_strong_scaling_keeps_the_batch_and_has_every_whole_machine_that_divides_it(gpt3: Scaling) -> None:
    config = load("gpt3_175b")
    assert [point.ranks for point in gpt3.strong] == [
        size for size in list_world_sizes(config, MOST_RANKS) if size % 8 == 0
    ]
    assert {point.work.global_batch_size for point in gpt3.strong} == {1536}
    assert (gpt3.strong[0].ranks, gpt3.strong[-1].ranks) == (128, 98_304)


def test_weak_scaling_keeps_the_micro_batches_of_a_rank_and_meets_the_strong_curve(gpt3: Scaling) -> None:
    assert {point.work.gradient_accumulation_steps for point in gpt3.weak} == {128}
    assert [point.work.data_parallel_size for point in gpt3.weak[:6]] == [1, 2, 3, 4, 6, 8]
    assert gpt3.weak[-1].ranks == 98_304
    (meeting,) = [point for point in gpt3.weak if point.ranks == 1536]
    assert meeting in gpt3.strong
    larger = load("gpt3_175b", f"batch.global_batch_size={1536 * 2}")
    (doubled,) = [point for point in gpt3.weak if point.ranks == 3072]
    assert doubled.train_seconds == pytest.approx(estimate(larger, 3072).train_seconds)


def test_ranks_fill_machines_between_eight_and_a_hundred_thousand() -> None:
    config = load("gpt3_1.3b")
    scaling = scale_configured(config, estimate(config, 8))
    for point in (*scaling.strong, *scaling.weak):
        assert FEWEST_RANKS <= point.ranks <= MOST_RANKS
        assert point.ranks % 8 == 0
    assert scaling.weak[0].ranks == 8
    ranks = [point.ranks for point in scaling.weak]
    assert ranks == sorted(set(ranks))


def test_a_batch_that_no_machine_divides_has_no_strong_curve() -> None:
    config = load("gpt3_1.3b", "batch.global_batch_size=9", "batch.micro_batch_size=3")
    scaling = scale_configured(config, estimate(config, 1))
    assert scaling.strong == ()
    assert scaling.weak[0].ranks == 8


def test_two_way_pipelines_stop_where_there_are_fewer_micro_batches_than_stages() -> None:
    config = load("gpt3_175b", "parallel.pipeline_schedule=dualpipev")
    scaling = scale_configured(config, estimate(config, 1536))
    assert min(point.work.gradient_accumulation_steps for point in scaling.strong) == 32


def test_searched_points_are_the_best_layouts_of_the_search() -> None:
    config = load("gpt3_13b", "model.num_layers=4", "parallel.pipeline_parallel_size=1")
    cluster = H100.model_copy(update={"nodes": 64})
    scaling = scale_searched(config, cluster, 64, 50_257)
    assert scaling.is_searched
    for point in (*scaling.strong[:3], scaling.strong[-1]):
        best = search_layouts(config, point.ranks, cluster, 50_257).proposals[0]
        assert (point.work, point.step) == (best.work, best.step)
    assert {point.verdict for point in (*scaling.strong, *scaling.weak)} == {"fits"}
    batch = config.batch.global_batch_size
    for point in scaling.weak:
        assert point.work.global_batch_size == batch * point.ranks // 64
    assert max(point.ranks for point in scaling.weak) > cluster.num_devices


def test_the_run_takes_whole_steps(gpt3: Scaling) -> None:
    steady = H100.reliability.model_copy(update={"failures_per_device_hour": 0.0, "storage_gb_per_second": 1e9})
    config = load("gpt3_1.3b", "training.train_tokens=null", "training.train_steps=10", "schedule.warmup_steps=1")
    cluster = H100.model_copy(update={"reliability": steady})
    base = estimate(config, 8, cluster)
    for point in scale_configured(config, dataclasses.replace(base, cluster=cluster)).weak:
        steps = -(-10 * config.batch.global_batch_size // point.work.global_batch_size)
        assert point.train_seconds == pytest.approx(steps * point.step.total)
