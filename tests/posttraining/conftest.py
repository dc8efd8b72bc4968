"""Tiny models of both families with a tokenizer made here, and small files of records. Seconds, once a session."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from data_pipelines.train_tokenizer import train_tokenizer
from llmtrain.config.corpus import TokenizerConfig
from llmtrain.posttraining.chat import ChatTokenizer, load_chat_tokenizer
from llmtrain.tokenizer.fast_conversion import save_fast
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from tests.helpers.texts import stdlib_texts

FAMILIES = ("llama", "gpt2")
POSITIONS = 96


@pytest.fixture(scope="session")
def plain_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    """A SentencePiece tokenizer of 400 pieces."""
    config = TokenizerConfig(algorithm="bpe", vocab_size=400, train_characters=100_000)
    folder = tmp_path_factory.mktemp("chat") / "tokenizer"
    return train_tokenizer({"code": lambda: iter(stdlib_texts())}, config, folder)


@pytest.fixture(scope="session")
def tokenizer_files(plain_tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same tokenizer as `transformers` reads it, without a chat template."""
    folder = tmp_path_factory.mktemp("fast")
    save_fast(plain_tokenizer, folder, POSITIONS)
    return folder


@pytest.fixture(scope="session")
def chat(tokenizer_files: Path) -> ChatTokenizer:
    return load_chat_tokenizer(tokenizer_files)


def build_config(family: str, vocab_size: int) -> Any:
    """Two layers, hidden size 32."""
    from transformers import GPT2Config, LlamaConfig

    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    if family == "llama":
        return LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=POSITIONS,
            initializer_range=0.2,
            **ids,
        )
    return GPT2Config(
        vocab_size=vocab_size,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=POSITIONS,
        initializer_range=0.2,
        resid_pdrop=0.1,
        embd_pdrop=0.1,
        attn_pdrop=0.1,
        **ids,
    )


@pytest.fixture(scope="session")
def make_folder(chat: ChatTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], Path]:
    """Saves a fresh language model with its tokenizer; weights follow from the seed."""
    from transformers import AutoModelForCausalLM

    def make(family: str, seed: int) -> Path:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(build_config(family, len(chat.tokenizer)))
        folder = tmp_path_factory.mktemp(family)
        model.save_pretrained(folder)
        chat.save(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def model_folders(make_folder: Callable[[str, int], Path]) -> dict[str, Path]:
    """A language model of each family."""
    return {family: make_folder(family, 0) for family in FAMILIES}


@pytest.fixture(scope="session")
def models(model_folders: dict[str, Path]) -> dict[str, Any]:
    """The same models in memory, in evaluation mode; tests leave them as they are."""
    from llmtrain.posttraining.models import load_causal_model

    return {family: load_causal_model(folder).eval() for family, folder in model_folders.items()}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """Rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def conversations_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty short conversations, a quarter of them with two turns."""
    rows = []
    for i in range(20):
        messages = [{"role": "user", "content": f"What is {i}?"}, {"role": "assistant", "content": f"It is {i}."}]
        if i % 4 == 0:
            messages += [{"role": "user", "content": "And then?"}, {"role": "assistant", "content": f"{i + 1}."}]
        rows.append({"messages": messages})
    return write_rows(tmp_path_factory.mktemp("records") / "conversations.jsonl", rows)


@pytest.fixture(scope="session")
def preferences_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pairs."""
    rows = [{"prompt": f"Name {i}.", "chosen": f"It is {i}.", "rejected": "No"} for i in range(20)]
    return write_rows(tmp_path_factory.mktemp("records") / "preferences.jsonl", rows)
