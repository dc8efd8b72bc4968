"""Who is where: the place of this rank in data x tensor x pipeline (`plan.rank_map`), and its groups, by name."""

from dataclasses import dataclass

import torch.distributed as dist

from llmtrain.parallel.placement import TensorShard
from llmtrain.plan.build import Plan
from llmtrain.plan.rank_map import list_groups


@dataclass(frozen=True)
class Layout:
    """Coordinates of one rank and the process groups it belongs to."""

    rank: int
    data_parallel_size: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    data_parallel_group: dist.ProcessGroup
    """Ranks with the same weights and other batches."""
    tensor_parallel_group: dist.ProcessGroup
    """Ranks that share each weight matrix."""
    pipeline_parallel_group: dist.ProcessGroup
    """Ranks that hold the layers before and after these."""
    model_parallel_group: dist.ProcessGroup
    """Ranks that together hold one whole model."""
    ends_group: dist.ProcessGroup
    """The first and the last stage, which both hold a tied embedding; one rank where there is one stage."""
    key_value_group: dist.ProcessGroup
    """Tensor-parallel ranks that hold the same key/value head; one rank where each has its own."""

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

    @property
    def tensor_shard(self) -> TensorShard:
        """This rank's part of each weight matrix."""
        return TensorShard(self.tensor_parallel_rank, self.tensor_parallel_size)

    def rank_of_stage(self, stage: int) -> int:
        """The rank that holds another stage of this rank's pipeline."""
        stride = self.tensor_parallel_size * self.data_parallel_size
        return stage * stride + self.rank % stride


def build_layout(plan: Plan, rank: int) -> Layout:
    """Create all groups; every rank calls this once, after the ranks have joined."""
    data, tensor, pipeline = plan.data_parallel_size, plan.tensor_parallel_size, plan.pipeline_parallel_size
    sharers = TensorShard(0, tensor).key_value_sharers(plan.shape)
    mine = {}
    for axis, groups in list_groups(data, tensor, pipeline, sharers).items():
        for members in groups:
            group = dist.new_group(members)  # collective: all ranks create all groups
            if rank in members:
                mine[axis] = group
    return Layout(
        rank,
        data,
        tensor,
        pipeline,
        data_parallel_group=mine["data"],
        tensor_parallel_group=mine["tensor"],
        pipeline_parallel_group=mine["pipeline"],
        model_parallel_group=mine["model"],
        ends_group=mine["ends"],
        key_value_group=mine["key_value"],
    )
