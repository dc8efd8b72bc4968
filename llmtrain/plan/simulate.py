"""A run played many times with failures that strike at random: what is lost, and how much that differs by luck.

    stretch    save_every_steps optimizer steps, then a save that training stands still for at its beginning
    failure    back to the newest checkpoint that was committed; a restart, which may fail as well
    end        the last step, and the last save, which is waited for

All plays go forward together, one failure at a time: what happens between two failures is arithmetic, so a year on ten
thousand devices takes a fraction of a second. In: `RunTimes`. Out: `Plays`, seconds.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmtrain.plan.estimate import Estimate
from llmtrain.plan.reliability import compute_interval_goodput, compute_stall

Seconds = NDArray[np.float64]
Counts = NDArray[np.int64]

PLAYS = 200
MOST_FAILURES = 30_000
"""Of a play that is then given up; a year on 100,000 devices has 17,000 at the default rate."""
HOPELESS_FAILURES = 1_000
"""After so many all plays are given up if the luckiest would not end within the most."""
_TOLD = 10
"""Failures of the first play that are told one by one."""


@dataclass(frozen=True)
class RunTimes:
    """What decides a run's time under failures."""

    train_steps: int
    step_seconds: float
    save_seconds: float
    """From the beginning of a save until it is committed and can be started from."""
    stall_seconds: float
    """Of it, how long training stands still."""
    restart_seconds: float
    between_failures_seconds: float
    """Mean, of the whole run; infinite where nothing fails."""


@dataclass(frozen=True)
class Failure:
    """One interruption of one play."""

    at_seconds: float
    """Since the start of the run."""
    machine: int
    step: int
    """Optimizer steps taken when it struck; of a restart that failed, the step it was to start from."""
    resumed_step: int
    """Of the checkpoint that the run starts from again."""
    lost_seconds: float
    """Of computing that is done again."""


@dataclass(frozen=True)
class Plays:
    """What became of each play; arrays have one element for each. Seconds add up to `wall`."""

    save_every_steps: int
    failures: Counts
    computed: Seconds
    """Of steps that were kept."""
    redone: Seconds
    """Of computing that was lost."""
    restarting: Seconds
    saving: Seconds
    """That training stood still for."""
    steps: Counts
    """Kept at the end."""
    is_finished: NDArray[np.bool_]
    """False: given up, because failures leave too little progress."""
    timeline: tuple[Failure, ...]
    """The first failures of the first play."""

    @property
    def wall(self) -> Seconds:
        """From start to end, or until it was given up."""
        return self.computed + self.redone + self.restarting + self.saving

    @property
    def goodput(self) -> Seconds:
        """Share of the time that is progress."""
        return np.asarray(self.computed / self.wall)


@dataclass(frozen=True)
class Policy:
    """Plays with one interval of checkpoints, beside what a formula says."""

    name: str
    plays: Plays
    closed_form_goodput: float
    """Expected at this interval, as `plan.reliability` computes it."""


def play_policies(estimate: Estimate, save_every_steps: int | None, seed: int, plays: int = PLAYS) -> list[Policy]:
    """A run with the configured interval of checkpoints and with the best one; the same failures strike both.

    Args:
        estimate: of the run.
        save_every_steps: as configured; None = only at the end.
        seed: of the failures.
        plays: how many.
    """
    found, train_steps = estimate.reliability, estimate.plan.train_steps
    times = RunTimes(
        train_steps,
        estimate.step.total,
        found.save_seconds,
        found.stall_seconds,
        estimate.cluster.reliability.restart_seconds,
        found.mean_seconds_between_failures,
    )
    machines = -(-estimate.plan.world_size // estimate.cluster.devices_per_node)
    intervals = {"configured": save_every_steps or train_steps}
    if math.isfinite(found.best_interval_seconds):
        intervals["Daly's"] = max(1, round(found.best_interval_seconds / times.step_seconds))
    policies = []
    for name, interval in intervals.items():
        every = min(interval, train_steps)
        expected = compute_interval_goodput(
            every * times.step_seconds,
            times.save_seconds,
            times.stall_seconds,
            times.between_failures_seconds,
            times.restart_seconds,
        )
        policies.append(Policy(name, play_runs(times, every, seed, plays, machines), expected))
    return policies


def _cycle_seconds(times: RunTimes, save_every_steps: int) -> tuple[float, float]:
    """A stretch with its stall, and of it the steps."""
    computing = save_every_steps * times.step_seconds
    return computing + compute_stall(computing, times.save_seconds, times.stall_seconds), computing


def play_runs(times: RunTimes, save_every_steps: int, seed: int, plays: int = PLAYS, machines: int = 1) -> Plays:
    """Play a run many times.

    Args:
        times: of its parts.
        save_every_steps: optimizer steps between checkpoints, 1 to `train_steps`.
        seed: of the failures; play i has the same ones whatever the interval.
        plays: how many.
        machines: of the run; each is as likely to fail.
    """
    generator, which = np.random.default_rng(seed), np.random.default_rng([seed, 1])
    saved, failures = (np.zeros(plays, np.int64) for _ in range(2))
    redone, restarting, saving = (np.zeros(plays, np.float64) for _ in range(3))
    is_playing, restart = np.ones(plays, bool), 0.0
    timeline: list[Failure] = []
    for count in range(MOST_FAILURES + 1):
        until = _draw_seconds(generator, plays, times.between_failures_seconds)
        attempt = _attempt(times, save_every_steps, saved, until - restart)
        is_struck = is_playing & ~attempt.is_finished
        restarting += is_playing * np.minimum(until, restart)
        redone += is_playing * (attempt.computed - attempt.gained * times.step_seconds)
        saving += is_playing * (attempt.worked - attempt.computed)
        reached = saved + attempt.taken
        saved += is_playing * attempt.gained
        failures += is_struck
        if is_struck[0] and count < _TOLD:
            clock = saved[0] * times.step_seconds + redone[0] + restarting[0] + saving[0]
            lost = attempt.computed[0] - attempt.gained[0] * times.step_seconds
            machine = int(which.integers(machines))
            timeline.append(Failure(float(clock), machine, int(reached[0]), int(saved[0]), float(lost)))
        is_playing, restart = is_struck, times.restart_seconds
        is_hopeless = saved.max() * MOST_FAILURES < times.train_steps * HOPELESS_FAILURES
        if not is_playing.any() or (count + 1 == HOPELESS_FAILURES and is_hopeless):
            break
    return Plays(
        save_every_steps,
        failures,
        np.asarray(saved * times.step_seconds, np.float64),
        redone,
        restarting,
        saving,
        saved,
        ~is_playing,
        tuple(timeline),
    )


@dataclass(frozen=True)
class _Attempt:
    """What each play does from a checkpoint until it is struck, or to its end."""

    is_finished: NDArray[np.bool_]
    worked: Seconds
    computed: Seconds
    taken: Counts
    """Steps, kept or not."""
    gained: Counts
    """Steps that are kept."""


def _draw_seconds(generator: np.random.Generator, plays: int, mean: float) -> Seconds:
    """Until the next failure of each play."""
    draws = generator.standard_exponential(plays)
    return draws * mean if math.isfinite(mean) else np.full(plays, math.inf)


def _attempt(times: RunTimes, save_every_steps: int, saved: Counts, until: Seconds) -> _Attempt:
    """Work from the checkpoint after `saved` steps; `until` seconds are left, none where a restart failed."""
    step, cycle, computing = times.step_seconds, *_cycle_seconds(times, save_every_steps)
    wait = cycle - computing - times.stall_seconds  # of every save but the first, for the one before
    left = times.train_steps - saved
    saves_before_last = np.maximum(left - 1, 0) // save_every_steps
    last_stretch = left - saves_before_last * save_every_steps
    last_begins = saves_before_last * cycle - wait * (saves_before_last > 0)
    last_wait = (saves_before_last > 0) * (times.save_seconds - times.stall_seconds)
    all_seconds = last_begins + np.maximum(last_stretch * step, last_wait) + times.save_seconds
    is_finished = until >= all_seconds
    worked = np.clip(until, 0.0, all_seconds)
    cycles = np.minimum((worked + wait) // cycle, saves_before_last).astype(np.int64)
    in_stretch = worked - cycles * cycle + wait * (cycles > 0)
    stretch = np.where(cycles == saves_before_last, last_stretch, save_every_steps)
    steps_done = np.where(is_finished, stretch, np.minimum(in_stretch // step, stretch)).astype(np.int64)
    computed = cycles * computing + np.minimum(in_stretch, stretch * step)
    computed = np.where(is_finished, left * step, computed)  # to the last digit, so that nothing seems lost
    uncommitted = computing + times.save_seconds - cycle  # what is written while the next stretch runs is not whole
    committed = np.minimum(np.maximum(worked - uncommitted, 0.0) // cycle, saves_before_last).astype(np.int64)
    gained = np.where(is_finished, left, committed * save_every_steps)
    return _Attempt(is_finished, worked, computed, cycles * save_every_steps + steps_done, gained)
