"""Interruptions: how many to expect, how often to save, and what share of the time is progress.

In: devices, failure rate, times. Out: seconds and fractions.
"""

import math
from dataclasses import dataclass

from llmtrain.config.cluster import ClusterConfig

_LARGEST_EXPONENT = 600.0
"""Beyond it nothing gets done before the next failure, and floats overflow soon."""


@dataclass(frozen=True)
class Reliability:
    """What interruptions do to a run."""

    failures: float
    """Expected from start to end, with all that is done again; infinite where the run never ends."""
    mean_seconds_between_failures: float
    save_seconds: float
    """One checkpoint at the bandwidth of the storage."""
    stall_seconds: float
    """Of it, how long training stands still."""
    goodput: float
    """Share of the time that is progress, at the configured interval of checkpoints."""
    train_seconds: float
    """From start to end, interruptions included; infinite where they leave no progress."""
    best_interval_seconds: float
    """Between checkpoints, for the least time lost."""
    best_goodput: float
    """Goodput at the best interval."""


def compute_reliability(
    cluster: ClusterConfig,
    devices: int,
    compute_seconds: float,
    interval_seconds: float,
    checkpoint_bytes: float,
    stall_fraction: float = 1.0,
) -> Reliability:
    """Expected failures, what they cost at an interval of checkpoints, and the best interval.

    Args:
        cluster: failure rate, restart time, bandwidth of storage.
        devices: of the run.
        compute_seconds: of all steps, without interruptions and saves.
        interval_seconds: of computing between checkpoints; `compute_seconds` if only the end is saved.
        checkpoint_bytes: of one checkpoint.
        stall_fraction: share of a save during which training stands still; asynchronous saving makes it small.
    """
    limits = cluster.reliability
    save = checkpoint_bytes / (limits.storage_gb_per_second * 1e9)
    stall = save * stall_fraction
    failures_per_second = limits.failures_per_device_hour * devices / 3600
    between = 1 / failures_per_second if failures_per_second else math.inf
    best = compute_best_interval(stall, between) if failures_per_second else math.inf

    def find_goodput(interval: float) -> float:
        return compute_interval_goodput(min(interval, compute_seconds), save, stall, between, limits.restart_seconds)

    goodput = find_goodput(interval_seconds)
    seconds = compute_seconds / goodput if goodput else math.inf
    failures = seconds / between if failures_per_second else 0.0
    return Reliability(failures, between, save, stall, goodput, seconds, best, find_goodput(best))


def compute_best_interval(save_seconds: float, mean_seconds_between_failures: float) -> float:
    """Seconds of computing between two checkpoints that lose the least time.

    Source:
        Daly 2006, "A higher order estimate of the optimum checkpoint interval", equation 37; its first term is Young
        1974.
    """
    if save_seconds >= 2 * mean_seconds_between_failures:
        return mean_seconds_between_failures
    ratio = save_seconds / (2 * mean_seconds_between_failures)
    first = math.sqrt(2 * save_seconds * mean_seconds_between_failures)
    return first * (1 + math.sqrt(ratio) / 3 + ratio / 9) - save_seconds


def compute_goodput(interval: float, save: float, between_failures: float, restart: float) -> float:
    """Share of the time that is progress, with failures that come at random (exponentially).

    Args:
        interval: seconds of computing between checkpoints.
        save: seconds that training stands still for each.
        between_failures: mean seconds between failures.
        restart: seconds from a failure to the first step after it, and what each failure costs whatever the interval.

    Source:
        Daly 2006, equation 20: expected time T = M e^(R/M) (e^((t+d)/M) - 1) N / t.
    """
    if math.isinf(between_failures):
        return interval / (interval + save)
    exponent = (interval + save) / between_failures
    if exponent + restart / between_failures > _LARGEST_EXPONENT:
        return 0.0
    expected = between_failures * math.exp(restart / between_failures) * math.expm1(exponent)
    return interval / expected


def compute_stall(interval: float, save: float, stall: float) -> float:
    """Seconds that training stands still for each checkpoint: a save begins when the one before it is over."""
    return max(stall, save - interval)


def compute_interval_goodput(
    interval: float, save: float, stall: float, between_failures: float, restart: float
) -> float:
    """Share of the time that is progress when checkpoints are written beside training.

    A checkpoint is not whole when training goes on: what was computed meanwhile is lost with it, whatever the interval,
    and counts as part of the restart.

    Args:
        interval: seconds of computing between checkpoints.
        save: seconds until a checkpoint is whole.
        stall: of it, how long training stands still.
        between_failures: mean seconds between failures.
        restart: seconds from a failure to the first step after it.
    """
    standing = compute_stall(interval, save, stall)
    return compute_goodput(interval, standing, between_failures, restart + save - standing)
