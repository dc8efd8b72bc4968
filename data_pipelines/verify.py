"""Check a data folder: tokenizer, manifests and every shard against their sha256, and that no source is missing."""

from pathlib import Path

from rich.console import Console

from data_pipelines.progress import show_stage
from llmtrain.errors import DataError
from llmtrain.shards.reader import ShardedTokens, open_data
from llmtrain.shards.source_list import LIST_NAME, SourceList, read_source_list
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer


def verify_data(folder: Path, console: Console | None = None) -> None:
    """Check everything.

    Args:
        folder: `data.folder`.
        console: where progress goes; default standard error.

    Raises:
        DataError: the first thing that is missing or damaged.
    """
    console = console or Console(stderr=True, highlight=False)
    tokenizer, listed = Tokenizer.load_verified(folder / "tokenizer"), read_source_list(folder)
    train, validation = open_data(folder, "train"), open_data(folder, "validation")
    if train.keys() != validation.keys():
        alone = ", ".join(sorted(train.keys() ^ validation.keys()))
        raise DataError(f"{folder}: one split is missing of {alone}. Run `llmtrain data prepare` again.")
    opened = [*train.values(), *validation.values()]
    with show_stage(console, "verify", len(opened), "splits") as advance:
        for shards in opened:
            _verify_split(shards, tokenizer.sha256)
            if listed is not None:
                _verify_manifest(shards, listed)
            advance(1)


def _verify_split(shards: ShardedTokens, tokenizer_sha256: str) -> None:
    if shards.manifest.tokenizer_sha256 != tokenizer_sha256:
        raise DataError(
            f"{shards.folder}: was made with tokenizer {shards.manifest.tokenizer_sha256[:12]}, the folder holds "
            f"{tokenizer_sha256[:12]}. Run `llmtrain data prepare` again."
        )
    try:
        shards.verify()
    except DataError as error:
        raise DataError(f"{error} Remove {shards.folder} first, or add data.verify=full to that command.") from error


def _verify_manifest(shards: ShardedTokens, listed: SourceList) -> None:
    expected = listed.manifests.get(shards.source, {}).get(shards.split)
    if shards.manifest_sha256 != expected:
        raise DataError(
            f"{shards.folder}: the sha256 of its manifest is {shards.manifest_sha256}, {LIST_NAME} says {expected}: "
            "changed, replaced, or not finished. Run `llmtrain data prepare` again."
        )
