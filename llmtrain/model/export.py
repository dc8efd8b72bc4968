"""Writing and reading Hugging Face folders, and the gate: the written model must say what ours says."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from llmtrain.errors import CheckpointError
from llmtrain.model.generate import cached_logits, generate
from llmtrain.model.gpt import GPT
from llmtrain.model.huggingface import (
    Weights,
    build_huggingface_config,
    from_huggingface,
    pad_vocabulary,
    read_huggingface_shape,
    to_huggingface,
)
from llmtrain.plan.model_shape import ModelShape

# Both compute the same sums of float32 in slightly other orders; measured differences are below 1e-5 of the scale.
MAX_RELATIVE_LOGIT_DIFFERENCE = 1e-4
_GREEDY_TOKENS = 32
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")


def export_to_huggingface(
    weights: Weights,
    shape: ModelShape,
    tokenizer_folder: Path,
    special_ids: Mapping[str, int],
    card: str,
    output: Path,
) -> None:
    """Write a folder that `transformers` reads with stock classes; it appears whole and checked, or not at all.

    Args:
        weights: by canonical name, float32.
        shape: of the model.
        tokenizer_folder: holds the fast tokenizer.
        special_ids: `bos_token_id`, `eos_token_id`, `pad_token_id`.
        card: README.md of the model.
        output: folder to write; replaced when it exists.

    Raises:
        CheckpointError: the written model does not agree with ours, or the folder cannot be written.
    """
    staging = output.with_name(output.name + ".tmp")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        staging.mkdir(parents=True)
        _save_model(weights, shape, special_ids, staging)
        for name in _TOKENIZER_FILES:
            shutil.copyfile(tokenizer_folder / name, staging / name)
        (staging / "README.md").write_text(card, encoding="utf-8")
        check_logits_parity(load_gpt(weights, shape), staging)
        shutil.rmtree(output, ignore_errors=True)
        staging.rename(output)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{output}: could not be written: {error}. Free some space or choose another folder."
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def import_from_huggingface(folder: Path) -> tuple[ModelShape, dict[str, torch.Tensor]]:
    """Shape and weights of a saved GPT-2 or Llama.

    Raises:
        CheckpointError: the model has something that ours has not.
    """
    shape = read_huggingface_shape(folder)
    return shape, from_huggingface(_load_model(folder).state_dict(), shape)


def load_gpt(weights: Weights, shape: ModelShape) -> GPT:
    """Our model with the given weights (with or without rows that pad the vocabulary), float32 on the host."""
    model = GPT(shape)
    model.load_state_dict({name: pad_vocabulary(name, weight, shape) for name, weight in weights.items()})
    return model.eval()


@torch.no_grad()
def check_logits_parity(model: GPT, folder: Path) -> float:
    """Compare our model with the saved one: logits on fixed random tokens, and greedy continuations.

    Returns:
        The largest difference of a logit, relative to the largest logit.

    Raises:
        CheckpointError: they differ.
    """
    other, shape = _load_model(folder), model.shape
    length = min(shape.max_sequence_length, 64)
    ids_BT = torch.randint(0, shape.vocab_size, (2, length), generator=torch.Generator().manual_seed(0))
    ours, theirs = model(ids_BT), other(ids_BT).logits
    difference = float((ours - theirs).abs().max() / ours.abs().max())
    if not difference <= MAX_RELATIVE_LOGIT_DIFFERENCE:
        raise CheckpointError(
            f"{folder}: its logits differ from ours by {difference:.1e} of their scale; at most "
            f"{MAX_RELATIVE_LOGIT_DIFFERENCE:.0e} is rounding. The conversion is wrong: please report it."
        )
    new_tokens = min(_GREEDY_TOKENS, shape.max_sequence_length // 2)
    prompt = ids_BT[:1, : min(8, length - new_tokens)]
    expected = generate(
        cached_logits(model),
        prompt[0].tolist(),
        max_sequence_length=shape.max_sequence_length,
        max_new_tokens=new_tokens,
        temperature=0,
        top_k=None,
        eos_id=-1,
        generator=torch.Generator(),
    )
    found = other.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )[0, prompt.shape[1] :].tolist()
    if found != expected:
        raise CheckpointError(f"{folder}: continues {prompt[0].tolist()} with {found}, ours with {expected}.")
    return difference


def _save_model(weights: Weights, shape: ModelShape, special_ids: Mapping[str, int], folder: Path) -> None:
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # it shows the writing of a file
    model = AutoModelForCausalLM.from_config(build_huggingface_config(shape, special_ids))
    model.load_state_dict(to_huggingface(weights, shape))
    model.generation_config = GenerationConfig(**special_ids)
    model.save_pretrained(folder)


def _load_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: not a Hugging Face model: {error}") from error
