"""`llmtrain data show`: documents of prepared data, with where each comes from and how its text begins.

In: a data folder and a question (a sample, an id, a token). Out: lines to print.
"""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from llmtrain.errors import ConfigError, DataError
from llmtrain.shards.reader import ShardedTokens, open_data
from llmtrain.shards.trace import TracedDocument, Tracer, escape_unprintable
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer

Split = Literal["train", "validation"]
_SHOWN_TOKENS = 60
_ID = re.compile("[0-9a-f]{32}")


def check_question(
    sample: int | None,
    document: str | None,
    token: int | None,
    step: int | None,
    source: str | None,
    split: Split | None,
    run: Path | None,
) -> None:
    """Look whether options of the command go together.

    Raises:
        ConfigError: they do not.
    """
    if sum(question is not None for question in (sample, document, token, step)) > 1:
        raise ConfigError("data show: give one of --sample, --document, --token and --step.")
    if (step is None) != (run is None):
        raise ConfigError("data show: --step and --run belong together. Example: --step 100 --run runs/quickstart.")
    if (document is not None or step is not None) and (source is not None or split is not None):
        name, asked = (
            ("--source" if source is not None else "--split"),
            ("--step" if document is None else "--document"),
        )
        raise ConfigError(
            f"data show: {name} does not go with {asked}, which looks at every source it concerns. Leave it out, or "
            "ask with --sample or --token."
        )


def show_sample(folder: Path, split: Split, source: str | None, count: int) -> Iterator[str]:
    """Some documents of each source, the same at every call.

    Args:
        folder: `data.folder`.
        split: of the documents.
        source: of the documents; None = each.
        count: documents of a source.
    """
    tokenizer = Tokenizer.load(folder / "tokenizer")
    for name, shards in _open(folder, split, tokenizer, source).items():
        tracer = Tracer(shards)
        numbers = range(shards.document_count)
        for number in sorted(random.Random(name).sample(numbers, min(count, len(numbers)))):
            document = tracer.trace_number(number)
            yield from describe(document)
            yield _show_text(shards, tokenizer, document.start, document.length)


def show_document(folder: Path, document_id: str) -> Iterator[str]:
    """Every place of a document in the data.

    Raises:
        DataError: the id is none, or no document has it.
    """
    if not _ID.fullmatch(document_id):
        raise DataError(
            f"document '{document_id}': an id has 32 digits, 0-9 and a-f. `llmtrain data show {folder}` shows some."
        )
    tokenizer, found = Tokenizer.load(folder / "tokenizer"), False
    splits: tuple[Split, ...] = ("train", "validation")
    for split in splits:
        for shards in _open(folder, split, tokenizer).values():
            for document in Tracer(shards).trace_id(document_id):
                found = True
                yield from describe(document)
                yield _show_text(shards, tokenizer, document.start, document.length)
    if not found:
        raise DataError(
            f"document {document_id}: no source in {folder} has it. Cleaning or deduplication may have dropped it; see "
            f"{folder / 'report.md'}."
        )


def show_token(folder: Path, split: Split, source: str | None, position: int) -> Iterator[str]:
    """The document that a token of a source's stream belongs to, and its text from 30 tokens before that one on.

    Raises:
        DataError: no source is named, or its stream is shorter.
    """
    if source is None:
        raise DataError(f"token {position:,}: each source has a stream of its own. Name one with --source.")
    tokenizer = Tokenizer.load(folder / "tokenizer")
    shards = _open(folder, split, tokenizer, source)[source]
    document = Tracer(shards).trace_position(position)
    yield from describe(document)
    start = max(document.start, position - _SHOWN_TOKENS // 2)
    yield _show_text(shards, tokenizer, start, document.start + document.length - start)


def describe(document: TracedDocument) -> Iterator[str]:
    """What is known of a document."""
    origin, end = document.origin, document.start + document.length
    yield f"{document.source}/{document.split}, document {document.number:,}: {origin.id}"
    yield f"  origin   {escape_unprintable(origin.origin)}"
    if origin.place:
        yield f"  read in  {escape_unprintable(origin.place)}"
    language = f", language {origin.language}" if origin.language else ""
    yield f"  licence  {escape_unprintable(origin.licence + language)}"
    yield f"  tokens   {document.length:,}, from {document.start:,} to {end - 1:,}"


def _open(folder: Path, split: Split, tokenizer: Tokenizer, source: str | None = None) -> dict[str, ShardedTokens]:
    """Shards of a source, or of each, whose ids mean what this tokenizer says."""
    opened = open_data(folder, split, [source] if source else [])
    for shards in opened.values():
        if shards.manifest.tokenizer_sha256 != tokenizer.sha256:
            raise DataError(
                f"{shards.folder}: was made with tokenizer {shards.manifest.tokenizer_sha256[:12]}, the folder holds "
                f"{tokenizer.sha256[:12]}. Run `llmtrain data prepare CONFIG` with this source, or remove its shards."
            )
    return opened


def _show_text(shards: ShardedTokens, tokenizer: Tokenizer, start: int, length: int) -> str:
    ids = shards.read(start, min(length, _SHOWN_TOKENS)).tolist()
    return f"  text     {escape_unprintable(json.dumps(tokenizer.render(ids), ensure_ascii=False))}"
