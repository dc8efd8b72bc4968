"""The best layouts of a run on a cluster: every allowed combination is estimated, those that fit are ranked.

In: `Config`, world size, `ClusterConfig`. Out: `Proposal`s, fastest first, tight ones last, each with the overlay that
makes it.

Tried are tensor- and pipeline-parallel sizes, ZeRO stages, micro-batch sizes and recompute; where DualPipeV is
configured, both schedules. The global batch and everything else that decides the result stay as they are.
"""

import dataclasses
import functools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

from llmtrain.config.cluster import ClusterConfig
from llmtrain.config.loader import validate
from llmtrain.config.root import Config
from llmtrain.errors import ConfigError
from llmtrain.plan.build import build_plan
from llmtrain.plan.collectives import is_on_one_machine
from llmtrain.plan.flops import Recompute
from llmtrain.plan.memory import RankMemory, Verdict, judge, list_rank_memories
from llmtrain.plan.model_shape import ModelShape, build_model_shape
from llmtrain.plan.partition import compute_unit_costs, partition_units
from llmtrain.plan.step_time import StepTime, compute_step_time
from llmtrain.plan.workload import Workload, build_base_workload

_RECOMPUTES: tuple[Recompute, ...] = ("none", "selective", "full")
_WORDS = {
    "compute": "slower arithmetic",
    "recompute": "more recompute",
    "tensor_communication": "more tensor-parallel communication",
    "pipeline_communication": "more messages between stages",
    "bubble": "a larger bubble",
    "data_communication": "more communication of gradients and weights",
    "update": "a longer update",
}


@dataclass(frozen=True)
class Proposal:
    """A layout that was estimated."""

    work: Workload
    memory: RankMemory
    """Of the pipeline rank that needs most."""
    step: StepTime
    verdict: Verdict

    @property
    def overlay(self) -> dict[str, dict[str, Any]]:
        """Keys of the configuration that make this layout."""
        work = self.work
        return {
            "batch": {"micro_batch_size": work.micro_batch_size},
            "parallel": {
                "tensor_parallel_size": work.tensor_parallel_size,
                "pipeline_parallel_size": work.pipeline_parallel_size,
                "pipeline_schedule": "dualpipev" if work.is_two_way else "1f1b",
                "zero_stage": work.zero_stage,
                "hierarchical_partition_size": None,
            },
            "training": {"activation_recompute": work.recompute},
        }

    def explain_loss_to(self, best: "Proposal") -> str:
        """Why this layout is slower than the best one: the part of the step that grew most."""
        differences = {
            field.name: getattr(self.step, field.name) - getattr(best.step, field.name) for field in fields(self.step)
        }
        name = max(differences, key=lambda key: differences[key])
        slower = self.step.total / best.step.total - 1
        if slower > 0:
            return f"{slower:.1%} slower: {_WORDS[name]}"
        return "the same" if slower == 0 else f"{-slower:.1%} faster"


@dataclass(frozen=True)
class SearchResult:
    """Ranked layouts and what became of the others."""

    proposals: tuple[Proposal, ...]
    """Those that fit, fastest first, then those that are tight."""
    tried: int
    too_large: int
    """Do not fit the device's memory."""
    smallest: Proposal | None
    """Of all that were tried, what needs the least memory."""


def search_layouts(config: Config, world_size: int, cluster: ClusterConfig, tokenizer_vocab_size: int) -> SearchResult:
    """Estimate every layout.

    Args:
        config: the resolved configuration.
        world_size: ranks.
        cluster: where they are.
        tokenizer_vocab_size: ids of the tokenizer.
    """
    proposals, tried, too_large = [], 0, 0
    smallest: Proposal | None = None
    is_cpu = cluster.device.kind == "cpu"
    for work in list_workloads(config, world_size, cluster, tokenizer_vocab_size):
        tried += 1
        memory = max(list_rank_memories(work, is_cpu), key=lambda found: found.total)
        proposal = Proposal(work, memory, compute_step_time(work, cluster), judge(memory, cluster))
        if smallest is None or memory.total < smallest.memory.total:
            smallest = proposal
        if proposal.verdict == "does not fit":
            too_large += 1
        else:
            proposals.append(proposal)
    proposals.sort(key=lambda found: (found.verdict == "tight", found.step.total, found.memory.total))
    return SearchResult(tuple(proposals), tried, too_large, smallest)


def list_workloads(
    config: Config, world_size: int, cluster: ClusterConfig, tokenizer_vocab_size: int
) -> Iterator[Workload]:
    """Every combination that the configuration's own checks and the batch allow."""
    batch, length = config.batch, config.batch.sequence_length
    for tensor in _divisors(world_size, cluster.devices_per_node):
        if not _allows_tensor(config, tensor) or not is_on_one_machine(tensor, 1, world_size, cluster):
            continue
        shape = build_model_shape(config.model, tokenizer_vocab_size, length, tensor)
        for pipeline in _divisors(world_size // tensor, shape.num_layers):
            data = world_size // tensor // pipeline
            if batch.global_batch_size % data:
                continue
            base = build_base_workload(config, shape, data, tensor, pipeline, _cut(shape, length, pipeline))
            for stages in _list_stage_counts(config, pipeline):
                yield from _vary(config, dataclasses.replace(base, stage_borders=_cut(shape, length, stages)))


def _vary(config: Config, base: Workload) -> Iterator[Workload]:
    """Micro-batch sizes, ZeRO stages and recompute on one layout of ranks."""
    sequences, pipeline = config.batch.global_batch_size // base.data_parallel_size, base.pipeline_parallel_size
    fewest = len(base.stage_borders) - 1 if base.is_two_way else pipeline // 2
    for micro in _powers_of_two(sequences):
        count = sequences // micro
        if count < fewest:
            continue
        for zero_stage in _zero_stages(config, pipeline):
            for recompute in _RECOMPUTES:
                yield dataclasses.replace(
                    base,
                    micro_batch_size=micro,
                    gradient_accumulation_steps=count,
                    zero_stage=zero_stage,
                    recompute=recompute,
                )


def _list_stage_counts(config: Config, pipeline: int) -> list[int]:
    """A stage on each rank; where DualPipeV is configured and the model has the blocks, also two."""
    is_two_way = config.parallel.pipeline_schedule == "dualpipev" and 1 < pipeline <= config.model.num_layers // 2
    return [pipeline, 2 * pipeline] if is_two_way else [pipeline]


def apply_overlay(config: Config, overlay: dict[str, dict[str, Any]]) -> Config:
    """The configuration with a proposal's keys, through all checks of the loader.

    Raises:
        ConfigError: they contradict the rest.
    """
    values = json.loads(config.model_dump_json())
    for section, keys in overlay.items():
        values[section] |= keys
    return validate(values, {(): "proposed layout"})


def keep_runnable(
    proposals: Sequence[Proposal], config: Config, world_size: int, tokenizer_vocab_size: int, wanted: int
) -> list[Proposal]:
    """The first proposals that the loader and `build_plan` accept as runs; none of none.

    Raises:
        ConfigError: all are refused; with the reason of the first, which is then the configuration's own.
    """
    kept: list[Proposal] = []
    reason: ConfigError | None = None
    for proposal in proposals:
        if len(kept) == wanted:
            break
        try:
            build_plan(apply_overlay(config, proposal.overlay), world_size, tokenizer_vocab_size)
        except ConfigError as error:
            reason = reason or error
            continue
        kept.append(proposal)
    if reason is not None and not kept:
        raise reason
    return kept


def _allows_tensor(config: Config, tensor: int) -> bool:
    model = config.model
    sizes = [model.num_attention_heads, model.intermediate_size or 4 * model.hidden_size]
    if config.parallel.sequence_parallel:
        sizes.append(config.batch.sequence_length)
    groups = getattr(model, "num_key_value_heads", None) or model.num_attention_heads
    return all(size % tensor == 0 for size in sizes) and (groups % tensor == 0 or tensor % groups == 0)


def _zero_stages(config: Config, pipeline: int) -> tuple[int, ...]:
    stages = (1,) if pipeline > 1 else (1, 2, 3)
    return stages if config.precision.parameter_dtype == "bfloat16" else (0, *stages)


def _powers_of_two(number: int) -> list[int]:
    """Those that divide it."""
    return [1 << power for power in range((number & -number).bit_length())]


def _divisors(number: int, most: int) -> list[int]:
    return [size for size in range(1, min(number, most) + 1) if number % size == 0]


@functools.lru_cache(maxsize=256)
def _cut(shape: ModelShape, sequence_length: int, stages: int) -> tuple[int, ...]:
    return tuple(partition_units(compute_unit_costs(shape, sequence_length), stages))
