"""Boxes: rectangular parts of a tensor, and how a range of its flattened elements splits into them.

In: shapes and flat ranges, plain integers. Out: `Box`. No torch: slices and offsets work on any array.

ZeRO hands a rank a flat range of a parameter; another layout wants another range, or a block of rows or columns.
Both are sets of boxes of the one logical tensor, so moving state between layouts is intersecting boxes:

    flat range [3, 17) of a (5, 4) tensor        . . . a      a: row 0, columns 3..4
                                                 b b b b      b: rows 1..4, all columns
                                                 b b b b      c: row 4, column 0
                                                 b b b b
                                                 c . . .
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """A rectangular part of a tensor: where it starts and how far it reaches in each dimension."""

    offset: tuple[int, ...]
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        """Number of elements; 1 for the box of a scalar."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """The index that selects this box from the tensor its offset refers to."""
        return tuple(slice(start, start + size) for start, size in zip(self.offset, self.shape, strict=True))

    def intersect(self, other: "Box") -> "Box | None":
        """The part that two boxes of the same tensor share, or None."""
        offset = tuple(max(a, b) for a, b in zip(self.offset, other.offset, strict=True))
        end = tuple(
            min(a + m, b + n) for a, m, b, n in zip(self.offset, self.shape, other.offset, other.shape, strict=True)
        )
        if any(stop <= start for start, stop in zip(offset, end, strict=True)):
            return None
        return Box(offset, tuple(stop - start for start, stop in zip(offset, end, strict=True)))

    def relative_to(self, outer: "Box") -> "Box":
        """The same box, its offset counted from the start of `outer`, which holds it."""
        return Box(tuple(a - b for a, b in zip(self.offset, outer.offset, strict=True)), self.shape)


def whole_box(shape: Sequence[int]) -> Box:
    """The box that covers a tensor of this shape."""
    return Box((0,) * len(shape), tuple(shape))


def split_flat_range(shape: Sequence[int], start: int, stop: int) -> Iterator[Box]:
    """Split elements [start, stop) of a flattened row-major tensor into boxes.

    The boxes come in flat order and each is contiguous in it, so that box after box the range is cut by `numel`.
    A tensor of d dimensions gives at most 2 * d - 1 boxes.

    Args:
        shape: shape of the tensor.
        start: first element, counted in row-major order.
        stop: one past the last element.
    """
    if start >= stop:
        return
    if len(shape) <= 1:
        yield Box((start,) * len(shape), (stop - start,) * len(shape))
        return
    row_numel = math.prod(shape[1:])
    first, head = divmod(start, row_numel)
    last, tail = divmod(stop, row_numel)
    if first == last:
        yield from _in_row(first, shape, head, tail)
        return
    if head:
        yield from _in_row(first, shape, head, row_numel)
        first += 1
    if first < last:
        yield Box((first,) + (0,) * (len(shape) - 1), (last - first, *shape[1:]))
    yield from _in_row(last, shape, 0, tail)


def _in_row(row: int, shape: Sequence[int], start: int, stop: int) -> Iterator[Box]:
    for box in split_flat_range(shape[1:], start, stop):
        yield Box((row, *box.offset), (1, *box.shape))
