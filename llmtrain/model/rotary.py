"""Rotary position embedding: pairs of dimensions of queries and keys turn with the position.

Shapes: B batch, H heads, T tokens, K dimensions of a head; positions [T] or [B, T].
"""

import torch


def compute_rotation(
    positions: torch.Tensor, head_dim: int, theta: float, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosine and sine of every angle, computed in float32.

    Args:
        positions: [T] or [B, T].
        head_dim: K, even.
        theta: base of the frequencies.
        dtype: of the result.

    Returns:
        Two tensors [T, K/2] or [B, 1, T, K/2].

    Source:
        Su et al. 2021, equation 15; pairs are (i, i + K/2) as in Llama.
    """
    exponents = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    angles = positions.float().unsqueeze(-1) / theta**exponents
    if angles.dim() == 3:
        angles = angles.unsqueeze(1)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(heads_BHTK: torch.Tensor, rotation: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn each pair of dimensions by its angle."""
    cos, sin = rotation
    first, second = heads_BHTK.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
