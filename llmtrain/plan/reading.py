"""Reading data: what a run asks of its storage, and the time of the loader's thread, which runs beside the steps.

In: `Config`, `Plan`, seconds of a step. Out: `Reading`.
"""

from dataclasses import dataclass

from llmtrain.config.root import Config
from llmtrain.plan.build import Plan
from llmtrain.shards.manifest import choose_bytes_per_token

_LOADER_TOKENS_PER_SECOND = {"concatenate": 38.7e6, "best_fit": 23.0e6}
"""Of one rank, in batches of 16 sequences: medians of docs/results/loader_cpu.json."""
_ORDER_SECONDS_PER_SEQUENCE = 3e-3 / 512
"""To find where a sequence of the global batch lies, which every rank does for all of them (docs/data-order.md)."""


@dataclass(frozen=True)
class Reading:
    """What reading takes while training runs at full speed."""

    bytes_per_second: float
    """Of all ranks together; ranks of one replica each read its tokens."""
    seconds: float
    """Of the loader's thread of one rank for each step."""
    is_hidden: bool
    """Whether that is less than a step, so that training never waits for it."""


def compute_reading(config: Config, plan: Plan, step_seconds: float) -> Reading:
    """What reading takes.

    Args:
        config: the resolved configuration.
        plan: its derived numbers.
        step_seconds: of an optimizer step.
    """
    tokens = plan.tokens_per_step / plan.data_parallel_size
    bytes_per_second = tokens * choose_bytes_per_token(plan.shape.vocab_size) * plan.world_size / step_seconds
    seconds = tokens / _LOADER_TOKENS_PER_SECOND[config.data.packing]
    seconds += plan.global_batch_size * _ORDER_SECONDS_PER_SEQUENCE
    return Reading(bytes_per_second, seconds, seconds < step_seconds)
