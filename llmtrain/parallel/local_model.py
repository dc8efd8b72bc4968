"""The part of the model that one rank holds, with its first weights.

The model is single-device code: here it is built with this rank's sizes (its heads, its inner features, its rows of the
vocabulary), and the layers at which ranks must talk take the place of the plain ones.
"""

import dataclasses
from collections.abc import Iterable

import torch
from torch import nn

from llmtrain.config.root import Config
from llmtrain.model.attention import Attention
from llmtrain.model.block import Block
from llmtrain.model.gpt import GPT, Embedding, Head
from llmtrain.model.initialize import make_initial_weight
from llmtrain.model.norms import build_norm
from llmtrain.parallel.layout import Layout
from llmtrain.parallel.placement import (
    Placement,
    place,
    place_queries,
    place_shared_keys_and_values,
    set_placement,
    slice_weight,
)
from llmtrain.parallel.tensor_layers import (
    ColumnParallelLinear,
    ParallelEmbedding,
    ParallelHead,
    ParallelNorm,
    RowParallelLinear,
    SharedKeyValueLinear,
    TensorGroup,
)
from llmtrain.plan.model_shape import ModelShape

_SHARED_KEY_VALUE = ".key_value_weight"


class LocalModelBuilder:
    """Builds units of the model for one rank: the embedding, blocks, the final norm and the head."""

    def __init__(self, config: Config, shape: ModelShape, layout: Layout) -> None:
        self._config, self._shape, self._layout = config, shape, layout
        self._local_shape = shape_of_rank(shape, layout.tensor_parallel_size)
        self._sizes = list_parameter_sizes(shape)
        self.tensor: TensorGroup | None = None
        if layout.tensor_parallel_size > 1:
            has_sharers = layout.tensor_shard.key_value_sharers(shape) > 1
            sharers = layout.key_value_group if has_sharers else None
            self.tensor = TensorGroup(layout.tensor_parallel_group, sharers, config.parallel.sequence_parallel)

    def build_gpt(self) -> GPT:
        """The whole network with this rank's part of each weight."""
        training = self._config.training
        model = GPT(
            self._local_shape,
            activation_recompute=training.activation_recompute,
            loss_chunk_tokens=training.loss_chunk_tokens,
            z_loss_coefficient=training.z_loss_coefficient,
        )
        model.embedding = self._connect_embedding(model.embedding)
        for block in model.blocks:
            self._connect_block(block)
        model.final_norm, model.head = self._connect_norm(model.final_norm), self._connect_head(model.head)
        self.set_first_weights(model.named_parameters())
        return model

    def build_embedding(self) -> Embedding:
        """The embedding; like all units it waits for its first weights."""
        return self._connect_embedding(Embedding(self._local_shape))

    def build_block(self) -> Block:
        """A block."""
        block = Block(self._local_shape)
        self._connect_block(block)
        return block

    def build_final_norm(self) -> nn.Module:
        """The norm before the output projection."""
        return self._connect_norm(build_norm(self._local_shape))

    def build_head(self, has_weight: bool) -> Head:
        """Output projection and loss, with a weight of its own or not."""
        training = self._config.training
        shape = dataclasses.replace(self._local_shape, tie_word_embeddings=not has_weight)
        return self._connect_head(Head(shape, training.loss_chunk_tokens, training.z_loss_coefficient))

    def set_first_weights(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        """Give parameters their placement and their first values.

        Args:
            parameters: by canonical name.
        """
        for name, parameter in parameters:
            placement = self._place(name)
            whole = make_initial_weight(placement.name, self._sizes[placement.name], self._shape, self._config.run.seed)
            with torch.no_grad():
                slice_weight(whole, placement, parameter)
            set_placement(parameter, placement)

    def _place(self, name: str) -> Placement:
        shard = self._layout.tensor_shard
        if name.endswith(_SHARED_KEY_VALUE):
            name = name.removesuffix(_SHARED_KEY_VALUE) + ".weight"
            return place_shared_keys_and_values(name, tuple(self._sizes[name]), self._shape, shard)
        size = tuple(self._sizes[name])
        if "query_key_value" in name and shard.key_value_sharers(self._shape) > 1:
            return place_queries(name, size, self._shape, shard)
        return place(name, size, self._shape, shard)

    def _connect_block(self, block: nn.Module) -> None:
        if self.tensor is None:
            return
        assert isinstance(block, Block)
        block.attention_norm = ParallelNorm(block.attention_norm, self.tensor)
        block.feed_forward_norm = ParallelNorm(block.feed_forward_norm, self.tensor)
        block.attention.query_key_value = self._connect_query_key_value(block.attention, self.tensor)
        assert isinstance(block.attention.output, nn.Linear)
        block.attention.output = RowParallelLinear(block.attention.output, self.tensor)
        for name, layer in list(block.feed_forward.named_children()):
            assert isinstance(layer, nn.Linear)
            kind = RowParallelLinear if name == "down" else ColumnParallelLinear
            block.feed_forward.add_module(name, kind(layer, self.tensor))

    def _connect_query_key_value(self, attention: Attention, tensor: TensorGroup) -> nn.Module:
        assert isinstance(attention.query_key_value, nn.Linear)
        if tensor.sharers is None:
            return ColumnParallelLinear(attention.query_key_value, tensor)
        return SharedKeyValueLinear(attention.query_key_value, attention.num_heads * attention.head_dim, tensor)

    def _connect_norm(self, norm: nn.Module) -> nn.Module:
        return norm if self.tensor is None else ParallelNorm(norm, self.tensor)

    def _connect_embedding(self, embedding: Embedding) -> Embedding:
        return embedding if self.tensor is None else ParallelEmbedding(embedding, self.tensor)

    def _connect_head(self, head: Head) -> Head:
        if self.tensor is None:
            return head
        return ParallelHead(head, self._shape.vocab_size, self._local_shape.padded_vocab_size, self.tensor)


def shape_of_rank(shape: ModelShape, tensor_parallel_size: int) -> ModelShape:
    """The sizes of the layers on one tensor-parallel rank."""
    return dataclasses.replace(
        shape,
        num_attention_heads=shape.num_attention_heads // tensor_parallel_size,
        num_key_value_heads=max(1, shape.num_key_value_heads // tensor_parallel_size),
        intermediate_size=shape.intermediate_size // tensor_parallel_size,
        padded_vocab_size=shape.padded_vocab_size // tensor_parallel_size,
    )


def list_parameter_sizes(shape: ModelShape) -> dict[str, torch.Size]:
    """Size of every parameter of the model on one device, by canonical name."""
    with torch.device("meta"):
        return {name: parameter.shape for name, parameter in GPT(shape).named_parameters()}
