"""`llmtrain plan --simulate-failures`: what failures cost a run, by luck, as tables or plain values.

In: `Policy`s, the same plays with several intervals of checkpoints. Out: text on standard output, or values for JSON.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import rich.box
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from llmtrain.plan.estimate import Estimate
from llmtrain.plan.report import describe_seconds
from llmtrain.plan.simulate import Plays, Policy

_QUANTILES = (0.05, 0.5, 0.95)


def compute_spread(plays: Plays) -> dict[str, tuple[float, float, float]]:
    """The 5 % quantile, the median and the 95 % quantile of the plays; one that was given up takes for ever."""
    has_ended = plays.is_finished
    columns: dict[str, NDArray[Any]] = {
        "failures": plays.failures,
        "redone_seconds": plays.redone,
        "restart_seconds": plays.restarting,
        "save_seconds": plays.saving,
        "wall_seconds": np.where(has_ended, plays.wall, math.inf),
        "goodput": np.where(has_ended, plays.goodput, 0.0),
    }
    found = {name: np.quantile(values, _QUANTILES, method="inverted_cdf") for name, values in columns.items()}
    return {name: (float(low), float(middle), float(high)) for name, (low, middle, high) in found.items()}


def failures_to_dict(policies: Sequence[Policy], estimate: Estimate, seed: int) -> dict[str, Any]:
    """Everything that is printed, for JSON; null for what never ends."""
    return {
        "seed": seed,
        "plays": len(policies[0].plays.failures),
        "intervals": [
            {
                "name": policy.name,
                "save_every_steps": policy.plays.save_every_steps,
                "finished": int(policy.plays.is_finished.sum()),
                "steps_kept": float(np.median(policy.plays.steps)),
                **{
                    name: dict(zip(("low", "median", "high"), map(_finite, values), strict=True))
                    for name, values in compute_spread(policy.plays).items()
                },
                "closed_form": {
                    "goodput": policy.closed_form_goodput,
                    "wall_seconds": _finite(_closed_form_seconds(policy, estimate)),
                },
                "timeline": [dataclasses.asdict(failure) for failure in policy.plays.timeline],
            }
            for policy in policies
        ],
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _closed_form_seconds(policy: Policy, estimate: Estimate) -> float:
    return estimate.compute_seconds / policy.closed_form_goodput if policy.closed_form_goodput else math.inf


def print_failures(console: Console, policies: Sequence[Policy], estimate: Estimate, seed: int) -> None:
    """What failures cost at each interval of checkpoints, and the first ones of one play."""
    count = len(policies[0].plays.failures)
    console.print(
        f"\n  {count} plays of the run, failures drawn with seed {seed}: the median (5 % and 95 % of the plays)"
    )
    headings = [f"{policy.name}: {_describe_interval(policy, estimate)}" for policy in policies]
    table = Table("checkpoints", *headings, box=rich.box.SIMPLE_HEAD)
    spreads = [compute_spread(policy.plays) for policy in policies]
    for name, title in (
        ("failures", "failures"),
        ("redone_seconds", "computing done again"),
        ("restart_seconds", "restarts"),
        ("save_seconds", "stalls of saves"),
        ("wall_seconds", "from start to end"),
        ("goodput", "goodput"),
    ):
        table.add_row(title, *(_describe(name, spread[name]) for spread in spreads))
    table.add_row(
        "Daly's formula",
        *(
            f"{describe_seconds(_closed_form_seconds(policy, estimate))}, {policy.closed_form_goodput:.1%}"
            for policy in policies
        ),
    )
    console.print(table)
    if not estimate.reliability.failures:
        console.print("  Nothing fails: reliability.failures_per_device_hour of the cluster is 0.")
    _print_hopeless(console, policies, estimate)
    _print_timeline(console, policies[0], estimate)


def _describe_interval(policy: Policy, estimate: Estimate) -> str:
    every = policy.plays.save_every_steps
    return f"every {every:,} steps" if every < estimate.plan.train_steps else "only at the end"


def _describe(name: str, spread: tuple[float, float, float]) -> str:
    def tell(value: float) -> str:
        if name == "goodput":
            return f"{value:.1%}"
        if name == "failures" or not value:
            return f"{value:,.0f}"
        return describe_seconds(value)

    low, middle, high = map(tell, spread)
    return middle if low == high else f"{middle} ({low}, {high})"


def _print_hopeless(console: Console, policies: Sequence[Policy], estimate: Estimate) -> None:
    given_up = [policy for policy in policies if not policy.plays.is_finished.all()]
    if not given_up:
        return
    for policy in given_up:
        plays = policy.plays
        steps = plays.steps[~plays.is_finished]
        console.print(
            f"  Checkpoints {_describe_interval(policy, estimate)}: {len(steps):,} of {len(plays.steps):,} plays were "
            f"given up after {plays.failures.max():,} failures, the median of them with {np.median(steps):,.0f} of "
            f"{estimate.plan.train_steps:,} steps kept."
        )
    found, limits = estimate.reliability, estimate.cluster.reliability
    console.print(
        f"  A failure comes every {describe_seconds(found.mean_seconds_between_failures)}; a restart takes "
        f"{describe_seconds(limits.restart_seconds)}, a save {describe_seconds(found.save_seconds)}, a step "
        f"{describe_seconds(estimate.step.total)}. Lower checkpoint.save_every_steps, or plan with fewer ranks, "
        "faster storage or a shorter restart."
    )


def _print_timeline(console: Console, policy: Policy, estimate: Estimate) -> None:
    plays = policy.plays
    if not plays.timeline:
        return
    more = plays.failures[0] - len(plays.timeline)
    console.print(f"  one play, checkpoints {_describe_interval(policy, estimate)}")
    table = Table("failure after", "machine", "at step", "back to step", "steps lost", "", box=rich.box.SIMPLE_HEAD)
    for failure in plays.timeline:
        lost = failure.step - failure.resumed_step
        told = f"{describe_seconds(failure.lost_seconds)} of computing" if failure.lost_seconds else "while it started"
        cells = (f"{failure.machine:,}", f"{failure.step:,}", f"{failure.resumed_step:,}", f"{lost:,}")
        table.add_row(describe_seconds(failure.at_seconds), *cells, told)
    console.print(table)
    if more:
        console.print(f"  and {more:,} more")
