"""Shares of the peaks that programs reach, fitted to measured steps.

In: workloads with measured seconds. Out: `EfficiencyConfig`, and how well it predicts what it was not fitted to.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

from llmtrain.config.cluster import ClusterConfig
from llmtrain.plan.step_time import compute_step_time
from llmtrain.plan.workload import Workload

Measured = tuple[Workload, float]
"""A step and its seconds."""

Share = Literal["matrix_products", "fused_attention", "memory", "links", "overlap"]
_STEPS = (0.04, 0.02, 0.01)


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
