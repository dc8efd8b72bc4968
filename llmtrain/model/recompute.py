"""Activation recompute: what the forward pass keeps for the backward pass.

    none        everything
    selective   results of matrix products and attention; norms, activations and rotations are done again
    full        only the input of each block

Source:
    Chen et al. 2016 (full); Korthikanti et al. 2022 (selective, there for the attention core only).
"""

import functools
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

Recompute = Literal["none", "selective", "full"]

_aten = torch.ops.aten
_KEPT = {
    _aten.mm.default,
    _aten.addmm.default,
    _aten.bmm.default,
    _aten.linear.default,
    _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default,
    _aten._scaled_dot_product_efficient_attention.default,
    _aten._scaled_dot_product_cudnn_attention.default,
}


def run_with_recompute(kind: Recompute, block: Callable[..., torch.Tensor], *args: Any) -> torch.Tensor:
    """Call `block(*args)`, keeping only what `kind` keeps."""
    if kind == "none" or not torch.is_grad_enabled():
        return block(*args)
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}
    if kind == "selective":
        options["context_fn"] = functools.partial(create_selective_checkpoint_contexts, _keep_products)
    result: torch.Tensor = checkpoint(block, *args, **options)
    return result


def _keep_products(context: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operator in _KEPT else CheckpointPolicy.PREFER_RECOMPUTE
