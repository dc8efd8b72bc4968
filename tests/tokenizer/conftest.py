from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_pipelines.train_tokenizer import train_tokenizer
from llmtrain.config.corpus import TokenizerConfig
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from tests.helpers.texts import stdlib_texts


@pytest.fixture(scope="session", params=["bpe", "unigram"])
def tokenizer_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer of each kind, trained on modules of the standard library."""
    folder = tmp_path_factory.mktemp(request.param) / "tokenizer"
    texts: dict[str, Callable[[], Iterator[str]]] = {"code": lambda: iter(stdlib_texts())}
    train_tokenizer(texts, TokenizerConfig(algorithm=request.param, vocab_size=600, train_characters=200_000), folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_folder)
