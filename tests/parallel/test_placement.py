"""Which rank holds which part of a weight: together they hold every element, and each is written once."""

import dataclasses

import pytest
import torch

from llmtrain.model.gpt import GPT
from llmtrain.parallel.local_model import list_parameter_sizes, shape_of_rank
from llmtrain.parallel.placement import (
    TensorShard,
    logical_size,
    place,
    place_queries,
    place_shared_keys_and_values,
    slice_weight,
)
from llmtrain.plan.model_shape import ModelShape
from tests.helpers.shapes import GPT2, LLAMA, SHAPES

CASES = [(name, size) for name in SHAPES for size in (1, 2, 4)]


def local_sizes(shape: ModelShape, size: int) -> dict[str, torch.Size]:
    return list_parameter_sizes(shape_of_rank(shape, size))


@pytest.mark.parametrize(("name", "size"), CASES)
def test_ranks_hold_every_element_and_each_is_written_once(name: str, size: int) -> None:
    shape = SHAPES[name]
    for parameter, whole_size in list_parameter_sizes(shape).items():
        if "query_key_value" in parameter and size > shape.num_key_value_heads:
            continue  # two parameters there, see below
        logical = logical_size(parameter, tuple(whole_size), shape)
        writers, local_size = torch.zeros(logical), local_sizes(shape, size)[parameter]
        for rank in range(size):
            placement = place(parameter, tuple(whole_size), shape, TensorShard(rank, size))
            covered = torch.zeros(local_size)
            for box, offset in placement.parts:
                covered[box.slices] += 1
                where = tuple(slice(a, a + n) for a, n in zip(offset, box.shape, strict=True))
                writers[where] += placement.is_writer
            padding = local_size[0] - sum(box.shape[0] for box, _ in placement.parts)
            is_table = parameter in ("embedding.token.weight", "head.weight")
            assert covered.max() <= 1, parameter
            assert bool((covered == 1).all()) or (is_table and padding > 0), parameter
        assert torch.equal(writers, torch.ones(logical)), parameter


def test_a_shared_key_value_head_is_held_by_neighbours_and_written_by_one() -> None:
    name, size = "blocks.0.attention.query_key_value.weight", 4
    whole = tuple(list_parameter_sizes(LLAMA)[name])
    writers, holders = torch.zeros(whole), torch.zeros(whole)
    for rank in range(size):
        shard = TensorShard(rank, size)
        assert shard.key_value_sharers(LLAMA) == 2
        for placement in (
            place_queries(name, whole, LLAMA, shard),
            place_shared_keys_and_values(name, whole, LLAMA, shard),
        ):
            for box, offset in placement.parts:
                rows = slice(offset[0], offset[0] + box.shape[0])
                holders[rows] += 1
                writers[rows] += placement.is_writer
    queries = LLAMA.num_attention_heads * LLAMA.head_dim
    assert torch.equal(writers, torch.ones(whole))
    assert bool((holders[:queries] == 1).all())
    assert bool((holders[queries:] == 2).all())


def test_fused_projections_are_split_by_heads_and_by_features() -> None:
    shape = dataclasses.replace(LLAMA, num_key_value_heads=4)
    name = "blocks.0.attention.query_key_value.weight"
    whole = torch.arange(3 * 32).float().unsqueeze(1).expand(96, 32)
    part = torch.empty(48, 32)
    slice_weight(whole, place(name, (96, 32), shape, TensorShard(1, 2)), part)
    assert part[:, 0].tolist() == [*range(16, 32), *range(48, 64), *range(80, 96)]


def test_rows_that_pad_the_vocabulary_are_zero_and_belong_to_no_logical_tensor() -> None:
    shape = dataclasses.replace(GPT2, vocab_size=70, padded_vocab_size=128)
    name = "embedding.token.weight"
    rows = []
    for rank in range(4):
        placement = place(name, (128, 32), shape, TensorShard(rank, 4))
        part = torch.full((32, 32), 7.0)
        slice_weight(torch.ones(70, 32), placement, part)
        rows.append(int(part.sum()) // 32)
        assert placement.shape == (70, 32)
    assert rows == [32, 32, 6, 0]


@pytest.mark.parametrize(("name", "size"), CASES)
def test_a_rank_holds_about_its_share_of_the_parameters(name: str, size: int) -> None:
    shape = SHAPES[name]
    whole = sum(p.numel() for p in GPT(shape).parameters() if p.dim() > 1)
    held = sum(s.numel() for key, s in local_sizes(shape, size).items() if len(s) > 1 and "position" not in key)
    assert held <= whole / size + 2 * shape.num_layers * shape.head_dim * shape.hidden_size
