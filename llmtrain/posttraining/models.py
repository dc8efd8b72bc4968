"""Hugging Face folders in and out: stock classes only, and no code of others."""

import itertools
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from safetensors import SafetensorError

from llmtrain.errors import CheckpointError
from llmtrain.posttraining.chat import PROBE, ChatTokenizer
from llmtrain.posttraining.model_digest import CARD_NAME, check_is_model, digest_model


def load_causal_model(folder: Path) -> Any:
    """A language model in float32.

    Raises:
        CheckpointError: it is none, or a weight of it is missing.
    """
    from transformers import AutoModelForCausalLM

    _check_architecture(folder, "ForCausalLM", "a language model")
    return _load(AutoModelForCausalLM, folder)


def load_reward_model(folder: Path) -> Any:
    """A model that gives a sequence one score, in float32.

    Raises:
        CheckpointError: it is none, or a weight of it is missing.
    """
    from transformers import AutoModelForSequenceClassification

    _check_architecture(folder, "ForSequenceClassification", "a reward model, which `llmtrain reward` makes")
    model = _load(AutoModelForSequenceClassification, folder)
    if model.config.num_labels != 1:
        raise CheckpointError(f"{folder}: num_labels = {model.config.num_labels}. A reward model has 1.")
    return model


def start_reward_model(folder: Path, pad_id: int, seed: int) -> Any:
    """The trunk of a language model under a new score head, N(0, 1 / (hidden_size + 1)).

    Args:
        folder: the language model.
        pad_id: of its tokenizer.
        seed: of the head.

    Source:
        Stiennon et al. 2020, appendix B.
    """
    from transformers import AutoModelForSequenceClassification

    _check_architecture(folder, "ForCausalLM", "a language model")
    model = _load(AutoModelForSequenceClassification, folder, new="score.weight", num_labels=1)
    model.config.pad_token_id = pad_id
    weight = model.score.weight
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weight.copy_(torch.randn(weight.shape, generator=generator) / (model.config.hidden_size + 1) ** 0.5)
    return model


def check_same_tokenizer(chat: ChatTokenizer, other: ChatTokenizer) -> None:
    """Refuse two models that read other tokens.

    Raises:
        CheckpointError: the vocabularies or the ids of a conversation differ; the first difference is shown.
    """
    mend = "Train the reward model from the same model, or give the reward as a function."
    ours, theirs = chat.tokenizer.get_vocab(), other.tokenizer.get_vocab()
    if ours != theirs:
        token = next(iter({*ours.items()} ^ {*theirs.items()}))[0]
        raise CheckpointError(
            f"{other.folder}: another tokenizer than {chat.folder}: token {token!r} is {theirs.get(token)} there, "
            f"{ours.get(token)} here. {mend}"
        )
    ids, others = chat.encode(PROBE).input_ids, other.encode(PROBE).input_ids
    if ids != others:
        pairs = itertools.zip_longest(ids, others)
        place = next(i for i, (one, another) in enumerate(pairs) if one != another)
        here, there = (
            chat.tokenizer.convert_ids_to_tokens(row[place : place + 3]) or "the end" for row in (ids, others)
        )
        raise CheckpointError(
            f"{other.folder}: its chat template or tokenizer gives a conversation other ids than {chat.folder}: at "
            f"{place}, {there} there, {here} here. {mend}"
        )


def check_vocabulary(model: Any, chat: ChatTokenizer) -> None:
    """Refuse a tokenizer that gives ids which the model does not know, or another end than the model's.

    Raises:
        CheckpointError: it does.
    """
    token, highest = max(chat.tokenizer.get_vocab().items(), key=lambda item: item[1])
    if highest >= model.config.vocab_size:
        raise CheckpointError(
            f"{chat.folder}: its tokenizer gives {token!r} the id {highest:,}, and its model knows ids below "
            f"{model.config.vocab_size:,}. Give the tokenizer that the model was trained with."
        )
    known = model.config.eos_token_id
    ends = known if isinstance(known, list) else [known]
    if known is not None and chat.eos_id not in ends:
        raise CheckpointError(
            f"{chat.folder}: its tokenizer ends with id {chat.eos_id} ({chat.tokenizer.eos_token!r}), its model with "
            f"{', '.join(map(str, ends))} (eos_token_id in config.json). Bring them together."
        )


def save_model(
    model: Any,
    weights: Mapping[str, torch.Tensor],
    chat: ChatTokenizer,
    folder: Path,
    card: Mapping[str, Any],
    files: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Write a folder that `from_pretrained` loads; it appears whole, in place of an older one.

    Args:
        model: of `transformers`, whose configuration is written.
        weights: whole tensors by its names.
        chat: its tokenizer.
        folder: where to.
        card: stage and parents; the digest is added.
        files: more texts by name.
    """
    staging = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        model.save_pretrained(staging, state_dict=dict(weights))
        chat.save(staging)
        text = json.dumps({**card, "digest": digest_model(staging)}, indent=2)
        (staging / CARD_NAME).write_text(text + "\n", encoding="utf-8")
        for name, content in files.items():
            (staging / name).write_text(content, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
    except OSError as error:
        raise CheckpointError(f"{folder}: could not be written: {error}. Free some space and start again.") from error


def _check_architecture(folder: Path, suffix: str, wanted: str) -> None:
    check_is_model(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    architectures = config.get("architectures") or []
    # GPT-2's own language model is called LMHeadModel.
    names = (suffix, "LMHeadModel") if suffix == "ForCausalLM" else (suffix,)
    if "auto_map" in config:
        raise CheckpointError(f"{folder}: its config.json asks for code of its own (auto_map), which is never run.")
    if not any(name.endswith(names) for name in architectures):
        raise CheckpointError(
            f"{folder}: architecture {', '.join(architectures) or 'unknown'}. This stage needs {wanted}."
        )


def _load(kind: Any, folder: Path, new: str | None = None, **options: Any) -> Any:
    """Load all weights but the one that is to be new; `transformers` alone would make up what is missing."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    level = logging.get_verbosity()
    logging.set_verbosity_error()  # a new score head is what is asked for
    try:
        model, found = kind.from_pretrained(folder, dtype=torch.float32, output_loading_info=True, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(f"{folder}: `transformers` cannot load it: {error}") from error
    finally:
        logging.set_verbosity(level)
    missing = sorted(set(found["missing_keys"]) - {new})
    if missing:
        raise CheckpointError(
            f"{folder}: its weights lack {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}, which "
            "its config.json asks for. Write the model again."
        )
    return model
