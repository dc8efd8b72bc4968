import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from data_pipelines.gigatoken_encoder import GigatokenEncoder, make_probes
from data_pipelines.train_tokenizer import train_tokenizer
from llmtrain.config.corpus import TokenizerConfig
from llmtrain.errors import DataError, MachineError
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from tests.helpers.texts import stdlib_texts

LETTERS = (" ", "\n", "\t", "a", "the", "é", "e\u0301", "日本", "🙂", "0", "\u2581", "self.")
NAMES = ("<", "<s", "<s>", "<0x41>", "<|end|>")


class OtherIds:
    """Reads whatever SentencePiece reads, and gives one id too many."""

    def encode(self, text: str) -> NDArray[np.uint32]:
        return np.array([5, 6, 7], np.uint32)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    config = TokenizerConfig(vocab_size=2000, train_characters=400_000)
    return train_tokenizer({"code": lambda: iter(stdlib_texts())}, config, tmp_path_factory.mktemp("t") / "tokenizer")


@pytest.fixture(scope="module")
def encoder(tokenizer: Tokenizer) -> GigatokenEncoder:
    return GigatokenEncoder(tokenizer)


def encode(encoder: GigatokenEncoder, texts: Sequence[str]) -> list[list[int]]:
    ids, lengths = encoder.encode(texts)
    return [row.tolist() for row in np.split(ids, np.cumsum(lengths)[:-1])]


def test_the_ids_of_real_text_and_of_probes_are_those_of_sentencepiece(
    tokenizer: Tokenizer, encoder: GigatokenEncoder
) -> None:
    texts = [*stdlib_texts(), *make_probes()]
    assert encode(encoder, texts) == [tokenizer.encode(text) for text in texts]


def test_a_text_that_spells_the_name_of_a_piece_stays_text(tokenizer: Tokenizer, encoder: GigatokenEncoder) -> None:
    texts = [f"(?P{tokenizer.processor.id_to_piece(i)}x)" for i in range(tokenizer.vocab_size)]
    assert encode(encoder, texts) == [tokenizer.encode(text) for text in texts]
    assert all(tokenizer.bos_id not in ids for ids in encode(encoder, ["<s>", "a<s>b</s><pad><|user|>"]))


@given(st.lists(st.tuples(st.sampled_from(LETTERS + NAMES), st.integers(1, 40)), max_size=8))
@settings(max_examples=200, deadline=None)
def test_any_text_has_the_ids_of_sentencepiece(
    tokenizer: Tokenizer, encoder: GigatokenEncoder, runs: list[tuple[str, int]]
) -> None:
    text = "".join(fragment * count for fragment, count in runs)
    assert encode(encoder, [text]) == [tokenizer.encode(text)]


def test_no_text_at_all_has_no_ids(encoder: GigatokenEncoder) -> None:
    ids, lengths = encoder.encode([])
    assert (len(ids), len(lengths)) == (0, 0)


def test_other_ids_on_the_first_texts_are_refused_with_the_place(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = GigatokenEncoder(tokenizer)
    monkeypatch.setattr(encoder, "_gigatoken", OtherIds())
    with pytest.raises(DataError, match=r"'def f\(x\): pass'.* token 0 on .* \[5, 6, 7\] in gigatoken.*Set it to"):
        encoder.encode(["def f(x): pass"])


def test_other_ids_are_found_while_it_works(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = GigatokenEncoder(tokenizer)
    encoder.encode(stdlib_texts())
    monkeypatch.setattr(encoder, "_gigatoken", OtherIds())
    assert encode(encoder, ["x = 1"]) == [[5, 6, 7]]  # not one that is compared
    with pytest.raises(DataError, match="in gigatoken"):
        encoder.encode([f"x = {number}" for number in range(2000)])


def test_what_it_remembers_is_bounded(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, loads = GigatokenEncoder(tokenizer), 0
    load = encoder._load

    def count(twin: str) -> Any:
        nonlocal loads
        loads += 1
        return load(twin)

    monkeypatch.setattr(encoder, "_load", count)
    monkeypatch.setattr("data_pipelines.gigatoken_encoder._REMEMBERED_CHARACTERS", 100_000)
    texts = stdlib_texts()
    assert encode(encoder, texts) == [tokenizer.encode(text) for text in texts]
    assert loads >= sum(map(len, texts)) // 200_000


def test_without_the_package_the_remedy_is_named(tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gigatoken", None)
    with pytest.raises(MachineError, match=r"corpus\.tokenizer\.accelerator = gigatoken.*llmtrain\[gigatoken\].*null"):
        GigatokenEncoder(tokenizer)
