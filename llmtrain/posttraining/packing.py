"""Whether a model keeps packed conversations apart; not every family does."""

from typing import Any

import torch

from llmtrain.errors import CheckpointError
from llmtrain.posttraining.generation import generating

_TOKENS = 8  # of each of two documents
_ROUNDING = 1e-4  # of the largest logit


@torch.no_grad()
def check_packing(model: Any) -> None:
    """Refuse a model that reads earlier documents of a row into later ones.

    TRL tells documents apart by position ids that begin again at 0; some families count positions themselves.

    Args:
        model: of `transformers`, whole.

    Raises:
        CheckpointError: it does, or takes no positions at all.
    """
    device = next(model.parameters()).device
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (2, _TOKENS), generator=generator).to(device)
    positions = torch.arange(_TOKENS, device=device)
    with generating(model):
        alone = model(input_ids=ids[1:], use_cache=False).logits[0].float()
        try:
            packed = model(input_ids=ids.reshape(1, -1), position_ids=positions.repeat(2)[None], use_cache=False)
        except TypeError as error:
            raise CheckpointError(_describe(model, f"it takes no position_ids ({error})")) from error
    difference = float((packed.logits[0, _TOKENS:].float() - alone).abs().max() / alone.abs().max())
    if not difference <= _ROUNDING:
        raise CheckpointError(
            _describe(model, f"logits of the second of two differ by {difference:.1e} of the largest")
        )


def _describe(model: Any, problem: str) -> str:
    return (
        f"{type(model).__name__} does not keep packed conversations apart: {problem}. Set sft.packing=false; each "
        "conversation then has a row of its own."
    )
