"""Pipeline stages: consecutive units, the costliest stage as cheap as can be."""

import dataclasses
import itertools
from collections.abc import Sequence

import pytest

from llmtrain.model.gpt import GPT
from llmtrain.plan.partition import compute_unit_costs, count_unit_parameters, describe_stage, partition_units
from tests.helpers.shapes import LLAMA, SHAPES


def largest_cost(costs: Sequence[float], borders: Sequence[int]) -> float:
    return max(sum(costs[a:b]) for a, b in itertools.pairwise(borders))


@pytest.mark.parametrize("costs", [[1, 5, 5, 5, 5, 9], [0, 1, 1, 1, 1, 1, 1, 8], [3, 1, 4, 1, 5, 9, 2, 6]])
@pytest.mark.parametrize("stages", [1, 2, 3, 4])
def test_no_other_cut_has_a_cheaper_costliest_stage(costs: list[float], stages: int) -> None:
    borders = partition_units(costs, stages)
    cuts = itertools.combinations(range(1, len(costs)), stages - 1)
    assert (borders[0], borders[-1], len(borders)) == (0, len(costs), stages + 1)
    assert all(a < b for a, b in itertools.pairwise(borders))
    assert largest_cost(costs, borders) == min(largest_cost(costs, [0, *cut, len(costs)]) for cut in cuts)


def test_among_equal_cuts_the_even_one_is_taken() -> None:
    assert partition_units([1, 1, 1, 1, 1, 1, 6], 3) == [0, 3, 6, 7]


def test_a_large_vocabulary_takes_blocks_from_the_last_stage() -> None:
    shape = dataclasses.replace(LLAMA, num_layers=8)
    wide = dataclasses.replace(shape, vocab_size=2000, padded_vocab_size=2000)
    narrow_borders = partition_units(compute_unit_costs(shape, 64), 2)
    wide_borders = partition_units(compute_unit_costs(wide, 64), 2)
    assert wide_borders[1] > narrow_borders[1]


@pytest.mark.parametrize("name", SHAPES)
def test_parameters_of_units_are_those_of_the_model(name: str) -> None:
    shape = SHAPES[name]
    counts = dict.fromkeys(range(shape.num_layers + 2), 0)
    for parameter_name, parameter in GPT(shape).named_parameters():
        first, second = parameter_name.split(".")[:2]
        unit = 0 if first == "embedding" else int(second) + 1 if first == "blocks" else shape.num_layers + 1
        is_table = parameter_name in ("embedding.token.weight", "head.weight")
        counts[unit] += shape.vocab_size * shape.hidden_size if is_table else parameter.numel()
    assert count_unit_parameters(shape) == list(counts.values())
    assert sum(count_unit_parameters(shape)) == shape.num_parameters


def test_stages_are_described_by_their_layers() -> None:
    borders = [0, 3, 4, 6]
    assert [describe_stage(borders, stage, num_layers=4) for stage in range(3)] == [
        "embedding, blocks 0-1",
        "block 2",
        "block 3, output",
    ]
    assert describe_stage([0, 1, 5, 6], 0, num_layers=4) == "embedding"
    assert describe_stage([0, 1, 5, 6], 2, num_layers=4) == "output"
