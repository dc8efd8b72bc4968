"""Folders of models in and out."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llmtrain.errors import CheckpointError
from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.model_digest import CARD_NAME, digest_model, read_card
from llmtrain.posttraining.models import (
    check_vocabulary,
    load_causal_model,
    load_reward_model,
    save_model,
    start_reward_model,
)


def copy_with(source: Path, folder: Path, **config: Any) -> Path:
    """A copy of a model with other keys in its configuration."""
    shutil.copytree(source, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def test_the_digest_tells_weights_configuration_and_tokenizer_apart(
    make_folder: Callable[[str, int], Path], model_folders: dict[str, Path], tmp_path: Path
) -> None:
    first, again, other = model_folders["llama"], make_folder("llama", 0), make_folder("llama", 1)
    assert digest_model(first) == digest_model(again) != digest_model(other)
    assert digest_model(copy_with(first, tmp_path / "a", rope_theta=9.0)) != digest_model(first)
    renamed = copy_with(first, tmp_path / "b")
    (renamed / "chat_template.jinja").write_text("{{ 1 }}")
    assert digest_model(renamed) != digest_model(first)
    with_notes = tmp_path / "c"
    shutil.copytree(first, with_notes)
    (with_notes / "README.md").write_text("notes")
    (with_notes / CARD_NAME).write_text("{}")
    assert digest_model(with_notes) == digest_model(first)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        digest_model(tmp_path)
    assert str(caught.value) == f"{tmp_path}: no model here, config.json is missing. Give a Hugging Face folder."
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError) as caught:
        load_causal_model(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: no model.safetensors. Only safetensors are read; convert the weights first."
    )


def test_a_model_with_code_of_its_own_is_refused(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_with(model_folders["llama"], tmp_path / "m", auto_map={"AutoModelForCausalLM": "evil.Model"})
    for load in (load_causal_model, load_reward_model, lambda path: start_reward_model(path, 3, 0)):
        with pytest.raises(CheckpointError) as caught:
            load(folder)
        assert str(caught.value) == (
            f"{folder}: its config.json asks for code of its own (auto_map), which is never run."
        )


def test_a_reward_model_is_no_language_model_and_the_other_way_round(
    family: str, model_folders: dict[str, Path], chat: ChatTokenizer, tmp_path: Path
) -> None:
    language, reward = model_folders[family], tmp_path / "reward"
    model = start_reward_model(language, chat.pad_id, 0)
    save_model(model, model.state_dict(), chat, reward, {})
    names = {"llama": ("LlamaForCausalLM", "LlamaFor"), "gpt2": ("GPT2LMHeadModel", "GPT2For")}[family]
    for load in (load_causal_model, lambda path: start_reward_model(path, 3, 0)):
        with pytest.raises(CheckpointError) as caught:
            load(reward)
        assert str(caught.value) == (
            f"{reward}: architecture {names[1]}SequenceClassification. This stage needs a language model."
        )
    with pytest.raises(CheckpointError) as caught:
        load_reward_model(language)
    assert str(caught.value) == (
        f"{language}: architecture {names[0]}. This stage needs a reward model, which `llmtrain reward` makes."
    )
    load_causal_model(language)
    load_reward_model(reward)


def test_a_model_without_an_architecture_is_refused(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_with(model_folders["llama"], tmp_path / "m", architectures=None)
    with pytest.raises(CheckpointError, match=r"architecture unknown. This stage needs a language model.$"):
        load_causal_model(folder)


def test_a_classifier_with_several_labels_is_no_reward_model(
    model_folders: dict[str, Path], chat: ChatTokenizer, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path / "m"
    AutoModelForSequenceClassification.from_pretrained(model_folders["llama"], num_labels=3).save_pretrained(folder)
    with pytest.raises(CheckpointError) as caught:
        load_reward_model(folder)
    assert str(caught.value) == f"{folder}: num_labels = 3. A reward model has 1."


def test_damaged_weights_are_refused(model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = copy_with(model_folders["llama"], tmp_path / "m")
    os.truncate(folder / "model.safetensors", 1000)
    with pytest.raises(CheckpointError, match=f"^{folder}: `transformers` cannot load it: "):
        load_causal_model(folder)


def test_a_weight_that_is_missing_is_never_made_up(
    family: str, model_folders: dict[str, Path], chat: ChatTokenizer, tmp_path: Path
) -> None:
    from safetensors.torch import load_file, save_file

    language, reward = copy_with(model_folders[family], tmp_path / "m"), tmp_path / "r"
    model = start_reward_model(language, chat.pad_id, 0)
    save_model(model, model.state_dict(), chat, reward, {})
    second = {"llama": "model.layers.1.input_layernorm.weight", "gpt2": "transformer.h.1.ln_1.weight"}[family]
    for folder, name, load in (
        (language, second, load_causal_model),
        (language, second, lambda path: start_reward_model(path, 3, 0)),
        (reward, "score.weight", load_reward_model),
    ):
        weights = load_file(folder / "model.safetensors")
        weights.pop(name, None)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(CheckpointError) as caught:
            load(folder)
        message = f"{folder}: its weights lack {name}, which its config.json asks for. Write the model again."
        assert str(caught.value) == message
    weights = {name: tensor for name, tensor in load_file(language / "model.safetensors").items() if ".1." not in name}
    save_file(weights, language / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"its weights lack \S+\.1\.\S+ and \d+ more, which"):
        load_causal_model(language)


def test_a_tokenizer_that_ends_otherwise_than_its_model_is_refused(
    family: str, models: dict[str, Any], chat: ChatTokenizer
) -> None:
    other = type(models[family])(type(models[family].config)(**models[family].config.to_dict() | {"eos_token_id": 7}))
    with pytest.raises(CheckpointError, match=r"its tokenizer ends with id 2 \('</s>'\), its model with 7 "):
        check_vocabulary(other, chat)


def test_a_tokenizer_with_more_tokens_than_its_model_is_refused(
    family: str, models: dict[str, Any], chat: ChatTokenizer
) -> None:
    check_vocabulary(models[family], chat)
    tokens = chat.tokenizer.get_vocab()
    last = max(tokens, key=lambda token: tokens[token])
    small = type(models[family])(type(models[family].config)(**models[family].config.to_dict() | {"vocab_size": 399}))
    with pytest.raises(CheckpointError) as caught:
        check_vocabulary(small, chat)
    assert str(caught.value) == (
        f"{chat.folder}: its tokenizer gives {last!r} the id 399, and its model knows ids below 399. Give the "
        "tokenizer that the model was trained with."
    )


def test_models_are_loaded_in_float32(family: str, model_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "half"
    model = load_causal_model(model_folders[family])
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model.to(torch.bfloat16).save_pretrained(folder)
    for loaded in (load_causal_model(folder), start_reward_model(folder, 3, 0)):
        assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_a_new_score_head_is_normal_with_the_width_as_variance_and_follows_from_the_seed(
    family: str, model_folders: dict[str, Path], chat: ChatTokenizer
) -> None:
    heads = [start_reward_model(model_folders[family], chat.pad_id, seed).score.weight for seed in range(60)]
    again = start_reward_model(model_folders[family], chat.pad_id, 0)
    assert torch.equal(heads[0], again.score.weight)
    assert not torch.equal(heads[0], heads[1])
    assert heads[0].shape == (1, 32)
    assert again.config.pad_token_id == chat.pad_id
    deviation = float(torch.cat(heads).detach().std())
    # Of 1920 draws, within four standard errors.
    assert deviation == pytest.approx(33**-0.5, rel=4 / (2 * 1920) ** 0.5)


def test_a_reward_model_starts_with_the_trunk_of_the_language_model(
    family: str, model_folders: dict[str, Path], chat: ChatTokenizer
) -> None:
    reward = start_reward_model(model_folders[family], chat.pad_id, 0)
    language = load_causal_model(model_folders[family])
    trunk = getattr(reward, reward.base_model_prefix).state_dict()
    for name, tensor in getattr(language, language.base_model_prefix).state_dict().items():
        assert torch.equal(trunk[name], tensor)


def test_a_saved_model_is_read_back_with_its_card(
    family: str, model_folders: dict[str, Path], chat: ChatTokenizer, tmp_path: Path
) -> None:
    model, folder = load_causal_model(model_folders[family]), tmp_path / "model"
    weights = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    save_model(model, weights, chat, folder, {"stage": "sft", "parents": {"model": "abc"}})
    assert read_card(folder) == {"stage": "sft", "parents": {"model": "abc"}, "digest": digest_model(folder)}
    for name, tensor in load_causal_model(folder).state_dict().items():
        assert torch.equal(tensor, weights[name])
    assert read_card(model_folders[family]) == {}


def test_a_saved_model_takes_the_place_of_an_older_one_whole(
    model_folders: dict[str, Path], chat: ChatTokenizer, tmp_path: Path
) -> None:
    model, folder = load_causal_model(model_folders["llama"]), tmp_path / "model"
    folder.mkdir()
    (folder / "old.safetensors").write_text("old")
    torn = tmp_path / "model.tmp"
    torn.mkdir()
    (torn / "half.safetensors").write_text("half")
    save_model(model, model.state_dict(), chat, folder, {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]


def test_a_model_that_cannot_be_written_leaves_the_older_one(
    model_folders: dict[str, Path], chat: ChatTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = load_causal_model(model_folders["llama"]), tmp_path / "model"
    save_model(model, model.state_dict(), chat, folder, {"stage": "first"})

    def refuse(folder: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(chat, "save", refuse)
    with pytest.raises(CheckpointError) as caught:
        save_model(model, model.state_dict(), chat, folder, {"stage": "second"})
    assert str(caught.value) == (
        f"{folder}: could not be written: [Errno 28] No space left on device. Free some space and start again."
    )
    assert read_card(folder)["stage"] == "first"
    load_causal_model(folder)
