"""Continue text token by token, with cached keys and values."""

from collections.abc import Callable, Sequence

import torch

from llmtrain.model.attention import KeyValueCache
from llmtrain.model.gpt import GPT

NextLogits = Callable[[torch.Tensor, int], torch.Tensor]
"""New token ids [1, T] and the position of the first of them -> logits [V] of the token after them. Each call continues
the text of the calls before."""


@torch.no_grad()
def generate(
    next_logits: NextLogits,
    prompt_ids: Sequence[int],
    *,
    max_sequence_length: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    eos_id: int,
    generator: torch.Generator,
) -> list[int]:
    """Continue one prompt.

    Every rank that calls this with the same arguments takes the same decisions, so it may run on a model that is
    spread over ranks.

    Args:
        next_logits: the model, e.g. `cached_logits(model)`.
        prompt_ids: at least one token; only the last `max_sequence_length - max_new_tokens` are read.
        max_sequence_length: positions of the model.
        max_new_tokens: at most so many new ones, and never beyond `max_sequence_length` positions.
        temperature: divides the logits; 0 = the most likely token always.
        top_k: draw from the k most likely; None = from all.
        eos_id: generation ends when this token comes.
        generator: a host generator.

    Returns:
        New ids, without `eos_id`.
    """
    max_new_tokens = min(max_new_tokens, max_sequence_length - 1)
    new_input = torch.tensor([list(prompt_ids)[-(max_sequence_length - max_new_tokens) :]])
    position, new_ids = 0, []
    for _ in range(max_new_tokens):
        logits_V = next_logits(new_input, position)
        position += new_input.shape[1]
        token = choose_token(logits_V.float().cpu(), temperature, top_k, generator)
        if token == eos_id:
            break
        new_ids.append(token)
        new_input = torch.tensor([[token]])
    return new_ids


def cached_logits(model: GPT) -> NextLogits:
    """A model as `generate` calls it; its mode and device are left as they are."""
    caches, device = [KeyValueCache() for _ in model.blocks], model.embedding.token.weight.device

    def next_logits(new_ids_1T: torch.Tensor, first_position: int) -> torch.Tensor:
        logits_1TV = model(new_ids_1T.to(device), caches=caches, first_position=first_position, last_only=True)
        last_V: torch.Tensor = logits_1TV[0, -1]
        return last_V

    return next_logits


def choose_token(logits_V: torch.Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> int:
    """Pick the next token from logits on the host."""
    if temperature == 0:
        return int(logits_V.argmax())
    if top_k is not None and top_k < len(logits_V):
        threshold = logits_V.topk(top_k).values[-1]
        logits_V = logits_V.masked_fill(logits_V < threshold, float("-inf"))
    return int(torch.multinomial((logits_V / temperature).softmax(0), 1, generator=generator))
