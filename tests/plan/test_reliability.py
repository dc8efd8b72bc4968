"""Interruptions against a simulation and against the published count."""

import math

import pytest

from llmtrain.config.cluster import load_cluster
from llmtrain.plan.reliability import (
    compute_best_interval,
    compute_goodput,
    compute_interval_goodput,
    compute_reliability,
)
from llmtrain.plan.simulate import RunTimes, play_runs

CLUSTER = load_cluster("dgx_h100")


def test_llama_3_s_interruptions_are_expected_at_the_default_rate() -> None:
    # Grattafiori et al. 2024, section 3.3.4: 419 unexpected ones in 54 days on 16,384 devices.
    found = compute_reliability(CLUSTER, 16_384, 54 * 86_400, 3600, 1e12)
    assert 54 * 86_400 / found.mean_seconds_between_failures == pytest.approx(419, rel=0.001)


def test_failures_are_those_of_the_whole_time_and_the_interval_is_the_one_that_is_configured() -> None:
    rare, often = (compute_reliability(CLUSTER, 16_384, 1e6, interval, 5e12, 0.05) for interval in (9000.0, 900.0))
    for found, interval in ((rare, 9000.0), (often, 900.0)):
        expected = compute_interval_goodput(
            interval,
            found.save_seconds,
            found.stall_seconds,
            found.mean_seconds_between_failures,
            CLUSTER.reliability.restart_seconds,
        )
        assert found.goodput == expected
        assert found.train_seconds == pytest.approx(1e6 / expected)
        assert found.failures == pytest.approx(found.train_seconds / found.mean_seconds_between_failures)
    assert rare.goodput < 0.6 < often.goodput < often.best_goodput == rare.best_goodput


def test_a_run_whose_failures_leave_no_progress_fails_without_end() -> None:
    found = compute_reliability(CLUSTER, 16_384, 1e8, 1e8, 5e12)
    assert (found.goodput, found.train_seconds, found.failures) == (0.0, math.inf, math.inf)
    assert found.best_goodput > 0.5


def test_a_save_waits_for_the_one_before_it() -> None:
    assert compute_interval_goodput(60.0, 90.0, 5.0, math.inf, 600.0) == 60 / 90


def test_the_best_interval_is_youngs_where_saving_is_short() -> None:
    assert compute_best_interval(10.0, 1e7) == pytest.approx(math.sqrt(2 * 10 * 1e7), rel=0.002)


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_no_other_interval_has_a_better_goodput(factor: float) -> None:
    save, between, restart = 60.0, 20_000.0, 600.0
    best = compute_best_interval(save, between)
    assert compute_goodput(best, save, between, restart) >= compute_goodput(best * factor, save, between, restart)


def test_goodput_is_what_a_simulation_finds() -> None:
    save, between, restart = 60.0, 7_200.0, 600.0
    interval = round(compute_best_interval(save, between))
    times = RunTimes(1_500_000, 1.0, save, save, restart, between)
    plays = play_runs(times, interval, seed=0, plays=20)
    found = plays.computed.sum() / plays.wall.sum()
    assert compute_goodput(float(interval), save, between, restart) == pytest.approx(found, rel=0.01)


def test_goodput_without_failures_is_lost_to_saves_alone() -> None:
    assert compute_goodput(90.0, 10.0, math.inf, 600.0) == 0.9


def test_devices_that_never_fail_lose_stalls_of_saves_only() -> None:
    reliability = CLUSTER.reliability.model_copy(update={"failures_per_device_hour": 0.0})
    found = compute_reliability(CLUSTER.model_copy(update={"reliability": reliability}), 8, 1e6, 9e3, 1e12, 0.5)
    assert (found.failures, found.best_interval_seconds) == (0.0, math.inf)
    assert found.goodput == 9e3 / (9e3 + found.stall_seconds)
    assert found.best_goodput == 1e6 / (1e6 + found.stall_seconds)
