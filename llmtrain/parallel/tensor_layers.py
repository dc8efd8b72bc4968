"""The layers of a tensor-parallel rank. Each takes the place of a single-device layer and keeps its parameters' names.

A block then computes, on each rank with its own heads and inner features:

    hidden -> enter -> query_key_value -> attention -> output -> leave -> + hidden
    hidden -> enter -> gate_up         -> silu, *   -> down   -> leave -> + hidden

With sequence parallelism, hidden states between `leave` and `enter` hold a part of the sequence each: `enter` gathers,
`leave` scatters, and norms and residual additions are shared too. Without it they are the same on all ranks.

Shapes: B batch, T tokens, S tokens of a rank's part of the sequence (S = T without sequence parallelism), D hidden
size, V vocabulary, W vocabulary rows of a rank.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F

from llmtrain.losses.linear_cross_entropy import VocabularyShard
from llmtrain.model.gpt import Embedding, Head, LossOutput
from llmtrain.model.norms import RMSNorm
from llmtrain.parallel.collectives import copy_in, gather_in, scatter_out, sum_out


class TensorGroup:
    """One tensor-parallel group as its layers see it."""

    def __init__(self, group: dist.ProcessGroup, sharers: dist.ProcessGroup | None, sequence_parallel: bool) -> None:
        """Describe the group.

        Args:
            group: ranks that share each weight matrix.
            sharers: those of them that hold the same key/value head; None where every rank has its own.
            sequence_parallel: whether hidden states between the layers are shared along the sequence.
        """
        self.group, self.sharers, self.sequence_parallel = group, sharers, sequence_parallel
        self.rank, self.size = dist.get_rank(group), dist.get_world_size(group)

    @contextmanager
    def whole_sequences(self) -> Iterator[None]:
        """Switch sequence parallelism off inside: generated text grows by one token at a time."""
        before, self.sequence_parallel = self.sequence_parallel, False
        try:
            yield
        finally:
            self.sequence_parallel = before

    def enter(self, hidden_BSD: torch.Tensor) -> torch.Tensor:
        """Hidden states between layers -> the whole sequence, the same on all ranks."""
        return gather_in(hidden_BSD, self.group) if self.sequence_parallel else copy_in(hidden_BSD, self.group)

    def leave(self, partial_BTD: torch.Tensor) -> torch.Tensor:
        """Each rank's addend of the whole sequence -> hidden states between layers."""
        return scatter_out(partial_BTD, self.group) if self.sequence_parallel else sum_out(partial_BTD, self.group)

    def own_part(self, whole: torch.Tensor, dim: int) -> torch.Tensor:
        """This rank's part of something that is the same on all ranks, along the sequence."""
        return whole.chunk(self.size, dim)[self.rank] if self.sequence_parallel else whole

    def replicated(self, parameter: torch.Tensor | None) -> torch.Tensor | None:
        """A parameter that is the same on all ranks; where each sees other tokens its gradient is summed."""
        if parameter is None or not self.sequence_parallel:
            return parameter
        return copy_in(parameter, self.group)


class ColumnParallelLinear(nn.Module):
    """A rank's rows of the weight: whole input, its own part of the output."""

    def __init__(self, linear: nn.Linear, tensor: TensorGroup) -> None:
        super().__init__()
        self.weight, self.bias, self._tensor = linear.weight, linear.bias, tensor

    def forward(self, hidden_BSD: torch.Tensor) -> torch.Tensor:
        """[B, S, D] -> [B, T, own features]."""
        return F.linear(self._tensor.enter(hidden_BSD), self.weight, self.bias)


class SharedKeyValueLinear(nn.Module):
    """As above for queries; the key and value rows belong to one head, which neighbouring ranks hold too."""

    def __init__(self, linear: nn.Linear, query_rows: int, tensor: TensorGroup) -> None:
        super().__init__()
        rows = linear.weight.shape[0]
        self.weight = nn.Parameter(linear.weight.new_empty(query_rows, linear.in_features))
        self.key_value_weight = nn.Parameter(linear.weight.new_empty(rows - query_rows, linear.in_features))
        self._tensor = tensor

    def forward(self, hidden_BSD: torch.Tensor) -> torch.Tensor:
        """[B, S, D] -> [B, T, own queries; the key; the value]."""
        assert self._tensor.sharers is not None
        whole_BTD = self._tensor.enter(hidden_BSD)
        key_value_weight = copy_in(self.key_value_weight, self._tensor.sharers)
        return torch.cat((F.linear(whole_BTD, self.weight), F.linear(whole_BTD, key_value_weight)), dim=-1)


class RowParallelLinear(nn.Module):
    """A rank's columns of the weight: its own part of the input, an addend of the output; the bias is added once."""

    def __init__(self, linear: nn.Linear, tensor: TensorGroup) -> None:
        super().__init__()
        self.weight, self.bias, self._tensor = linear.weight, linear.bias, tensor

    def forward(self, features_BTF: torch.Tensor) -> torch.Tensor:
        """[B, T, own features] -> [B, S, D]."""
        hidden_BSD = self._tensor.leave(F.linear(features_BTF, self.weight))
        bias = self._tensor.replicated(self.bias)
        return hidden_BSD if bias is None else hidden_BSD + bias


class ParallelNorm(nn.Module):
    """LayerNorm or RMSNorm of hidden states between layers."""

    def __init__(self, norm: nn.Module, tensor: TensorGroup) -> None:
        super().__init__()
        self._tensor = tensor
        self.weight: nn.Parameter = norm.get_parameter("weight")
        self.bias: nn.Parameter | None
        self.register_parameter("bias", getattr(norm, "bias", None))
        assert isinstance(norm, nn.LayerNorm | RMSNorm)
        self._epsilon = norm.eps if isinstance(norm, nn.LayerNorm) else norm.epsilon

    def forward(self, hidden_BSD: torch.Tensor) -> torch.Tensor:
        """Normalise the last dimension."""
        weight, bias = self._tensor.replicated(self.weight), self._tensor.replicated(self.bias)
        if bias is None:
            return F.rms_norm(hidden_BSD, self.weight.shape, weight, self._epsilon)
        return F.layer_norm(hidden_BSD, self.weight.shape, weight, bias, self._epsilon)


class ParallelEmbedding(Embedding):
    """A rank's rows of the token table; ids that other ranks hold give 0 here."""

    def __init__(self, embedding: Embedding, tensor: TensorGroup) -> None:
        nn.Module.__init__(self)
        self.token, self.position, self._tensor = embedding.token, embedding.position, tensor
        self._first_row = tensor.rank * embedding.token.num_embeddings

    def forward(self, input_ids_BT: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Ids to hidden states between layers, [B, S, D]; `positions` is [T] or [B, T]."""
        rows_BT = input_ids_BT - self._first_row
        is_elsewhere_BT = (rows_BT < 0) | (rows_BT >= self.token.num_embeddings)
        addend_BTD = self.token(rows_BT.masked_fill(is_elsewhere_BT, 0))
        hidden_BSD = self._tensor.leave(addend_BTD.masked_fill(is_elsewhere_BT.unsqueeze(-1), 0.0))
        if self.position is None:
            return hidden_BSD
        table = self._tensor.replicated(self.position.weight)
        assert table is not None
        return hidden_BSD + F.embedding(self._tensor.own_part(positions, -1), table)


class ParallelHead(Head):
    """A rank's rows of the output projection, and the loss over the whole vocabulary."""

    def __init__(self, head: Head, vocab_size: int, local_rows: int, tensor: TensorGroup) -> None:
        nn.Module.__init__(self)
        self.vocab_size = vocab_size
        self.loss_chunk_tokens, self.z_loss_coefficient = head.loss_chunk_tokens, head.z_loss_coefficient
        self.register_parameter("weight", head.weight)
        self._tensor = tensor
        self.vocabulary_shard = VocabularyShard(
            first_row=tensor.rank * local_rows,
            sum_over_shards=lambda values: dist.all_reduce(values, group=tensor.group),
            max_over_shards=lambda values: dist.all_reduce(values, dist.ReduceOp.MAX, group=tensor.group),
        )

    def forward(
        self, hidden_BSD: torch.Tensor, tied_weight_WD: torch.Tensor | None, labels_BT: torch.Tensor | None
    ) -> torch.Tensor | LossOutput:
        """Logits over the real vocabulary, the same on all ranks; or losses, the same on all ranks."""
        hidden_BTD = self._tensor.enter(hidden_BSD)
        if labels_BT is not None:
            return super().forward(hidden_BTD, tied_weight_WD, labels_BT)
        weight_WD = self.weight if tied_weight_WD is None else tied_weight_WD
        assert weight_WD is not None
        logits_BTW = F.linear(hidden_BTD, weight_WD)
        parts = [torch.empty_like(logits_BTW) for _ in range(self._tensor.size)]
        dist.all_gather(parts, logits_BTW.contiguous(), group=self._tensor.group)
        return torch.cat(parts, dim=-1)[..., : self.vocab_size]
