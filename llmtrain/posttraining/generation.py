"""Responses drawn from a model, with random numbers that belong to the sample, not to the batch.

    prompts -> padded on the left -> one forward pass per token with a cache -> tokens and their log-probabilities

Each response has a key; its random numbers are a function of key and position. So a response is the same whichever
rank draws it and whatever else is in its batch, up to rounding, and nothing has to be saved for an exact resume.

Shapes: B responses, P prompt tokens, R response tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from llmtrain.config.reward import GenerationConfig

# Constants of splitmix64, as int64.
_GOLDEN, _FIRST, _SECOND = (
    0x9E3779B97F4A7C15 - (1 << 64),
    0xBF58476D1CE4E5B9 - (1 << 64),
    0x94D049BB133111EB - (1 << 64),
)


@dataclass(frozen=True)
class Rollout:
    """Responses of one batch."""

    prompt_ids_BP: torch.Tensor
    """Padded on the left."""
    response_ids_BR: torch.Tensor
    """Padded on the right after the token that ends them."""
    logprobs_BR: torch.Tensor
    """Of each token under the distribution at this temperature; 0 at padding."""
    mask_BR: torch.Tensor
    """True at tokens of the response, the one that ends it included."""


def draw_exponentials(keys_B: torch.Tensor, position: int, size: int) -> torch.Tensor:
    """Exponentially distributed numbers of mean 1, one for each key and token; float64 (B, size).

    Args:
        keys_B: 64-bit keys as int64, see `derive_key`.
        position: of the token in its response.
        size: of the vocabulary.

    Source:
        splitmix64, Steele, Lea and Flood 2014: its stream from a start that key and position choose.
    """
    counters_V = torch.arange(1, max(size, position + 1) + 1, device=keys_B.device) * _GOLDEN
    starts_B = _scramble(keys_B + counters_V[position])
    bits_BV = _scramble(starts_B[:, None] + counters_V[:size])
    uniforms_BV = ((bits_BV >> 11) & ((1 << 53) - 1)).double() * 2.0**-53
    return -torch.log1p(-uniforms_BV)


def _scramble(values: torch.Tensor) -> torch.Tensor:
    """The finish of splitmix64 on int64, whose arithmetic wraps as that of unsigned numbers does."""
    for shift, factor in ((30, _FIRST), (27, _SECOND)):
        values = (values ^ ((values >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return values ^ ((values >> 31) & ((1 << 33) - 1))


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> torch.Tensor:
    """Rows of ids as one tensor, padded on the left."""
    width = max(map(len, rows))
    return torch.tensor([[pad_id] * (width - len(row)) + list(row) for row in rows])


@contextmanager
def generating(model: Any) -> Iterator[None]:
    """Evaluation mode, and the model's own mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@torch.no_grad()
def draw_responses(
    model: Any,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[int],
    generation: GenerationConfig,
    eos_id: int,
    pad_id: int,
) -> Rollout:
    """Answer prompts.

    Args:
        model: a causal model of `transformers`.
        prompts: token ids; at least one each.
        keys: 64 bits for each prompt, see `derive_key`.
        generation: temperature, top-k, top-p and length.
        eos_id: ends a response.
        pad_id: fills up.
    """
    device = next(model.parameters()).device
    prompt_ids = pad_left(prompts, pad_id).to(device)
    mask = (pad_left([[1] * len(prompt) for prompt in prompts], 0)).to(device)
    keys_B = torch.tensor([key - (1 << 64) if key >> 63 else key for key in keys], device=device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    step_ids, cache, next_position = prompt_ids, None, positions[:, -1:] + 1
    is_open = torch.ones(len(prompts), dtype=torch.bool, device=device)
    ids, logprobs, opens = [], [], []
    with generating(model):
        for i in range(generation.max_new_tokens):
            output = model(
                input_ids=step_ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            logprobs_BV = torch.log_softmax(output.logits[:, -1].float() / generation.temperature, dim=-1)
            exponentials_BV = draw_exponentials(keys_B, i, logprobs_BV.shape[-1])
            chosen = choose_tokens(logprobs_BV, exponentials_BV, generation)
            ids.append(torch.where(is_open, chosen, pad_id))
            logprobs.append(torch.where(is_open, logprobs_BV.gather(1, chosen[:, None])[:, 0], 0.0))
            opens.append(is_open)
            is_open = is_open & (chosen != eos_id)
            if not is_open.any():
                break
            step_ids, positions = ids[-1][:, None], next_position
            next_position = next_position + 1
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    return Rollout(prompt_ids, torch.stack(ids, 1), torch.stack(logprobs, 1), torch.stack(opens, 1))


def choose_tokens(
    logprobs_BV: torch.Tensor, exponentials_BV: torch.Tensor, generation: GenerationConfig
) -> torch.Tensor:
    """One token for each row of the distribution that top-k and top-p leave: the first in a race of exponential clocks.

    Rounding changes the winner only where two clocks ring within it, however many tokens there are. Inversion of the
    cumulative distribution would be cheaper, and every border between two tokens would be a place where it can change.

    Args:
        logprobs_BV: log-probabilities.
        exponentials_BV: of mean 1, float64, see `draw_exponentials`.
        generation: `top_k` and `top_p`.

    Returns:
        Token ids (B,).
    """
    probabilities_BV = logprobs_BV.double().exp()
    if generation.top_k is not None and generation.top_k < logprobs_BV.shape[-1]:
        least = probabilities_BV.topk(generation.top_k, dim=-1).values[:, -1:]
        probabilities_BV = probabilities_BV.where(probabilities_BV >= least, 0.0)
    if generation.top_p < 1:
        ordered, places = probabilities_BV.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        ordered = ordered.where(before < generation.top_p * ordered.sum(-1, keepdim=True), 0.0)
        probabilities_BV = torch.zeros_like(ordered).scatter(1, places, ordered)
    return torch.where(probabilities_BV > 0, exponentials_BV / probabilities_BV, torch.inf).argmin(-1)
