"""Shares of the peaks that programs reach, fitted to measured steps.

In: workloads with measured seconds. Out: `EfficiencyConfig`, and how well it predicts what it was not fitted to.
"""

import math
from collections.abc import Sequence
from typing import Literal

from llmtrain.config.cluster import ClusterConfig
from llmtrain.plan.step_time import compute_step_time
from llmtrain.plan.workload import Workload

Measured = tuple[Workload, float]
"""A step and its seconds."""

_FITTED: tuple[Literal["matrix_products", "memory", "links"], ...] = ("matrix_products", "memory", "links")
_STEPS = (0.08, 0.04, 0.02, 0.01)
_LOWEST, _HIGHEST = 0.05, 1.0


def fit_efficiency(measured: Sequence[Measured], cluster: ClusterConfig) -> ClusterConfig:
    """The cluster with the three shares that explain measured steps best, to a hundredth.

    Args:
        measured: steps on this cluster; three or more say something about all three.
        cluster: where the search starts.

    Returns:
        The cluster with the least sum of squared logarithms of predicted over measured seconds, found by coordinate
        descent.
    """
    best, loss = cluster, _loss(measured, cluster)
    for step in _STEPS:
        is_better = True
        while is_better:
            is_better = False
            for name in _FITTED:
                for change in (-step, step):
                    value = round(getattr(best.efficiency, name) + change, 4)
                    if not _LOWEST <= value <= _HIGHEST:
                        continue
                    efficiency = best.efficiency.model_copy(update={name: value})
                    candidate = best.model_copy(update={"efficiency": efficiency})
                    if (found := _loss(measured, candidate)) < loss:
                        best, loss, is_better = candidate, found, True
    return best


def compute_leave_one_out_errors(measured: Sequence[Measured], cluster: ClusterConfig) -> list[float]:
    """Relative error of each step's prediction by a fit to all the others."""
    errors = []
    for number, (work, seconds) in enumerate(measured):
        others = [*measured[:number], *measured[number + 1 :]]
        errors.append(compute_step_time(work, fit_efficiency(others, cluster)).total / seconds - 1)
    return errors


def _loss(measured: Sequence[Measured], cluster: ClusterConfig) -> float:
    return sum(math.log(compute_step_time(work, cluster).total / seconds) ** 2 for work, seconds in measured)
