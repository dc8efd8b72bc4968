import math
import random
from itertools import pairwise

import numpy as np

from llmtrain.parallel.geometry import Box, split_flat_range, whole_box

ROUNDS = 400


def draw_shape(draw: random.Random) -> tuple[int, ...]:
    return tuple(draw.randint(1, 6) for _ in range(draw.randint(0, 4)))


def draw_range(draw: random.Random, numel: int) -> tuple[int, int]:
    start, stop = sorted((draw.randint(0, numel), draw.randint(0, numel)))
    return start, stop


def draw_cuts(draw: random.Random, numel: int) -> list[tuple[int, int]]:
    borders = [0, *sorted(draw.randint(0, numel) for _ in range(draw.randint(0, 5))), numel]
    return list(pairwise(borders))


def test_boxes_of_a_flat_range_hold_exactly_its_elements_in_order() -> None:
    draw = random.Random(1)
    for _ in range(ROUNDS):
        shape = draw_shape(draw)
        numel = math.prod(shape)
        start, stop = draw_range(draw, numel)
        tensor = np.arange(numel).reshape(shape)
        boxes = list(split_flat_range(shape, start, stop))
        elements = [element for box in boxes for element in tensor[box.slices].reshape(-1).tolist()]
        assert elements == list(range(start, stop)), (shape, start, stop)
        assert len(boxes) <= max(1, 2 * len(shape) - 1), (shape, start, stop)


def test_whole_tensor_is_one_box() -> None:
    for shape in [(), (5,), (3, 4), (2, 3, 4), (1, 1), (7, 1, 2)]:
        assert list(split_flat_range(shape, 0, math.prod(shape))) == [whole_box(shape)]


def test_empty_range_and_empty_tensor_have_no_boxes() -> None:
    assert list(split_flat_range((3, 4), 5, 5)) == []
    assert list(split_flat_range((0, 4), 0, 0)) == []


def test_intersection_holds_the_shared_elements() -> None:
    draw = random.Random(2)
    empty = 0
    for _ in range(ROUNDS):
        shape = tuple(draw.randint(1, 6) for _ in range(draw.randint(1, 4)))
        boxes = []
        for _ in range(2):
            ranges = [draw_range(draw, size - 1) for size in shape]
            boxes.append(Box(tuple(a for a, _ in ranges), tuple(b - a + 1 for a, b in ranges)))
        tensor = np.arange(math.prod(shape)).reshape(shape)
        shared = set(tensor[boxes[0].slices].flat) & set(tensor[boxes[1].slices].flat)
        found = boxes[0].intersect(boxes[1])
        assert (set(tensor[found.slices].flat) if found else set()) == shared
        assert boxes[1].intersect(boxes[0]) == found
        empty += found is None
    assert 0 < empty < ROUNDS


def test_scalar_boxes_intersect() -> None:
    assert whole_box(()).intersect(whole_box(())) == whole_box(())
    assert whole_box(()).numel == 1


def test_state_moves_between_any_two_cuts_without_loss() -> None:
    draw = random.Random(3)
    for _ in range(ROUNDS):
        shape = draw_shape(draw)
        numel = math.prod(shape)
        source = np.arange(1, numel + 1).reshape(shape)
        boxes = [box for cut in draw_cuts(draw, numel) for box in split_flat_range(shape, *cut)]
        stored = [(box, source[box.slices].copy()) for box in boxes]
        target = np.zeros_like(source)
        for cut in draw_cuts(draw, numel):
            for box in split_flat_range(shape, *cut):
                for stored_box, values in stored:
                    shared = box.intersect(stored_box)
                    if shared is not None:
                        target[shared.slices] += values[shared.relative_to(stored_box).slices]
        assert np.array_equal(target, source), shape
