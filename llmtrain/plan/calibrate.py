"""Shares of the peaks that programs reach, fitted to measured steps.

In: workloads with measured seconds. Out: `EfficiencyConfig`, and how well it predicts what it was not fitted to.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

from llmtrain.config.cluster import ClusterConfig
from llmtrain.plan.step_time import compute_step_time
from llmtrain.plan.workload import Workload

Measured = tuple[Workload, float]
"""A step and its seconds."""

Share = Literal["matrix_products", "memory", "links", "fused_attention", "overlap"]
"""In the order in which they are fitted where few steps were measured."""
_STEPS = (0.04, 0.02, 0.01)
_MOST_SHARES = 3
_LOW_SHARE, _SEEN = 0.5, 0.02
"""A share is seen when half of it makes a step so much longer."""
_TOLERANCE = 0.02
_MOST_FACTOR, _FACTOR_STEP = 100.0, 1.01
_BANDWIDTHS = (("device", "memory_gb_per_second"), ("link", "gb_per_second"), ("network", "gb_per_second"))


def fit_efficiency(measured: Sequence[Measured], cluster: ClusterConfig, shares: Sequence[Share]) -> ClusterConfig:
    """The cluster with the shares that explain measured steps best, to a hundredth.

    Args:
        measured: steps on this cluster, more of them than shares.
        cluster: where the search starts; what is not fitted stays.
        shares: what is fitted: those that the measured steps depend on.

    Returns:
        The cluster with the least sum of squared logarithms of predicted over measured seconds, found by descent
        on a grid.
    """
    best, loss = cluster, _loss(measured, cluster)
    for step in _STEPS:
        is_better = True
        while is_better:
            is_better = False
            for candidate in _list_neighbours(best, shares, step):
                if (found := _loss(measured, candidate)) < loss:
                    best, loss, is_better = candidate, found, True
    return best


def _list_neighbours(cluster: ClusterConfig, shares: Sequence[Share], step: float) -> list[ClusterConfig]:
    """The cluster with its shares up or down a step or four: they make up for one another, at different rates."""
    found = []
    for changes in itertools.product((-4 * step, -step, 0.0, step, 4 * step), repeat=len(shares)):
        values: dict[str, float] = {
            name: round(getattr(cluster.efficiency, name) + change, 4)
            for name, change in zip(shares, changes, strict=True)
        }
        if all(value <= 1 and (value > 0 or (value == 0 and name == "overlap")) for name, value in values.items()):
            efficiency = cluster.efficiency.model_copy(update=values)
            found.append(cluster.model_copy(update={"efficiency": efficiency}))
    return found


def compute_leave_one_out_errors(
    measured: Sequence[Measured], cluster: ClusterConfig, shares: Sequence[Share]
) -> list[float]:
    """Relative error of each step's prediction by a fit to all the others."""
    errors = []
    for number, (work, seconds) in enumerate(measured):
        others = [*measured[:number], *measured[number + 1 :]]
        errors.append(compute_step_time(work, fit_efficiency(others, cluster, shares)).total / seconds - 1)
    return errors


def _loss(measured: Sequence[Measured], cluster: ClusterConfig) -> float:
    return sum(math.log(compute_step_time(work, cluster).total / seconds) ** 2 for work, seconds in measured)


def find_seen_shares(works: Sequence[Workload], cluster: ClusterConfig) -> list[Share]:
    """Shares that make a difference to these steps, in the order in which they are fitted.

    Args:
        works: steps.
        cluster: where they run.
    """
    found: list[Share] = []
    for share in get_args(Share):
        low, high = (_set_share(cluster, share, value) for value in (_LOW_SHARE, 1.0))
        times = [(compute_step_time(work, low).total, compute_step_time(work, high).total) for work in works]
        if any(abs(slow / fast - 1) > _SEEN for slow, fast in times):
            found.append(share)
    return found


def count_fitted_shares(num_steps: int) -> int:
    """How many shares so many steps allow: fewer than those that are left when one is kept out of the fit."""
    return max(1, min(num_steps - 2, _MOST_SHARES))


def compute_interval_errors(work: Workload, intervals: Sequence[float], cluster: ClusterConfig) -> list[float]:
    """Relative error of each interval's prediction by `matrix_products` fitted to the median of the others.

    It shows the noise of one run, not how well another model is foretold.

    Args:
        work: of the run.
        intervals: seconds of a step, two or more.
        cluster: where the run was made.
    """
    order = sorted(range(len(intervals)), key=lambda number: intervals[number])
    ordered = [intervals[number] for number in order]
    predicted: dict[float, float] = {}  # by median: leaving one out gives three at most
    errors = [0.0] * len(intervals)
    for place, number in enumerate(order):
        others = _median_without(ordered, place)
        if others not in predicted:
            fitted = fit_efficiency([(work, others)], cluster, ("matrix_products",))
            predicted[others] = compute_step_time(work, fitted).total
        errors[number] = predicted[others] / intervals[number] - 1
    return errors


def _median_without(ordered: Sequence[float], place: int) -> float:
    """The median of ascending values without one of them."""
    count = len(ordered) - 1
    low, high = (ordered[at + (at >= place)] for at in ((count - 1) // 2, count // 2))
    return (low + high) / 2


def find_too_low(work: Workload, seconds: float, cluster: ClusterConfig) -> str | None:
    """The number of a description that must be too low, because a step took less than all shares of 1 allow.

    Args:
        work: of the step.
        seconds: that it took.
        cluster: where it ran.

    Returns:
        `key = value is too low, at least that much would be needed`; None when the description allows the step.
    """
    bound = cluster
    for share in get_args(Share):
        bound = _set_share(bound, share, 1.0)
    if compute_step_time(work, bound).total < (1 + _TOLERANCE) * seconds:
        return None

    def take(section: str, key: str, factor: float) -> float:
        values = getattr(bound, section)
        scaled = values.model_copy(update={key: getattr(values, key) * factor})
        return compute_step_time(work, bound.model_copy(update={section: scaled})).total

    peak = "bfloat16_teraflops" if work.compute_bytes == 2 else "float32_teraflops"
    numbers = (("device", peak), *_BANDWIDTHS)
    section, key = min(numbers, key=lambda number: take(number[0], number[1], 2.0))
    value, factor = getattr(getattr(bound, section), key), 1.0
    while factor < _MOST_FACTOR and take(section, key, factor) > seconds:
        factor *= _FACTOR_STEP
    needed = f"at least {value * factor:.3g} would be needed" if factor < _MOST_FACTOR else "not it alone"
    return f"{section}.{key} = {value:.4g} is too low, {needed}"


def _set_share(cluster: ClusterConfig, share: Share, value: float) -> ClusterConfig:
    return cluster.model_copy(update={"efficiency": cluster.efficiency.model_copy(update={share: value})})
