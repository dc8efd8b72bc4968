"""Who is where: the place of each rank in data x tensor x pipeline, and the groups, by name.

Tensor-parallel neighbours get consecutive ranks, so that they share a machine; then data, then pipeline (Megatron-LM,
Narayanan et al. 2021, section 3.2).
"""

from dataclasses import dataclass

import torch.distributed as dist

from llmtrain.plan.build import Plan


@dataclass(frozen=True)
class Layout:
    """Coordinates of one rank and the process groups it belongs to."""

    rank: int
    data_parallel_size: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    data_parallel_group: dist.ProcessGroup
    tensor_parallel_group: dist.ProcessGroup
    pipeline_parallel_group: dist.ProcessGroup

    @property
    def world_size(self) -> int:
        """All ranks."""
        return self.data_parallel_size * self.tensor_parallel_size * self.pipeline_parallel_size

    @property
    def tensor_parallel_rank(self) -> int:
        """Which part of each weight matrix this rank holds."""
        return self.rank % self.tensor_parallel_size

    @property
    def data_parallel_rank(self) -> int:
        """Which part of each batch this rank reads."""
        return self.rank // self.tensor_parallel_size % self.data_parallel_size

    @property
    def pipeline_parallel_rank(self) -> int:
        """Which layers this rank holds."""
        return self.rank // (self.tensor_parallel_size * self.data_parallel_size)


def list_groups(data: int, tensor: int, pipeline: int) -> dict[str, list[list[int]]]:
    """Ranks of every group, by the axis along which its members differ.

    Args:
        data: data-parallel size.
        tensor: tensor-parallel size.
        pipeline: pipeline-parallel size.
    """

    def rank(d: int, t: int, p: int) -> int:
        return t + tensor * (d + data * p)

    return {
        "data": [[rank(d, t, p) for d in range(data)] for p in range(pipeline) for t in range(tensor)],
        "tensor": [[rank(d, t, p) for t in range(tensor)] for p in range(pipeline) for d in range(data)],
        "pipeline": [[rank(d, t, p) for p in range(pipeline)] for d in range(data) for t in range(tensor)],
    }


def build_layout(plan: Plan, rank: int) -> Layout:
    """Create all groups; every rank calls this once, after the ranks have joined."""
    data, tensor, pipeline = plan.data_parallel_size, plan.tensor_parallel_size, plan.pipeline_parallel_size
    mine = {}
    for axis, groups in list_groups(data, tensor, pipeline).items():
        for members in groups:
            group = dist.new_group(members)  # collective: all ranks create all groups
            if rank in members:
                mine[axis] = group
    return Layout(rank, data, tensor, pipeline, mine["data"], mine["tensor"], mine["pipeline"])
