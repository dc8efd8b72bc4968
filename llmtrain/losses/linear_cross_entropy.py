"""Cross-entropy fused with the output projection, in chunks: all logits never exist at one time.

hidden_TD, weight_VD, labels_T -> sum of losses, and the loss of each token. The gradients of hidden and weight are made
in the forward pass, while a chunk's logits are at hand, so nothing is computed twice.

Shapes: T tokens, D hidden size, V padded vocabulary, C tokens of a chunk.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from llmtrain.data.labels import IGNORE_INDEX


@dataclass(frozen=True)
class VocabularyShard:
    """A part of the output projection's rows, where the others lie elsewhere; the functions work in place."""

    first_row: int
    """Token id of the first row here."""
    sum_over_shards: Callable[[torch.Tensor], object]
    """Make a tensor the sum of those of all shards."""
    max_over_shards: Callable[[torch.Tensor], object]
    """Make a tensor the maximum of those of all shards."""


def linear_cross_entropy(
    hidden_TD: torch.Tensor,
    weight_VD: torch.Tensor,
    labels_T: torch.Tensor,
    *,
    vocab_size: int,
    chunk_tokens: int,
    z_loss_coefficient: float = 0.0,
    shard: VocabularyShard | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Sum over tokens of -log softmax(hidden @ weight.T)[label], plus coefficient * log(Z)^2.

    Args:
        hidden_TD: last hidden states; under autocast the products run in its dtype, else in hidden's own.
        weight_VD: output projection; rows from `vocab_size` on get no probability and no gradient.
        labels_T: target ids; IGNORE_INDEX where there is no target.
        vocab_size: real rows of the weight.
        chunk_tokens: tokens whose logits exist at one time.
        z_loss_coefficient: weight of log(Z)^2; part of the first result only.
        shard: where `weight_VD` holds only some of the vocabulary's rows. The results are the same on all shards; the
            gradient of hidden is this shard's addend.

    Returns:
        The differentiable sum, float32 scalar; and the cross-entropy of each token, float32, detached, 0 where there
        is no target.

    Source:
        Chunked linear cross-entropy: Wijmans et al. 2024, "Cut Your Losses"; z-loss: PaLM, Chowdhery et al. 2022,
        section 5; over shards of the vocabulary: Shoeybi et al. 2019, section 3.
    """
    results: tuple[torch.Tensor, torch.Tensor] = _LinearCrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_TD, weight_VD, labels_T, vocab_size, chunk_tokens, z_loss_coefficient, torch.is_grad_enabled(), shard
    )
    return results


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_TD: torch.Tensor,
        weight_VD: torch.Tensor,
        labels_T: torch.Tensor,
        vocab_size: int,
        chunk_tokens: int,
        z_loss_coefficient: float,
        is_grad_enabled: bool,
        shard: VocabularyShard | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        device = hidden_TD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_TD.dtype
        accumulate_dtype = torch.promote_types(dtype, torch.float32)
        # needs_input_grad knows nothing of no_grad: it is true for every parameter, in evaluation too.
        needs_hidden, needs_weight = (is_grad_enabled and needed for needed in ctx.needs_input_grad[:2])
        hidden_grad_TD = torch.empty_like(hidden_TD, dtype=dtype) if needs_hidden else None
        weight_grad_VD = torch.zeros_like(weight_VD, dtype=accumulate_dtype) if needs_weight else None
        losses_T = torch.empty(len(labels_T), dtype=accumulate_dtype, device=hidden_TD.device)
        loss_sum = losses_T.new_zeros(())
        with torch.autocast(device, enabled=False):
            weight = weight_VD.to(dtype)
            for start in range(0, len(labels_T), chunk_tokens):
                chunk = slice(start, start + chunk_tokens)
                hidden_CD, labels_C = hidden_TD[chunk].to(dtype), labels_T[chunk]
                logits_CV = (hidden_CD @ weight.T).to(accumulate_dtype)
                losses_C, log_z_C = _cross_entropy_to_gradient(
                    logits_CV, labels_C, vocab_size, z_loss_coefficient, shard
                )
                losses_T[chunk] = losses_C
                loss_sum += losses_C.sum() + z_loss_coefficient * log_z_C.square().sum()
                gradient_CV = logits_CV.to(dtype)
                if hidden_grad_TD is not None:
                    torch.mm(gradient_CV, weight, out=hidden_grad_TD[chunk])
                if weight_grad_VD is not None:
                    if dtype == accumulate_dtype:
                        weight_grad_VD.addmm_(gradient_CV.T, hidden_CD)
                    else:
                        weight_grad_VD += gradient_CV.T @ hidden_CD
                del logits_CV, gradient_CV  # or they would live until those of the next chunk are there
        ctx.save_for_backward(hidden_grad_TD, weight_grad_VD)
        ctx.dtypes = hidden_TD.dtype, weight_VD.dtype
        ctx.mark_non_differentiable(losses_T)
        return loss_sum, losses_T

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden_grad_TD, weight_grad_VD = ctx.saved_tensors
        hidden_dtype, weight_dtype = ctx.dtypes
        scale = grad_outputs[0]
        hidden_grad = None if hidden_grad_TD is None else (hidden_grad_TD * scale).to(hidden_dtype)
        weight_grad = None if weight_grad_VD is None else (weight_grad_VD * scale).to(weight_dtype)
        return hidden_grad, weight_grad, None, None, None, None, None, None


def _cross_entropy_to_gradient(
    logits_CV: torch.Tensor,
    labels_C: torch.Tensor,
    vocab_size: int,
    z_loss_coefficient: float,
    shard: VocabularyShard | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Turn logits into the gradient of the loss with respect to them, in place; one exponential per logit.

    Returns:
        Cross-entropy and log(Z) of each token, 0 where there is no target.
    """
    first_row, rows = (0 if shard is None else shard.first_row), logits_CV.shape[1]
    real_rows = min(rows, max(0, vocab_size - first_row))
    logits_CV[:, real_rows:] = float("-inf")
    valid_C = labels_C != IGNORE_INDEX
    own_rows_C = labels_C - first_row
    is_here_C = valid_C & (own_rows_C >= 0) & (own_rows_C < rows)
    targets_C1 = own_rows_C.where(is_here_C, 0).unsqueeze(1)
    target_logits_C = logits_CV.gather(1, targets_C1).squeeze(1).where(is_here_C, 0.0)
    max_C1 = logits_CV.amax(1, keepdim=True)
    if shard is not None:
        shard.max_over_shards(max_C1)
    logits_CV.sub_(max_C1).exp_()
    sum_C = logits_CV.sum(1)
    if shard is not None:
        sums_2C = torch.stack((sum_C, target_logits_C))
        shard.sum_over_shards(sums_2C)
        sum_C, target_logits_C = sums_2C.unbind()
    log_z_C = (max_C1.squeeze(1) + sum_C.log()).where(valid_C, 0.0)
    losses_C = (log_z_C - target_logits_C).where(valid_C, 0.0)
    # d loss = softmax - onehot, d log(Z)^2 = 2 log(Z) softmax
    row_scale_C = ((1.0 + 2.0 * z_loss_coefficient * log_z_C) / sum_C).where(valid_C, 0.0)
    logits_CV.mul_(row_scale_C.unsqueeze(1))
    logits_CV.scatter_add_(1, targets_C1, -is_here_C.to(logits_CV.dtype).unsqueeze(1))
    return losses_C, log_z_C
