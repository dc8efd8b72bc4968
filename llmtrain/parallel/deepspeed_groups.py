"""What DeepSpeed asks a "model parallel unit" for: the groups of a layout under DeepSpeed's names.

"Model parallel" means every rank of one whole model, tensor and pipeline; gradient norms are summed over it.
"""

import torch.distributed as dist

from llmtrain.parallel.layout import Layout


class DeepSpeedGroups:
    """The `mpu` argument of `deepspeed.initialize`."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    def get_model_parallel_group(self) -> dist.ProcessGroup:
        """Ranks that together hold one model."""
        return self._layout.model_parallel_group

    def get_model_parallel_rank(self) -> int:
        """Place among them."""
        return dist.get_rank(self._layout.model_parallel_group)

    def get_model_parallel_world_size(self) -> int:
        """How many they are."""
        return dist.get_world_size(self._layout.model_parallel_group)

    def get_tensor_model_parallel_group(self) -> dist.ProcessGroup:
        """Ranks that share each weight matrix."""
        return self._layout.tensor_parallel_group

    def get_tensor_model_parallel_rank(self) -> int:
        """Place among them."""
        return self._layout.tensor_parallel_rank

    def get_tensor_model_parallel_world_size(self) -> int:
        """How many they are."""
        return self._layout.tensor_parallel_size

    def get_pipeline_model_parallel_world_size(self) -> int:
        """Stages."""
        return self._layout.pipeline_parallel_size

    def get_data_parallel_group(self) -> dist.ProcessGroup:
        """Ranks with the same weights and other batches."""
        return self._layout.data_parallel_group

    def get_data_parallel_group_ranks(self) -> list[int]:
        """Their global ranks."""
        return dist.get_process_group_ranks(self._layout.data_parallel_group)

    def get_data_parallel_rank(self) -> int:
        """Place among them."""
        return self._layout.data_parallel_rank

    def get_data_parallel_world_size(self) -> int:
        """How many they are."""
        return self._layout.data_parallel_size
