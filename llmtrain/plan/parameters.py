"""Parameters by component, and every weight that one rank holds. Exact counts, no estimates.

In: `ModelShape`, tensor- and pipeline-parallel sizes. Out: counts of elements. Units of the network are numbered as in
`plan.partition`: 0 the embedding, 1 ... num_layers the blocks, the last one the output.
"""

import functools
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from llmtrain.plan.model_shape import ModelShape

Component = Literal["token embedding", "positions", "attention", "feed-forward", "norms", "output projection"]
COMPONENTS: tuple[Component, ...] = (
    "token embedding",
    "positions",
    "attention",
    "feed-forward",
    "norms",
    "output projection",
)


@dataclass(frozen=True)
class Weight:
    """One parameter tensor on one rank."""

    component: Component
    elements: int
    """Elements held, rows that pad the vocabulary included."""
    is_vector: bool = False
    """Norms and biases: AdamW's second group, which does not decay."""


def count_parameters(shape: ModelShape) -> dict[Component, int]:
    """Trained parameters of the whole model by component; a tied output projection counts as 0.

    Args:
        shape: of the model.

    Returns:
        Elements, without rows that pad the vocabulary; their sum is `shape.num_parameters`.
    """
    counts: dict[Component, int] = dict.fromkeys(COMPONENTS, 0)
    for unit in range(shape.num_layers + 2):
        for weight in list_unit_weights(shape, unit, has_head=not shape.tie_word_embeddings):
            counts[weight.component] += weight.elements
    padding = count_padding(shape)
    for component in ("token embedding", "output projection"):
        counts[component] -= padding if counts[component] else 0
    return counts


def count_padding(shape: ModelShape) -> int:
    """Elements that pad one table of the vocabulary."""
    return (shape.padded_vocab_size - shape.vocab_size) * shape.hidden_size


def list_unit_layers(
    shape: ModelShape, unit: int, tensor: int = 1, has_head: bool = True
) -> Iterator[tuple[Weight, ...]]:
    """The weights of each layer of one unit on one tensor-parallel rank, as `parallel.local_model` builds them.

    Args:
        shape: of the whole model.
        unit: 0 the embedding, 1 ... num_layers a block, num_layers + 1 the output.
        tensor: tensor-parallel size.
        has_head: whether the output holds a projection of its own (untied, or the copy of a tied one).

    Yields:
        Layers in the order of their use; those of a block: norm, query_key_value, output, norm, up, down.
    """
    hidden, rows = shape.hidden_size, shape.padded_vocab_size // tensor
    if unit == 0:
        yield (Weight("token embedding", rows * hidden),)
        if shape.family == "gpt2":
            yield (Weight("positions", shape.max_sequence_length * hidden),)
    elif unit <= shape.num_layers:
        yield from _list_block_layers(shape, tensor)
    else:
        yield _list_norm(shape)
        if has_head:
            yield (Weight("output projection", rows * hidden),)


def list_unit_weights(shape: ModelShape, unit: int, tensor: int = 1, has_head: bool = True) -> Iterator[Weight]:
    """The weights of one unit on one tensor-parallel rank; arguments as of `list_unit_layers`."""
    return itertools.chain.from_iterable(list_unit_layers(shape, unit, tensor, has_head))


def _list_block_layers(shape: ModelShape, tensor: int) -> Iterator[tuple[Weight, ...]]:
    hidden, inner = shape.hidden_size, shape.intermediate_size // tensor
    query = shape.num_attention_heads // tensor * shape.head_dim
    key_value = 2 * max(1, shape.num_key_value_heads // tensor) * shape.head_dim
    has_bias = shape.family == "gpt2"

    def layer(component: Component, *matrices: int, bias: int) -> tuple[Weight, ...]:
        vectors = (Weight(component, bias, is_vector=True),) if has_bias else ()
        return (*(Weight(component, elements) for elements in matrices), *vectors)

    shared = tensor > shape.num_key_value_heads
    fused = (query * hidden, key_value * hidden) if shared else ((query + key_value) * hidden,)
    yield _list_norm(shape)
    yield layer("attention", *fused, bias=query + key_value)
    yield layer("attention", query * hidden, bias=hidden)
    yield _list_norm(shape)
    yield layer("feed-forward", (1 if has_bias else 2) * inner * hidden, bias=inner)
    yield layer("feed-forward", inner * hidden, bias=hidden)


def _list_norm(shape: ModelShape) -> tuple[Weight, ...]:
    return (Weight("norms", shape.hidden_size, is_vector=True),) * (2 if shape.family == "gpt2" else 1)


def find_stages(pipeline_rank: int, pipeline: int, borders: Sequence[int]) -> tuple[int, ...]:
    """Stages of a pipeline rank: its own, and with DualPipeV the one as far from the other end."""
    stages = len(borders) - 1
    return (pipeline_rank,) if stages == pipeline else (pipeline_rank, stages - 1 - pipeline_rank)


@functools.lru_cache(maxsize=4096)
def list_rank_weights(
    shape: ModelShape, tensor: int, pipeline: int, borders: tuple[int, ...], pipeline_rank: int
) -> tuple[Weight, ...]:
    """Every weight that a rank holds.

    Args:
        shape: of the whole model.
        tensor: tensor-parallel size.
        pipeline: pipeline-parallel size.
        borders: units at which stages begin and end, `Plan.stage_borders`.
        pipeline_rank: which of the pipeline's ranks.
    """
    stages = find_stages(pipeline_rank, pipeline, borders)
    holds_both_ends = pipeline == 1 or len(stages) > 1
    has_head = not shape.tie_word_embeddings or not holds_both_ends
    units = [unit for stage in stages for unit in range(borders[stage], borders[stage + 1])]
    return tuple(weight for unit in units for weight in list_unit_weights(shape, unit, tensor, has_head))


@functools.lru_cache(maxsize=1024)
def count_rank_weights(
    shape: ModelShape, tensor: int, pipeline: int, borders: tuple[int, ...]
) -> tuple[tuple[tuple[Weight, int], ...], ...]:
    """Of each pipeline rank, the different weights and how many of each it holds; arguments as `list_rank_weights`."""
    ranks = (list_rank_weights(shape, tensor, pipeline, borders, rank) for rank in range(pipeline))
    return tuple(tuple(Counter(weights).items()) for weights in ranks)
