"""A digest of the weights that does not depend on how they are spread over ranks.

In: float32 parts of named tensors. Out: an unsigned 64-bit number. The digest of a model is the sum modulo 2^64
of one scrambled number per element, made of the tensor's name, the element's flat position and its bits: parts can be
added in any order, by any rank. Elements with all bits zero count nothing, so rows of zero padding do not change it.

It proves that a loader put every weight where it belongs; damaged files are found by their sha256. It is no defence
against somebody who forges weights on purpose.
"""

import hashlib
from collections.abc import Iterable, Sequence

import torch

_MASK = (1 << 64) - 1
# Temporaries of a chunk stay in a core's second-level cache; a GPU wants fewer, larger kernels.
_CPU_CHUNK_NUMEL, _GPU_CHUNK_NUMEL = 1 << 15, 1 << 22


def compute_range_digest(name: str, flat: torch.Tensor, start: int) -> int:
    """Digest of one contiguous range of a flattened tensor.

    Args:
        name: canonical name of the tensor.
        flat: the elements, one-dimensional float32, on any device.
        start: position of the first element in the flattened tensor.

    Returns:
        The share of these elements in the digest, 0 <= digest < 2^64.
    """
    return compute_box_digest(name, flat, (start,), (1,))


def compute_box_digest(name: str, values: torch.Tensor, offset: Sequence[int], strides: Sequence[int]) -> int:
    """Digest of a rectangular part of a tensor.

    Args:
        name: canonical name of the tensor.
        values: the elements, float32, on any device, with any memory layout.
        offset: where the part begins, in each dimension.
        strides: elements of the whole tensor from one index to the next, in each dimension.

    Returns:
        The share of these elements in the digest, 0 <= digest < 2^64.

    Source:
        The scrambling is SplitMix64's finalizer, Steele, Lea and Flood 2014, figure 17, on the golden-ratio sequence.
    """
    if values.dim() == 0:
        values, offset, strides = values.view(1), (0,), (1,)
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
    values = values.detach()
    inner = torch.zeros(1, dtype=torch.int64, device=values.device)
    for start, size, stride in zip(offset[1:], values.shape[1:], strides[1:], strict=True):
        positions = torch.arange(start, start + size, dtype=torch.int64, device=values.device).mul_(stride)
        inner = (inner.unsqueeze(1) + positions).flatten()
    total = torch.zeros((), dtype=torch.int64, device=values.device)
    chunk_numel = _CPU_CHUNK_NUMEL if values.device.type == "cpu" else _GPU_CHUNK_NUMEL
    rows = max(1, chunk_numel // inner.numel())
    for row in range(0, len(values), rows):
        bits = values[row : row + rows].reshape(-1).view(torch.int32).to(torch.int64)
        first = offset[0] + row
        outer = torch.arange(first, first + bits.numel() // inner.numel(), dtype=torch.int64, device=values.device)
        state = (outer.mul_(strides[0]).add_(_signed(seed)).unsqueeze(1) + inner).flatten()
        state = state.mul_(_signed(0x9E3779B97F4A7C15)).add_(bits)
        total += _scramble(state).mul_(bits.ne(0)).sum()
    return int(total) & _MASK


def combine_digests(digests: Iterable[int]) -> int:
    """Digest of disjoint ranges together."""
    return sum(digests) & _MASK


def _scramble(state: torch.Tensor) -> torch.Tensor:
    state = state.bitwise_xor_(_shift_right(state, 30)).mul_(_signed(0xBF58476D1CE4E5B9))
    state = state.bitwise_xor_(_shift_right(state, 27)).mul_(_signed(0x94D049BB133111EB))
    return state.bitwise_xor_(_shift_right(state, 31))


def _shift_right(values: torch.Tensor, bits: int) -> torch.Tensor:
    """Shift as if the 64 bits were unsigned; torch shifts the sign in."""
    return (values >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The same 64 bits as a signed number, which is what torch takes."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value
