import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sentencepiece

from data_pipelines.document import Document, identify
from data_pipelines.splits import is_validation
from data_pipelines.train_tokenizer import _SETTINGS, _make_sums_exact, train_tokenizer
from data_pipelines.write_shards import write_shards
from llmtrain.config.corpus import TokenizerConfig
from llmtrain.errors import DataError, MemoryExhaustedError
from llmtrain.shards.reader import ShardedTokens, open_data
from llmtrain.tokenizer.fast_conversion import PROBES
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from llmtrain.tokenizer.special_tokens import BOS_ID, EOS_ID
from tests.helpers.texts import stdlib_texts

DOCUMENTS = [piece for text in stdlib_texts() for piece in text.split("\n\n") if piece]
SETTINGS: dict[str, Any] = {
    "source": "code",
    "licence": "PSF-2.0",
    "provenance": {"modules": 11},
    "validation_fraction": 0.1,
    "shard_tokens": 20_000,
}
SPACES = (
    "a  b \u2581c\u2581 d \u2581",
    "\u2581\u2581 x",
    " \n \n  x  \n",
    " ",
    "\u2581",
    "a\u00a0b\u3000c d",
    "x" * 5000 + " " * 3000 + "x" * 5000,
)
SPANS_WORDS = {"split_by_whitespace": False}
ADDS_PREFIX = {"add_dummy_prefix": True}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    config = TokenizerConfig(vocab_size=500, train_characters=100_000)
    return train_tokenizer({"code": lambda: iter(DOCUMENTS)}, config, tmp_path_factory.mktemp("t") / "tokenizer")


@pytest.fixture(scope="module")
def unigram() -> Tokenizer:
    model = io.BytesIO()
    settings = _SETTINGS | {"vocab_size": 600, "model_type": "unigram"}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(DOCUMENTS[::8]), model_writer=model, **settings)
    return Tokenizer(model.getvalue())


def as_documents(texts: Iterable[str]) -> Iterator[Document]:
    for number, text in enumerate(texts):
        yield Document(text, f"lib/{number}.py", "PSF-2.0", "python", identify(text))


def is_held_out(text: str) -> bool:
    return is_validation(identify(text), 0.1)


def read_ids(folder: Path) -> list[list[int]]:
    """Ids of the documents of a split, without their first and last."""
    shards = ShardedTokens(folder)
    documents = []
    for shard, start in enumerate(shards.shard_starts[:-1].tolist()):
        first = 0
        for end in shards.document_ends(shard).tolist():
            ids = shards.read(start + first, end - first).tolist()
            assert (ids[0], ids[-1]) == (BOS_ID, EOS_ID)
            documents.append(ids[1:-1])
            first = end
    return documents


def decode_documents(folder: Path, tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode(ids) for ids in read_ids(folder)]


def test_every_document_is_in_exactly_one_split_as_it_was(tokenizer: Tokenizer, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_shards(
        as_documents(DOCUMENTS), tmp_path, tokenizer, workers=2, progress=lambda *row: seen.append(row), **SETTINGS
    )
    train = decode_documents(tmp_path / "train", tokenizer)
    validation = decode_documents(tmp_path / "validation", tokenizer)
    assert train == [text for text in DOCUMENTS if not is_held_out(text)]
    assert validation == [text for text in DOCUMENTS if is_held_out(text)]
    assert len(ShardedTokens(tmp_path / "train").manifest.shards) > 1
    assert sum(documents for documents, _ in seen) == len(DOCUMENTS)
    assert sum(characters for _, characters in seen) == sum(map(len, DOCUMENTS))


def test_the_shards_do_not_depend_on_workers_batches_and_accelerator(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write_shards(as_documents(DOCUMENTS), tmp_path / "one", tokenizer, workers=1, **SETTINGS)
    monkeypatch.setattr("data_pipelines.write_shards._BATCH_CHARACTERS", 3000)
    for accelerator in (None, "gigatoken"):
        many = write_shards(
            as_documents(DOCUMENTS), tmp_path / "many", tokenizer, workers=3, accelerator=accelerator, **SETTINGS
        )
        assert one == many


def test_few_texts_are_in_memory_at_a_time(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipelines.write_shards._BATCH_CHARACTERS", 1)  # a document per batch
    read, written, most = 0, 0, 0

    def texts() -> Iterator[str]:
        nonlocal read, most
        for text in DOCUMENTS:
            read += 1
            most = max(most, read - written)
            yield text

    def note(documents: int, _: int) -> None:
        nonlocal written
        written += documents

    write_shards(as_documents(texts()), tmp_path, tokenizer, workers=2, progress=note, **SETTINGS)
    assert read == written == len(DOCUMENTS)
    assert most <= 2 * 3 + 1  # workers, batches under way in each; the one that is being read


@pytest.mark.parametrize("settings", [{"model_type": "bpe"}, {"model_type": "unigram"}, SPANS_WORDS, ADDS_PREFIX])
def test_the_ids_are_those_of_the_whole_text(settings: dict[str, Any], tmp_path: Path) -> None:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(DOCUMENTS[::4]), model_writer=model, **_SETTINGS | {"vocab_size": 600} | settings
    )
    tokenizer = Tokenizer(_make_sums_exact(model.getvalue()))
    texts = [*PROBES, *SPACES, *DOCUMENTS]
    write_shards(as_documents(texts), tmp_path, tokenizer, workers=2, **SETTINGS)
    for split in ("train", "validation"):
        chosen = [text for text in texts if is_held_out(text) == (split == "validation")]
        assert read_ids(tmp_path / split) == [tokenizer.encode(text) for text in chosen]


def test_the_accelerated_ids_are_those_of_the_whole_text(tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = [*PROBES, *SPACES, *DOCUMENTS]
    write_shards(as_documents(texts), tmp_path, tokenizer, workers=1, accelerator="gigatoken", **SETTINGS)
    for split in ("train", "validation"):
        chosen = [text for text in texts if is_held_out(text) == (split == "validation")]
        assert read_ids(tmp_path / split) == [tokenizer.encode(text) for text in chosen]


def test_an_accelerator_that_a_worker_cannot_use_is_refused(
    tmp_path: Path, unigram: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipelines.write_shards._BATCH_CHARACTERS", 3000)
    with pytest.raises(DataError, match="accelerator = gigatoken: it does not read tokenizer"):
        write_shards(as_documents(DOCUMENTS), tmp_path, unigram, workers=2, accelerator="gigatoken", **SETTINGS)
    assert list(tmp_path.rglob("manifest.json")) == []


def test_a_worker_that_the_system_ends_is_explained(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipelines.write_shards._BATCH_CHARACTERS", 3000)
    monkeypatch.setattr("data_pipelines.write_shards._start_worker", os._exit)
    with pytest.raises(MemoryExhaustedError, match=r"corpus\.workers = 2: the system ended a worker.*Set fewer"):
        write_shards(as_documents(DOCUMENTS), tmp_path, tokenizer, workers=2, **SETTINGS)
    assert list(tmp_path.rglob("manifest.json")) == []


def test_the_manifest_tells_what_the_shards_are(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_shards(as_documents(DOCUMENTS), tmp_path / "shards" / "code", tokenizer, workers=1, **SETTINGS)
    opened = open_data(tmp_path, "train")["code"]
    opened.verify()
    assert opened.manifest.tokenizer_sha256 == tokenizer.sha256
    assert (opened.manifest.licence, opened.manifest.provenance) == ("PSF-2.0", {"modules": 11})


def test_a_split_without_documents_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a single document of source 'code'"):
        write_shards(
            as_documents(text for text in DOCUMENTS if not is_held_out(text)),
            tmp_path,
            tokenizer,
            workers=1,
            **SETTINGS,
        )


def test_a_full_disk_names_the_folder_and_leaves_no_manifest(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llmtrain.shards.writer.os.fsync", fail)
    with pytest.raises(DataError, match=r"No space left on device.*Free some space"):
        write_shards(as_documents(DOCUMENTS), tmp_path, tokenizer, workers=1, **SETTINGS)
    assert list(tmp_path.rglob("manifest.json")) == []
