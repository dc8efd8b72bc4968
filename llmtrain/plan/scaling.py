"""Strong and weak scaling of a run: the estimate at every number of ranks, also more than the cluster has.

    strong   the global batch stays, so ranks are those among which it can be divided
    weak     the global batch grows with the ranks, so that each data-parallel rank keeps its micro-batches

In: `Config`, `ClusterConfig`, a number of ranks where both curves meet. Out: `Scaling`.
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass

from llmtrain.config.cluster import ClusterConfig
from llmtrain.config.root import Config
from llmtrain.plan.estimate import Estimate, build_reliability
from llmtrain.plan.memory import RankMemory, Verdict, judge, list_rank_memories
from llmtrain.plan.search import search_layouts
from llmtrain.plan.step_time import StepTime, compute_model_flops_utilization, compute_step_time
from llmtrain.plan.workload import Workload

FEWEST_RANKS, MOST_RANKS = 8, 100_000


@dataclass(frozen=True)
class ScalingPoint:
    """A run on one number of ranks."""

    work: Workload
    step: StepTime
    memory: RankMemory
    """Of the pipeline rank that needs most."""
    verdict: Verdict
    model_flops_utilization: float
    """MFU with causal attention, a fraction."""
    train_seconds: float
    """For the tokens of the run, interruptions included."""

    @property
    def ranks(self) -> int:
        """World size."""
        return self.work.world_size

    @property
    def tokens_per_second(self) -> float:
        """Of all ranks, while nothing interrupts."""
        return self.work.tokens_per_step / self.step.total


@dataclass(frozen=True)
class Scaling:
    """Both curves, ascending in ranks; the strong one is empty where no number of ranks divides the batch."""

    strong: tuple[ScalingPoint, ...]
    weak: tuple[ScalingPoint, ...]
    is_searched: bool
    """Whether each point has the best layout of the search, or all have the configured one with more data ranks."""


def scale_configured(config: Config, base: Estimate) -> Scaling:
    """Curves of the configured layout: more ranks are more data-parallel ranks.

    Args:
        config: the resolved configuration.
        base: where both curves meet.
    """
    work, cluster = base.work, base.cluster
    model_ranks = work.tensor_parallel_size * work.pipeline_parallel_size
    micro_batches = work.gradient_accumulation_steps * work.data_parallel_size
    fewest_micro_batches = len(work.stage_borders) - 1 if work.is_two_way else 1

    def build(sizes: Iterable[tuple[int, int]]) -> tuple[ScalingPoint, ...]:
        found = []
        for data, accumulation in sorted(sizes):
            if _is_drawn(data * model_ranks, cluster) and accumulation >= fewest_micro_batches:
                changed = dataclasses.replace(work, data_parallel_size=data, gradient_accumulation_steps=accumulation)
                found.append(_build_point(config, cluster, changed))
        return tuple(found)

    most = MOST_RANKS // model_ranks
    strong = ((data, micro_batches // data) for data in range(1, most + 1) if micro_batches % data == 0)
    weak = ((data, work.gradient_accumulation_steps) for data in {work.data_parallel_size, *_list_sizes(1, most)})
    return Scaling(build(strong), build(weak), is_searched=False)


def scale_searched(config: Config, cluster: ClusterConfig, ranks: int, tokenizer_vocab_size: int) -> Scaling:
    """Curves of the best layout for each number of ranks; those on which none fits are left out.

    Args:
        config: the resolved configuration.
        cluster: whose machines are used, in any number.
        ranks: where both curves meet.
        tokenizer_vocab_size: ids of the tokenizer.
    """
    batch = config.batch.global_batch_size
    sizes = _list_sizes(cluster.devices_per_node, MOST_RANKS, has_halves=batch % 3 == 0)
    counts = sorted(count for count in {ranks, *sizes} if _is_drawn(count, cluster))

    def find(batches: Iterable[tuple[int, int]]) -> tuple[ScalingPoint, ...]:
        found = []
        for count, global_batch_size in batches:
            grown = config.batch.model_copy(update={"global_batch_size": global_batch_size})
            changed = config.model_copy(update={"batch": grown})
            result = search_layouts(changed, count, cluster, tokenizer_vocab_size)
            if result.proposals:
                found.append(_build_point(config, cluster, result.proposals[0].work))
        return tuple(found)

    strong = ((count, batch) for count in counts)
    weak = ((count, batch * count // ranks) for count in counts if batch * count % ranks == 0)
    return Scaling(find(strong), find(weak), is_searched=True)


def _list_sizes(unit: int, most: int, has_halves: bool = True) -> list[int]:
    """One unit, two, four, eight ...; with halves also three, six, twelve ..., between a power of two and the next."""
    powers, factors = range(most.bit_length()), (1, 3) if has_halves else (1,)
    return [size for factor in factors for power in powers if (size := unit * factor << power) <= most]


def _is_drawn(ranks: int, cluster: ClusterConfig) -> bool:
    return FEWEST_RANKS <= ranks <= MOST_RANKS and ranks % cluster.devices_per_node == 0


def _build_point(config: Config, cluster: ClusterConfig, work: Workload) -> ScalingPoint:
    step = compute_step_time(work, cluster)
    memory = max(list_rank_memories(work, cluster.device.kind == "cpu"), key=lambda found: found.total)
    train_steps = -(-_count_train_tokens(config) // work.tokens_per_step)
    reliability = build_reliability(config, cluster, work, train_steps, step.total)
    utilization = compute_model_flops_utilization(work, cluster, step.total)
    return ScalingPoint(work, step, memory, judge(memory, cluster), utilization, reliability.train_seconds)


def _count_train_tokens(config: Config) -> int:
    steps, batch = config.training.train_steps, config.batch
    if steps is None:
        return config.training.train_tokens or 0
    return steps * batch.global_batch_size * batch.sequence_length
