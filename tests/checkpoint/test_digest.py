import hashlib
import struct
from itertools import pairwise

import torch

from llmtrain.checkpoint.digest import combine_digests, compute_range_digest

MASK = (1 << 64) - 1


def reference_digest(name: str, values: list[float], start: int) -> int:
    """The definition in Python's unbounded integers, one element at a time."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    total = 0
    for index, value in enumerate(values):
        bits = struct.unpack("<i", struct.pack("<f", value))[0]
        state = ((seed + start + index) * 0x9E3779B97F4A7C15 + bits) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        total += (state ^ (state >> 31)) if bits else 0
    return total & MASK


def test_digest_equals_its_definition() -> None:
    values = [0.0, -0.0, 1.5, -3.25e-20, 7e30, float("inf"), 0.1, -0.1]
    flat = torch.tensor(values)
    assert compute_range_digest("a", flat, 5) == reference_digest("a", flat.tolist(), 5)


def test_digest_is_the_same_however_a_tensor_is_cut() -> None:
    flat = torch.randn(100_000, generator=torch.Generator().manual_seed(1))
    whole = compute_range_digest("w", flat, 0)
    cuts = [0, 1, 17, 1 << 15, (1 << 15) + 3, 100_000]
    parts = [compute_range_digest("w", flat[a:b], a) for a, b in pairwise(cuts)]
    assert combine_digests(reversed(parts)) == whole


def test_digest_notices_every_kind_of_misplacement() -> None:
    flat = torch.randn(1000, generator=torch.Generator().manual_seed(2))
    whole = compute_range_digest("w", flat, 0)
    swapped, flipped, rolled = flat.clone(), flat.clone(), flat.roll(1)
    swapped[[3, 4]] = flat[[4, 3]]
    flipped.view(torch.int32)[500] ^= 1
    others = [compute_range_digest("w", changed, 0) for changed in (swapped, flipped, rolled)]
    others += [compute_range_digest("v", flat, 0), compute_range_digest("w", flat, 1)]
    assert whole not in others
    assert len(set(others)) == len(others)


def test_rows_of_zeros_do_not_change_the_digest() -> None:
    table = torch.randn(5, 3, generator=torch.Generator().manual_seed(3))
    padded = torch.cat([table, torch.zeros(3, 3)])
    assert compute_range_digest("w", table.flatten(), 0) == compute_range_digest("w", padded.flatten(), 0)
