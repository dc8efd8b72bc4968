"""Which rank holds what: rank = tensor + tensor_parallel_size x (data + data_parallel_size x pipeline).

Tensor-parallel neighbours get consecutive ranks, so that they share a machine; then data, then pipeline.

Source:
    Narayanan et al. 2021, "Efficient Large-Scale Language Model Training on GPU Clusters", section 3.2.
"""

from collections.abc import Sequence

from llmtrain.plan.build import Plan
from llmtrain.plan.partition import count_unit_parameters, describe_stage

_RANKS_SHOWN = 4


def list_groups(data: int, tensor: int, pipeline: int, key_value_sharers: int = 1) -> dict[str, list[list[int]]]:
    """Ranks of every group, by the axis along which its members differ.

    Args:
        data: data-parallel size.
        tensor: tensor-parallel size.
        pipeline: pipeline-parallel size.
        key_value_sharers: neighbouring tensor-parallel ranks that hold the same key/value head.
    """

    def rank(d: int, t: int, p: int) -> int:
        return t + tensor * (d + data * p)

    datas, tensors, pipelines = range(data), range(tensor), range(pipeline)
    ends = sorted({0, pipeline - 1})
    return {
        "data": [[rank(d, t, p) for d in datas] for p in pipelines for t in tensors],
        "tensor": [[rank(d, t, p) for t in tensors] for p in pipelines for d in datas],
        "pipeline": [[rank(d, t, p) for p in pipelines] for d in datas for t in tensors],
        "model": [[rank(d, t, p) for p in pipelines for t in tensors] for d in datas],
        "ends": [[rank(d, t, p) for p in ends] for d in datas for t in tensors]
        + [[rank(d, t, p)] for p in pipelines[1:-1] for d in datas for t in tensors],
        "key_value": [
            [rank(d, t, p) for t in range(first, first + key_value_sharers)]
            for p in pipelines
            for d in datas
            for first in range(0, tensor, key_value_sharers)
        ],
    }


def describe_stages(plan: Plan) -> list[tuple[str, str, str, str]]:
    """What each pipeline rank holds: its number, its ranks, its layers, and the parameters of each rank."""
    ranks_of_stage = plan.data_parallel_size * plan.tensor_parallel_size
    parameters, borders = count_unit_parameters(plan.shape), plan.stage_borders
    rows = []
    for pipeline in range(plan.pipeline_parallel_size):
        stages = [pipeline]
        if len(borders) - 1 > plan.pipeline_parallel_size:
            stages.append(len(borders) - 2 - pipeline)
        layers = "; ".join(describe_stage(borders, stage, plan.shape.num_layers) for stage in stages)
        held = sum(sum(parameters[borders[stage] : borders[stage + 1]]) for stage in stages)
        if plan.shape.tie_word_embeddings and plan.pipeline_parallel_size > 1 and stages == [len(borders) - 2]:
            held += plan.shape.vocab_size * plan.shape.hidden_size  # its copy of the embedding
        first, last = pipeline * ranks_of_stage, (pipeline + 1) * ranks_of_stage - 1
        rows.append((str(pipeline), f"{first}-{last}", layers, f"{held // plan.tensor_parallel_size:,}"))
    return rows


def describe_groups(plan: Plan) -> list[tuple[str, str]]:
    """The first group along each axis, as an example, with how many there are."""
    groups = list_groups(plan.data_parallel_size, plan.tensor_parallel_size, plan.pipeline_parallel_size)
    return [(f"{axis}-parallel", _show(groups[axis])) for axis in ("tensor", "data", "pipeline")]


def find_split_groups(plan: Plan, ranks_per_machine: int) -> str | None:
    """A warning when ranks that share weight matrices do not share a machine, with what to do; None when all is well.

    Args:
        plan: of the run.
        ranks_per_machine: ranks that each machine holds, consecutive ones.
    """
    tensor = plan.tensor_parallel_size
    if ranks_per_machine % tensor == 0 or plan.world_size <= ranks_per_machine:
        return None
    fitting = [size for size in range(1, ranks_per_machine + 1) if ranks_per_machine % size == 0]
    return (
        f"parallel.tensor_parallel_size = {tensor} with {ranks_per_machine} ranks on a machine: ranks that talk in "
        "every layer are on different machines, which is slow. Choose a size that divides the ranks of a machine: "
        f"{', '.join(map(str, fitting))}."
    )


def _show(groups: Sequence[Sequence[int]]) -> str:
    first = groups[0]
    ranks = ", ".join(map(str, first[:_RANKS_SHOWN]))
    if len(first) > _RANKS_SHOWN:
        ranks += f", ... {first[-1]}"
    return f"{len(groups):,} groups of {len(first):,}; the first: ranks {ranks}"
