"""Continue text token by token, with cached keys and values."""

from collections.abc import Sequence

import torch

from llmtrain.model.attention import KeyValueCache
from llmtrain.model.gpt import GPT


@torch.no_grad()
def generate(
    model: GPT,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    eos_id: int,
    generator: torch.Generator,
) -> list[int]:
    """Continue one prompt.

    Every rank that calls this with the same arguments takes the same decisions, so it may run under ZeRO-3.

    Args:
        model: the model; its mode and device are left as they are.
        prompt_ids: at least one token; only the last `max_sequence_length - max_new_tokens` are read.
        max_new_tokens: at most so many new ones, and never beyond `max_sequence_length` positions.
        temperature: divides the logits; 0 = the most likely token always.
        top_k: draw from the k most likely; None = from all.
        eos_id: generation ends when this token comes.
        generator: a host generator.

    Returns:
        New ids, without `eos_id`.
    """
    device = model.embedding.token.weight.device
    max_new_tokens = min(max_new_tokens, model.shape.max_sequence_length - 1)
    kept = model.shape.max_sequence_length - max_new_tokens
    new_input = torch.tensor([list(prompt_ids)[-kept:]], device=device)
    caches = [KeyValueCache() for _ in model.blocks]
    position, new_ids = 0, []
    for _ in range(max_new_tokens):
        logits = model(new_input, caches=caches, first_position=position, last_only=True)
        position += new_input.shape[1]
        token = choose_token(logits[0, -1].float().cpu(), temperature, top_k, generator)
        if token == eos_id:
            break
        new_ids.append(token)
        new_input = torch.tensor([[token]], device=device)
    return new_ids


def choose_token(logits_V: torch.Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    """Pick the next token from logits on the host."""
    if temperature == 0:
        return int(logits_V.argmax())
    if top_k is not None and top_k < len(logits_V):
        threshold = logits_V.topk(top_k).values[-1]
        logits_V = logits_V.masked_fill(logits_V < threshold, float("-inf"))
    return int(torch.multinomial((logits_V / temperature).softmax(0), 1, generator=generator))
