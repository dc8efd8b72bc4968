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

import numpy as np
import torch

from llmtrain.config.reward import GenerationConfig

_MASK = (1 << 64) - 1


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


def make_key(*parts: int) -> int:
    """A key out of whole numbers: seed, step, index of the sample."""
    key = 0
    for part in parts:
        key = (key * 0x9E3779B97F4A7C15 + part + 1) & _MASK
        key ^= key >> 29
    return key


def draw_uniforms(keys: Sequence[int], count: int) -> torch.Tensor:
    """Numbers in [0, 1), `count` for each key; float64 (keys, count)."""
    rows = [np.random.Generator(np.random.Philox(key=key)).random(count) for key in keys]
    return torch.from_numpy(np.stack(rows))


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
        keys: one for each prompt, see `make_key`.
        generation: temperature, top-k, top-p and length.
        eos_id: ends a response.
        pad_id: fills up.
    """
    device = next(model.parameters()).device
    prompt_ids = pad_left(prompts, pad_id).to(device)
    mask = (pad_left([[1] * len(prompt) for prompt in prompts], 0)).to(device)
    uniforms = draw_uniforms(keys, generation.max_new_tokens).to(device)
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
            chosen = choose_tokens(logprobs_BV, uniforms[:, i], generation)
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


def choose_tokens(logprobs_BV: torch.Tensor, uniforms_B: torch.Tensor, generation: GenerationConfig) -> torch.Tensor:
    """One token for each row by inversion of the distribution that top-k and top-p leave.

    Args:
        logprobs_BV: log-probabilities.
        uniforms_B: in [0, 1), float64.
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
    cumulative_BV = probabilities_BV.cumsum(-1)
    thresholds = uniforms_B[:, None] * cumulative_BV[:, -1:]
    # The first token whose cumulative probability exceeds the threshold; one of probability zero never does so first.
    return torch.searchsorted(cumulative_BV, thresholds, right=True)[:, 0].clamp(max=logprobs_BV.shape[-1] - 1)
