"""The end of a stage: whole weights from whatever the ranks hold, and the model's folder."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from llmtrain.conversations.records import Message
from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.context import StageContext
from llmtrain.posttraining.model_digest import read_card
from llmtrain.posttraining.models import save_model
from llmtrain.posttraining.trained_prompts import FILE_NAME as TRAINED_NAME
from llmtrain.posttraining.trained_prompts import read_trained, render_trained


def take_weights(accelerator: Any, model: Any, prefix: str = "") -> dict[str, torch.Tensor]:
    """Whole tensors by name; under ZeRO-3 they are gathered, and all ranks call it.

    Args:
        accelerator: accelerate's.
        model: as prepared by it.
        prefix: only names that begin so, without it.

    Returns:
        Weights; empty on ranks that hold none (ZeRO-3 gives them to rank 0).
    """
    return select_weights(accelerator.get_state_dict(model) or {}, prefix)


def select_weights(weights: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Those whose names begin so, without it."""
    return {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}


def save_trained(
    context: StageContext,
    model: Any,
    weights: Mapping[str, torch.Tensor],
    chat: ChatTokenizer,
    folder: Path,
    prompts: Iterable[Sequence[Message]] = (),
) -> None:
    """Rank 0 writes the folder with the digests of the models it comes from; all ranks call it.

    Args:
        context: the stage.
        model: of `transformers`.
        weights: whole tensors.
        chat: its tokenizer.
        folder: where to.
        prompts: that it was trained on in this stage.
    """
    if context.world.is_first:
        parents = {
            role: {"folder": str(path), "digest": context.parent_digests[role], "stage": read_card(path).get("stage")}
            for role, path in context.parents.items()
        }
        trained = render_trained(prompts, read_trained(context.parents))
        card = {"stage": context.name, "parents": parents}
        save_model(model, weights, chat, folder, card, {TRAINED_NAME: trained})
    context.wait_for_all()
