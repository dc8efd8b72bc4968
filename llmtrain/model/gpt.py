"""The GPT of both families, for one device: embedding -> blocks -> final norm -> head.

In: token ids. Out: logits, or sums of losses when labels are given (never means: the caller knows the whole batch).

Shapes: B batch, T tokens, D hidden size, V vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.losses.linear_cross_entropy import VocabularyShard, linear_cross_entropy
from llmtrain.model.attention import AttentionContext, KeyValueCache, build_document_mask
from llmtrain.model.block import Block
from llmtrain.model.norms import build_norm
from llmtrain.model.recompute import Recompute, run_with_recompute
from llmtrain.model.rotary import compute_rotation
from llmtrain.plan.model_shape import ModelShape


class LossOutput(NamedTuple):
    """Sums of losses, float32. A tuple, because DeepSpeed looks for tensors inside tuples."""

    loss_sum: torch.Tensor
    """Differentiable sum over all target tokens, z-loss included."""
    loss_per_sequence_B: torch.Tensor
    """Cross-entropy summed over each sequence, detached."""
    token_count_per_sequence_B: torch.Tensor
    """Target tokens of each sequence."""


class Embedding(nn.Module):
    """Token embedding; learned positions are added in the GPT-2 family."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.token = nn.Embedding(shape.padded_vocab_size, shape.hidden_size)
        self.position = nn.Embedding(shape.max_sequence_length, shape.hidden_size) if shape.family == "gpt2" else None

    def forward(self, input_ids_BT: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Ids to vectors; `positions` is [T] or [B, T]."""
        hidden_BTD: torch.Tensor = self.token(input_ids_BT)
        return hidden_BTD if self.position is None else hidden_BTD + self.position(positions)


class Head(nn.Module):
    """Output projection and loss. Without a weight of its own it is given the embedding's."""

    vocabulary_shard: VocabularyShard | None = None

    def __init__(self, shape: ModelShape, loss_chunk_tokens: int, z_loss_coefficient: float) -> None:
        super().__init__()
        self.vocab_size = shape.vocab_size
        self.loss_chunk_tokens, self.z_loss_coefficient = loss_chunk_tokens, z_loss_coefficient
        self.weight = (
            None if shape.tie_word_embeddings else nn.Parameter(torch.empty(shape.padded_vocab_size, shape.hidden_size))
        )

    def forward(
        self, hidden_BTD: torch.Tensor, tied_weight_VD: torch.Tensor | None, labels_BT: torch.Tensor | None
    ) -> torch.Tensor | LossOutput:
        """Logits over the real vocabulary, or losses."""
        weight_VD = self.weight if tied_weight_VD is None else tied_weight_VD
        assert weight_VD is not None
        if labels_BT is None:
            return F.linear(hidden_BTD, weight_VD)[..., : self.vocab_size]
        loss_sum, losses_T = linear_cross_entropy(
            hidden_BTD.flatten(0, 1),
            weight_VD,
            labels_BT.flatten(),
            vocab_size=self.vocab_size,
            chunk_tokens=self.loss_chunk_tokens,
            z_loss_coefficient=self.z_loss_coefficient,
            shard=self.vocabulary_shard,
        )
        return LossOutput(loss_sum, losses_T.view_as(labels_BT).sum(1), (labels_BT != IGNORE_INDEX).sum(1))


class GPT(nn.Module):
    """A decoder of either family."""

    def __init__(
        self,
        shape: ModelShape,
        *,
        activation_recompute: Recompute = "none",
        loss_chunk_tokens: int = 1024,
        z_loss_coefficient: float = 0.0,
    ) -> None:
        """Build the modules; weights are set by `initialize_weights` or loaded.

        Args:
            shape: every size.
            activation_recompute: what the backward pass computes again.
            loss_chunk_tokens: tokens whose logits exist at one time in the loss.
            z_loss_coefficient: weight of log(Z)^2 in the loss.
        """
        super().__init__()
        self.shape = shape
        self.activation_recompute = activation_recompute
        self.embedding = Embedding(shape)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.num_layers))
        self.final_norm = build_norm(shape)
        self.head = Head(shape, loss_chunk_tokens, z_loss_coefficient)

    def forward(
        self,
        input_ids_BT: torch.Tensor,
        labels_BT: torch.Tensor | None = None,
        position_ids_BT: torch.Tensor | None = None,
        document_ids_BT: torch.Tensor | None = None,
        caches: Sequence[KeyValueCache] | None = None,
        first_position: int = 0,
        last_only: bool = False,
    ) -> torch.Tensor | LossOutput:
        """Logits [B, T, V] over the real vocabulary, or with labels the losses.

        Args:
            input_ids_BT: token ids, int64.
            labels_BT: target of each input position (already shifted), IGNORE_INDEX where there is none.
            position_ids_BT: positions; by default those of one text from `first_position` on.
            document_ids_BT: where given, tokens attend only to tokens with the same id.
            caches: one per block, for generation; `input_ids_BT` then holds only new tokens.
            first_position: position of the first new token.
            last_only: logits of the last position only, [B, 1, V].
        """
        positions = position_ids_BT
        if positions is None:
            positions = torch.arange(first_position, first_position + input_ids_BT.shape[1], device=input_ids_BT.device)
        hidden_BTD = self.embedding(input_ids_BT, positions)
        context = build_context(self.shape, positions, document_ids_BT, hidden_BTD)
        for i, block in enumerate(self.blocks):
            cache = None if caches is None else caches[i]
            hidden_BTD = run_with_recompute(self.activation_recompute, block, hidden_BTD, context, cache)
        if last_only:
            hidden_BTD = hidden_BTD[:, -1:]
        tied_weight_VD = self.embedding.token.weight if self.shape.tie_word_embeddings else None
        output: torch.Tensor | LossOutput = self.head(self.final_norm(hidden_BTD), tied_weight_VD, labels_BT)
        return output


def build_context(
    shape: ModelShape, positions: torch.Tensor, document_ids_BT: torch.Tensor | None, hidden_BTD: torch.Tensor
) -> AttentionContext:
    """What all blocks of one forward pass share.

    Args:
        shape: of the model.
        positions: [T] or [B, T].
        document_ids_BT: tokens attend only to tokens with the same id; None = to all before them.
        hidden_BTD: gives device and dtype.
    """
    rotation = None
    if shape.family == "llama":
        device = hidden_BTD.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden_BTD.dtype
        rotation = compute_rotation(positions, shape.head_dim, shape.rope_theta, dtype)
    mask_B1TT = None if document_ids_BT is None else build_document_mask(document_ids_BT)
    return AttentionContext(rotation, mask_B1TT)
