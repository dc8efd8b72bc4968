import itertools
from pathlib import Path

import pytest

from llmtrain.errors import ConfigError
from llmtrain.plan.build import Plan, build_plan
from llmtrain.plan.rank_map import describe_groups, describe_stages, find_split_groups, list_groups
from tests.helpers.configs import load_tiny_config


@pytest.mark.parametrize(("data", "tensor", "pipeline"), itertools.product((1, 2, 3), (1, 2), (1, 2)))
def test_every_rank_is_in_exactly_one_group_of_each_axis(data: int, tensor: int, pipeline: int) -> None:
    world = data * tensor * pipeline
    groups = list_groups(data, tensor, pipeline)
    for axis, size in (("data", data), ("tensor", tensor), ("pipeline", pipeline)):
        assert sorted(itertools.chain(*groups[axis])) == list(range(world))
        assert {len(group) for group in groups[axis]} == {size}


def test_tensor_parallel_neighbours_have_consecutive_ranks() -> None:
    groups = list_groups(data=2, tensor=4, pipeline=2)
    assert groups["tensor"][0] == [0, 1, 2, 3]
    assert groups["data"][0] == [0, 4]
    assert groups["pipeline"][0] == [0, 8]


def make_plan(folder: Path, world_size: int, *overrides: str) -> Plan:
    return build_plan(load_tiny_config(folder, "model.num_layers=4", *overrides), world_size, 300)


def test_stages_name_their_ranks_layers_and_parameters(tmp_path: Path) -> None:
    tensor, pipeline = "parallel.tensor_parallel_size=2", "parallel.pipeline_parallel_size=2"
    plan = make_plan(tmp_path, 8, tensor, pipeline)
    rows = describe_stages(plan)
    assert [row[:3] for row in rows] == [("0", "0-3", "embedding, blocks 0-1"), ("1", "4-7", "blocks 2-3, output")]
    held = sum(int(row[3].replace(",", "")) for row in rows) * 2
    assert held == plan.shape.num_parameters
    assert describe_groups(plan)[1] == ("data-parallel", "4 groups of 2; the first: ranks 0, 2")


def test_a_two_way_pipeline_holds_a_stage_of_either_end(tmp_path: Path) -> None:
    schedule = ["parallel.pipeline_parallel_size=2", "parallel.pipeline_schedule=dualpipev"]
    rows = describe_stages(make_plan(tmp_path, 2, "batch.micro_batch_size=2", *schedule))
    assert [row[2] for row in rows] == ["embedding, block 0; output", "block 1; blocks 2-3"]


def test_the_bubble_shrinks_with_micro_batches(tmp_path: Path) -> None:
    pipeline = "parallel.pipeline_parallel_size=4"
    fractions = [
        make_plan(tmp_path, 4, pipeline, f"batch.micro_batch_size={size}").pipeline_bubble_fraction for size in (8, 1)
    ]
    assert fractions == [3 / 4, 3 / 11]


@pytest.mark.parametrize(
    ("world_size", "overrides", "message"),
    [
        (6, ["parallel.tensor_parallel_size=4"], "6 ranks are no multiple of .* = 4. Start 4 or 8 ranks"),
        (2, ["parallel.pipeline_parallel_size=4"], "2 ranks are no multiple of .* = 4. Start 4 ranks"),
        (8, ["parallel.pipeline_parallel_size=8"], "makes 8 stages, the model has 4 blocks. Choose at most 4"),
        (
            2,
            ["parallel.pipeline_parallel_size=2", "parallel.pipeline_schedule=dualpipev", "batch.micro_batch_size=4"],
            "'dualpipev' with 2 pipeline ranks needs at least 4 accumulation steps, this batch has 2",
        ),
    ],
)
def test_impossible_layouts_are_refused_with_the_nearest_choice(
    tmp_path: Path, world_size: int, overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan(tmp_path, world_size, *overrides)


def test_tensor_parallel_groups_across_machines_are_warned_of(tmp_path: Path) -> None:
    plan = make_plan(tmp_path, 8, "parallel.tensor_parallel_size=4")
    assert find_split_groups(plan, 8) is None
    assert find_split_groups(plan, 4) is None
    warning = find_split_groups(plan, 2)
    assert warning is not None
    assert warning.startswith("parallel.tensor_parallel_size = 4 with 2 ranks on a machine")
    assert warning.endswith("Choose a size that divides the ranks of a machine: 1, 2.")
