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
    """Expected in the run's time of computing."""
    mean_seconds_between_failures: float
    save_seconds: float
    """One checkpoint at the bandwidth of the storage."""
    stall_seconds: float
    """Of it, how long training stands still."""
    best_interval_seconds: float
    """Between checkpoints, for the least time lost."""
    goodput: float
    """Share of the time that is progress, at the best interval."""


def compute_reliability(
    cluster: ClusterConfig, devices: int, train_seconds: float, checkpoint_bytes: float, stall_fraction: float = 1.0
) -> Reliability:
    """Expected failures and the best interval of checkpoints.

    A checkpoint that is written beside training is not whole when training goes on: what was computed meanwhile is lost
    with it, whatever the interval, and counts as part of the restart.

    Args:
        cluster: failure rate, restart time, bandwidth of storage.
        devices: of the run.
        train_seconds: of computing, without interruptions.
        checkpoint_bytes: of one checkpoint.
        stall_fraction: share of a save during which training stands still; asynchronous saving makes it small.
    """
    limits = cluster.reliability
    save = checkpoint_bytes / (limits.storage_gb_per_second * 1e9)
    stall = save * stall_fraction
    failures_per_second = limits.failures_per_device_hour * devices / 3600
    if failures_per_second == 0:
        return Reliability(0.0, math.inf, save, stall, math.inf, 1.0)
    between = 1 / failures_per_second
    interval = compute_best_interval(stall, between)
    goodput = compute_goodput(interval, stall, between, limits.restart_seconds + save - stall)
    return Reliability(train_seconds / between, between, save, stall, interval, goodput)


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
