import itertools

import pytest

from llmtrain.parallel.layout import list_groups


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
