"""Fitting of shares: which ones steps can tell, how many, and what a description cannot be right about."""

import statistics
import time

import pytest

from llmtrain.config.cluster import ClusterConfig, EfficiencyConfig, load_cluster
from llmtrain.plan.calibrate import (
    compute_interval_errors,
    count_fitted_shares,
    find_seen_shares,
    find_too_low,
    fit_efficiency,
)
from llmtrain.plan.step_time import compute_step_time
from tests.plan.workloads import load_workload

MAX_SECONDS = 5.0
H100 = load_cluster("dgx_h100")
SMALL, LARGE = load_workload("gpt3_1.3b", 1), load_workload("gpt3_175b", 1536)


def change(share: str, value: float) -> ClusterConfig:
    return H100.model_copy(update={"efficiency": H100.efficiency.model_copy(update={share: value})})


def test_shares_of_what_does_not_happen_are_not_fitted() -> None:
    assert find_seen_shares([SMALL], H100) == ["matrix_products", "memory", "fused_attention"]
    assert find_seen_shares([SMALL, LARGE], H100)[:3] == ["matrix_products", "memory", "links"]


def test_fewer_shares_are_fitted_than_runs_are_left_when_one_is_out() -> None:
    assert [count_fitted_shares(runs) for runs in range(1, 8)] == [1, 1, 1, 2, 3, 3, 3]


def test_an_interval_is_predicted_by_the_median_of_the_others() -> None:
    seconds = compute_step_time(SMALL, change("matrix_products", 0.5)).total
    errors = compute_interval_errors(SMALL, [seconds, seconds, seconds, 2 * seconds], H100)
    assert errors == pytest.approx([0, 0, 0, -0.5], abs=1e-6)


@pytest.mark.parametrize("count", [2, 3, 6, 7])
def test_an_interval_is_left_out_of_the_median_that_foretells_it(count: int) -> None:
    seconds = compute_step_time(SMALL, change("matrix_products", 0.5)).total
    intervals = [seconds * (1 + 0.1 * (5 * number % 7)) for number in range(count)]
    for number, error in enumerate(compute_interval_errors(SMALL, intervals, H100)):
        others = statistics.median(intervals[:number] + intervals[number + 1 :])
        fitted = fit_efficiency([(SMALL, others)], H100, ("matrix_products",))
        assert error == pytest.approx(compute_step_time(SMALL, fitted).total / intervals[number] - 1)


def test_the_noise_of_a_long_run_takes_few_seconds() -> None:
    seconds = compute_step_time(SMALL, change("matrix_products", 0.5)).total
    intervals = [seconds * (1 + 0.001 * (number % 97)) for number in range(180_000)]
    started = time.process_time()
    assert len(compute_interval_errors(SMALL, intervals, H100)) == len(intervals)
    assert time.process_time() - started < MAX_SECONDS


def make_perfect(cluster: ClusterConfig) -> ClusterConfig:
    ones = EfficiencyConfig(matrix_products=1, fused_attention=1, memory=1, links=1, overlap=1)
    return cluster.model_copy(update={"efficiency": ones})


def test_a_step_that_is_faster_than_all_shares_allow_names_the_number_that_is_too_low() -> None:
    seconds = 0.6 * compute_step_time(SMALL, make_perfect(H100)).total
    found = find_too_low(SMALL, seconds, H100)
    assert found is not None
    start, needed = found.split(" is too low, at least ")
    assert start == "device.bfloat16_teraflops = 989.4"
    teraflops = float(needed.removesuffix(" would be needed"))
    device = H100.device.model_copy(update={"bfloat16_teraflops": teraflops})
    right = make_perfect(H100).model_copy(update={"device": device})
    assert compute_step_time(SMALL, right).total == pytest.approx(seconds, rel=0.01)


def test_a_number_that_does_not_explain_a_step_alone_is_named_as_one_of_several() -> None:
    seconds = 0.01 * compute_step_time(SMALL, make_perfect(H100)).total
    assert find_too_low(SMALL, seconds, H100) == "device.bfloat16_teraflops = 989.4 is too low, not it alone"


def test_a_step_that_some_shares_allow_contradicts_nothing() -> None:
    seconds = compute_step_time(SMALL, make_perfect(H100)).total
    assert find_too_low(SMALL, compute_step_time(SMALL, H100).total, H100) is None
    assert find_too_low(SMALL, seconds, H100) is None
