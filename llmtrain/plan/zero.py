"""How DeepSpeed's ZeRO pads what it shares out, and in which numbers it sends it.

In: `Workload`, the weights of a rank. Out: counts of elements, and bytes of one number.

Source:
    deepspeed 0.19: `zero/stage_1_and_2.py`, `stage3.py`, `partition_parameters.py`; `torch_autocast.py`.
"""

from collections.abc import Sequence

from llmtrain.plan.parameters import Weight
from llmtrain.plan.workload import Workload

_ALIGNMENT = 2
"""`nccl_start_alignment_factor`."""


def pad_groups(weights: Sequence[Weight], ranks: int) -> list[int]:
    """Elements of AdamW's two groups (matrices, vectors), padded as ZeRO 1 and 2 share them out.

    Args:
        weights: what a rank holds.
        ranks: that share them.
    """
    multiple = _ALIGNMENT * ranks
    groups = [sum(weight.elements for weight in weights if weight.is_vector == kind) for kind in (False, True)]
    return [-(-group // multiple) * multiple for group in groups]


def pad_weight(weight: Weight, ranks: int) -> int:
    """Elements of a weight, padded as ZeRO 3 shares it out."""
    return -(-weight.elements // ranks) * ranks


def is_persistent(work: Workload, weight: Weight) -> bool:
    """Whether ZeRO 3 keeps a weight whole on every rank."""
    return weight.elements < work.zero3_persistent_below


def reduced_number_bytes(work: Workload, weight: Weight) -> int:
    """Size of the numbers in which a weight's gradient is summed over ranks.

    Under autocast ZeRO goes by the module: `nn.Linear` in bfloat16 if `precision.reduce_dtype` is, all others in the
    format of their weights. Tensor-parallel layers are no `nn.Linear`.
    """
    if work.zero_stage == 0 or not work.uses_autocast:
        return work.reduce_bytes
    return gathered_number_bytes(work, weight)


def gathered_number_bytes(work: Workload, weight: Weight) -> int:
    """Size of the numbers in which ZeRO 3 gathers a weight; see `reduced_number_bytes`."""
    is_linear = weight.component in ("attention", "feed-forward") and work.tensor_parallel_size == 1
    return min(work.parameter_bytes, work.reduce_bytes) if work.uses_autocast and is_linear else work.parameter_bytes
