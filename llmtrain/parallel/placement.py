"""Which part of each weight a tensor-parallel rank holds: one table, and what follows from it.

In: a weight's canonical name and the shape of the model. Out: a `Placement`: the boxes of the logical tensor (as one
process would hold it, without rows that pad the vocabulary) that lie in this rank's parameter.

    kind         weights                                    a rank holds
    rows         embedding, head, query_key_value, up,      rows of each fused section: its heads, its share of the
                 gate_up (and their biases)                 inner features, its share of the vocabulary
    columns      output, down                               columns: the inputs that its rows of the layer before make
    everything else (norms, biases of `output` and `down`, positions) is the same on every rank

Source:
    Shoeybi et al. 2019, "Megatron-LM", section 3.
"""

from dataclasses import dataclass
from typing import Literal

import torch

from llmtrain.parallel.geometry import Box, whole_box
from llmtrain.plan.model_shape import ModelShape

SPLIT_BY_SUFFIX: dict[str, Literal["rows", "columns"]] = {
    "embedding.token.weight": "rows",
    "head.weight": "rows",
    "attention.query_key_value.weight": "rows",
    "attention.query_key_value.bias": "rows",
    "attention.output.weight": "columns",
    "feed_forward.up.weight": "rows",
    "feed_forward.up.bias": "rows",
    "feed_forward.gate_up.weight": "rows",
    "feed_forward.down.weight": "columns",
}
_VOCABULARY = ("embedding.token.weight", "head.weight")


@dataclass(frozen=True)
class Placement:
    """Where a rank's parameter lies in the logical tensor."""

    name: str
    """Canonical name of the logical tensor."""
    shape: tuple[int, ...]
    """Of the logical tensor."""
    parts: tuple[tuple[Box, tuple[int, ...]], ...]
    """Boxes of the parameter, each with its offset in the logical tensor; what no box covers is padding."""
    is_writer: bool = True
    """Whether this rank speaks for the parameter, where several hold the same."""


def set_placement(parameter: torch.nn.Parameter, placement: Placement) -> None:
    """Keep a placement on its parameter, with the mark that DeepSpeed's gradient norm reads."""
    parameter.placement = placement  # type: ignore[attr-defined]
    # DeepSpeed counts the marked parameters of every rank, and all of tensor-parallel rank 0.
    parameter.tensor_model_parallel = placement.is_writer  # type: ignore[attr-defined]


def find_placement(parameter: torch.nn.Parameter) -> Placement | None:
    """The placement that was set, if one was."""
    return getattr(parameter, "placement", None)


def get_placement(parameter: torch.nn.Parameter) -> Placement:
    """The placement of a parameter of a parallel model."""
    placement = find_placement(parameter)
    assert placement is not None
    return placement


@dataclass(frozen=True)
class TensorShard:
    """One rank of a tensor-parallel group: which of how many."""

    rank: int = 0
    size: int = 1

    def key_value_sharers(self, shape: ModelShape) -> int:
        """How many neighbouring ranks hold the same key/value head; 1 where every rank has heads of its own."""
        return max(1, self.size // shape.num_key_value_heads)


def section_rows(name: str, shape: ModelShape) -> list[int]:
    """Rows of the fused sections of a weight inside a block that is split by rows."""
    query, key_value = shape.num_attention_heads * shape.head_dim, shape.num_key_value_heads * shape.head_dim
    if "query_key_value" in name:
        return [query, key_value, key_value]
    if "gate_up" in name:
        return [shape.intermediate_size] * 2
    return [shape.intermediate_size]


def logical_size(name: str, size: tuple[int, ...], shape: ModelShape) -> tuple[int, ...]:
    """Size of the logical tensor, given the size of the parameter in a model on one device."""
    return (shape.vocab_size, *size[1:]) if name in _VOCABULARY else size


def place(name: str, size: tuple[int, ...], shape: ModelShape, shard: TensorShard) -> Placement:
    """Place a rank's parameter in its logical tensor.

    Args:
        name: canonical name.
        size: of the parameter in a model on one device.
        shape: of the whole model.
        shard: the rank.
    """
    logical, kind = logical_size(name, size, shape), _find_split(name)
    if name in _VOCABULARY:
        rows = shape.padded_vocab_size // shard.size
        first = shard.rank * rows
        held = min(rows, max(0, shape.vocab_size - first))
        box = Box((0,) * len(logical), (held, *logical[1:]))
        return Placement(name, logical, ((box, (first, *([0] * (len(logical) - 1)))),) if held else ())
    if kind is None or shard.size == 1:
        return Placement(name, logical, ((whole_box(logical), (0,) * len(logical)),), is_writer=shard.rank == 0)
    if kind == "columns":
        columns = logical[1] // shard.size
        return Placement(name, logical, ((whole_box((logical[0], columns)), (0, columns * shard.rank)),))
    return _place_sections(name, logical, shape, shard, list(range(len(section_rows(name, shape)))))


def place_queries(name: str, size: tuple[int, ...], shape: ModelShape, shard: TensorShard) -> Placement:
    """Place the query rows of a rank that shares its key/value head with neighbours."""
    return _place_sections(name, size, shape, shard, [0])


def place_shared_keys_and_values(name: str, size: tuple[int, ...], shape: ModelShape, shard: TensorShard) -> Placement:
    """Place the key and value rows of a rank that shares them with neighbours."""
    return _place_sections(name, size, shape, shard, [1, 2])


def slice_weight(whole: torch.Tensor, placement: Placement, parameter: torch.Tensor) -> None:
    """Copy a rank's part of a logical tensor into its parameter; padding becomes 0.

    Args:
        whole: the logical tensor, or one with padding rows behind it.
        placement: of the parameter.
        parameter: written in place.
    """
    parameter.zero_()
    for box, offset in placement.parts:
        parameter[box.slices].copy_(whole[Box(offset, box.shape).slices])


def _find_split(name: str) -> Literal["rows", "columns"] | None:
    return next((kind for suffix, kind in SPLIT_BY_SUFFIX.items() if name.endswith(suffix)), None)


def _place_sections(
    name: str, logical: tuple[int, ...], shape: ModelShape, shard: TensorShard, sections: list[int]
) -> Placement:
    rows, rest = section_rows(name, shape), logical[1:]
    sharers = shard.key_value_sharers(shape) if "query_key_value" in name else 1
    parts, local_row = [], 0
    for section in sections:
        is_shared = sharers > 1 and section > 0
        held = rows[section] * (sharers if is_shared else 1) // shard.size
        first = sum(rows[:section]) + held * (shard.rank // sharers if is_shared else shard.rank)
        zeros = (0,) * len(rest)
        parts.append((Box((local_row, *zeros), (held, *rest)), (first, *zeros)))
        local_row += held
    is_writer = 0 in sections or sharers == 1 or shard.rank % sharers == 0
    return Placement(name, logical, tuple(parts), is_writer)
