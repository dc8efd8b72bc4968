"""The simulation against one that walks from event to event, against arithmetic, and at its ends."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from llmtrain.config.cluster import load_cluster
from llmtrain.config.loader import load_config
from llmtrain.plan.build import build_plan
from llmtrain.plan.estimate import Estimate, build_estimate
from llmtrain.plan.simulate import HOPELESS_FAILURES, RunTimes, play_policies, play_runs

MAX_SECONDS = 10.0
SYNCHRONOUS = RunTimes(200, 7.0, 50.0, 50.0, 120.0, 900.0)
ASYNCHRONOUS = replace(SYNCHRONOUS, stall_seconds=5.0)
ALWAYS_SAVING = replace(ASYNCHRONOUS, save_seconds=95.0)


def walk(times: RunTimes, every: int, gaps: Iterator[float]) -> tuple[int, float, float, float]:
    """One play, step by step: failures, seconds from start to end, of stalls, of restarts."""
    clock = stalled = restarting = 0.0
    failures, saved = 0, 0
    strikes = next(gaps)
    while True:
        step, commit, pending = saved, math.inf, 0
        while True:
            end, is_save = clock + times.step_seconds, False
            if step == times.train_steps or (step > saved and step % every == 0 and pending != step):
                is_save = True
                begin = max(clock, commit if commit < math.inf else clock)
                is_last = step == times.train_steps
                end = begin + (times.save_seconds if is_last else times.stall_seconds)
            if commit <= min(end, strikes):
                saved, commit = pending, math.inf
            if strikes < end:
                stalled += strikes - clock if is_save else 0.0
                break
            if is_save:
                stalled += end - clock
                if step == times.train_steps:
                    return failures, end, stalled, restarting
                pending, commit = step, begin + times.save_seconds
            else:
                step += 1
            clock = end
        failures, clock = failures + 1, strikes
        strikes += next(gaps)
        while strikes < clock + times.restart_seconds:
            failures, restarting, clock = failures + 1, restarting + strikes - clock, strikes
            strikes += next(gaps)
        restarting, clock = restarting + times.restart_seconds, clock + times.restart_seconds


@pytest.mark.parametrize("times", [SYNCHRONOUS, ASYNCHRONOUS, ALWAYS_SAVING], ids=["stall", "beside", "always saving"])
@pytest.mark.parametrize("every", [1, 9, 50, 200])
def test_plays_are_those_of_a_walk_from_event_to_event(times: RunTimes, every: int) -> None:
    count = 12
    if every == 200:
        times = replace(times, train_steps=200, between_failures_seconds=800.0)
    plays = play_runs(times, every, seed=5, plays=count)
    assert plays.is_finished.all()
    assert plays.failures.sum() > 20
    generator = np.random.default_rng(5)
    draws = np.array([generator.standard_exponential(count) for _ in range(plays.failures.max() + 2)])
    for play in range(count):
        gaps = iter((draws[:, play] * times.between_failures_seconds).tolist())
        failures, end, stalled, restarting = walk(times, every, gaps)
        assert plays.failures[play] == failures
        assert plays.wall[play] == pytest.approx(end)
        assert plays.saving[play] == pytest.approx(stalled)
        assert plays.restarting[play] == pytest.approx(restarting)
        assert plays.computed[play] == times.train_steps * times.step_seconds


def test_without_failures_time_is_steps_and_stalls() -> None:
    plays = play_runs(replace(ASYNCHRONOUS, between_failures_seconds=math.inf), 50, seed=0, plays=3)
    assert plays.wall.tolist() == [200 * 7.0 + 3 * 5.0 + 50.0] * 3  # the last save is waited for
    assert not plays.failures.any()
    assert not plays.redone.any()
    assert plays.timeline == ()


def test_a_seed_decides_and_the_same_failures_strike_every_interval() -> None:
    one, again, other = (play_runs(SYNCHRONOUS, 9, seed) for seed in (1, 1, 2))
    assert one.wall.tolist() == again.wall.tolist() != other.wall.tolist()
    longer = play_runs(SYNCHRONOUS, 20, 1)
    assert longer.timeline[0].at_seconds == one.timeline[0].at_seconds
    assert longer.timeline[0].machine == one.timeline[0].machine


def test_the_timeline_tells_what_each_failure_cost() -> None:
    plays = play_runs(SYNCHRONOUS, 9, seed=3, plays=1, machines=4)
    assert len(plays.timeline) == min(10, plays.failures[0])
    for failure in plays.timeline:
        assert failure.resumed_step % 9 == 0
        assert 0 <= failure.step - failure.resumed_step <= 9
        assert (failure.step - failure.resumed_step) * 7.0 <= failure.lost_seconds + 1e-6
        assert 0 <= failure.machine < 4
    times = [failure.at_seconds for failure in plays.timeline]
    assert times == sorted(times)


def test_failures_that_leave_no_progress_end_the_plays() -> None:
    started = time.process_time()
    plays = play_runs(replace(SYNCHRONOUS, between_failures_seconds=10.0), 9, seed=0)
    assert not plays.is_finished.any()
    assert plays.failures.tolist() == [HOPELESS_FAILURES] * 200
    assert plays.computed.tolist() == [0.0] * 200
    assert time.process_time() - started < MAX_SECONDS


def load_estimate(save_every_steps: int | None, **reliability: float) -> Estimate:
    config = load_config([Path("configs/pretrain/gpt3_175b.yaml")]).config
    cluster = load_cluster("dgx_h100")
    described = cluster.reliability.model_copy(update=reliability)
    return build_estimate(
        config, build_plan(config, 4096, 50_257), cluster.model_copy(update={"reliability": described})
    )


def test_the_recommended_interval_is_played_beside_the_configured_one() -> None:
    estimate = load_estimate(1000, failures_per_device_hour=1 / 5000)
    configured, recommended = play_policies(estimate, 1000, seed=0)
    assert configured.plays.save_every_steps == 1000
    interval = recommended.plays.save_every_steps * estimate.step.total
    assert interval == pytest.approx(estimate.reliability.best_interval_seconds, abs=estimate.step.total)
    assert np.median(recommended.plays.goodput) > np.median(configured.plays.goodput)
    assert recommended.closed_form_goodput == pytest.approx(estimate.reliability.best_goodput, abs=1e-4)
    assert configured.closed_form_goodput == estimate.reliability.goodput < estimate.reliability.best_goodput
    for policy in (configured, recommended):
        found = policy.plays.computed.sum() / policy.plays.wall.sum()
        assert policy.closed_form_goodput == pytest.approx(found, abs=0.01)


def test_a_run_that_never_saves_and_never_fails_has_one_interval() -> None:
    (only,) = play_policies(load_estimate(None, failures_per_device_hour=0.0), None, seed=0)
    assert only.plays.save_every_steps == only.plays.steps[0] == 95_368
    assert only.plays.is_finished.all()


def test_a_year_on_sixteen_thousand_devices_is_played_in_seconds() -> None:
    times = RunTimes(5_000_000, 6.3, 211.0, 10.5, 600.0, 3600 * 50_676 / 16_384)
    started = time.process_time()
    plays = play_runs(times, 300, seed=0, machines=2048)
    assert time.process_time() - started < MAX_SECONDS
    assert plays.is_finished.all()
    assert plays.failures.mean() > 2800
