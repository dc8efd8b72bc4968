"""Ranks that should hold the same weights: do they? A silent difference grows for weeks before a loss shows it.

Replicas are parameters with the same place in the same logical tensor: norms and biases over tensor-parallel ranks, a
shared key/value head, a tied embedding and its copy, and every weight over data-parallel ranks (but for ZeRO-3, which
keeps one copy).

Source:
    The need: BigScience 2022, chronicles of BLOOM: layer norms of tensor-parallel ranks had drifted apart.
"""

from collections import Counter
from collections.abc import Mapping

import torch
import torch.distributed as dist

from llmtrain.checkpoint.digest import compute_range_digest
from llmtrain.checkpoint.fragments import held_fragments
from llmtrain.errors import ParallelError
from llmtrain.parallel.engine import Engine
from llmtrain.parallel.placement import Placement, get_placement

Digests = dict[str, int]


def check_replicas(engine: Engine, step: int) -> None:
    """Compare all replicas. All ranks call it.

    Args:
        engine: between two steps.
        step: optimizer steps taken, for the message.

    Raises:
        ParallelError: on every rank, when some differ: rank and tensor are named.
    """
    layout = engine.layout
    if layout.world_size == 1:
        return
    own = _digest_parameters(engine)
    problems: list[str] = []
    for group in (layout.tensor_parallel_group, layout.ends_group, layout.data_parallel_group):
        if dist.get_world_size(group) > 1:
            gathered: list[Digests | None] = [None] * dist.get_world_size(group)
            dist.all_gather_object(gathered, own, group=group)
            ranks = dist.get_process_group_ranks(group)
            problems += _find_differences({rank: found or {} for rank, found in zip(ranks, gathered, strict=True)})
    everywhere: list[list[str]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(everywhere, problems)
    different = dict.fromkeys(problem for found in everywhere for problem in found)
    if different:
        raise ParallelError(
            f"step {step}: weights that ranks share have drifted apart:\n" + "\n".join(different) + "\n"
            "No checkpoint holds them, as weights are compared before each save. Look at the memory and the links of "
            "that machine, then start again: the run resumes from the last checkpoint."
        )


def _digest_parameters(engine: Engine) -> Digests:
    """By place in the logical tensor."""
    deepspeed = engine.deepspeed
    if deepspeed.zero_optimization_stage() == 3:
        return {
            f"{fragment.name} {_describe_place(fragment.placement)} from {fragment.start}": fragment.compute_digest()
            for fragment in held_fragments(deepspeed)
        }
    return {
        f"{placement.name} {_describe_place(placement)}": compute_range_digest(
            placement.name, parameter.detach().to(torch.float32).flatten(), 0
        )
        for parameter in engine.module.parameters()
        if (placement := get_placement(parameter))
    }


def _describe_place(placement: Placement) -> str:
    return str([(offset, box.shape) for box, offset in placement.parts])


def _find_differences(digests_by_rank: Mapping[int, Digests]) -> list[str]:
    problems = []
    for place in dict.fromkeys(place for digests in digests_by_rank.values() for place in digests):
        found = {rank: digests[place] for rank, digests in digests_by_rank.items() if place in digests}
        usual, count = Counter(found.values()).most_common(1)[0]
        if count < len(found):
            name = place.split(" ")[0]
            others = ", ".join(str(rank) for rank, digest in found.items() if digest != usual)
            same = ", ".join(str(rank) for rank, digest in found.items() if digest == usual)
            problems.append(f"  {name}: rank {others} differs from rank {same}")
    return problems
