"""Check a data folder: the tokenizer and every shard against their sha256."""

from pathlib import Path

from rich.console import Console

from data_pipelines.progress import show_stage
from llmtrain.shards.reader import open_data
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
    Tokenizer.load(folder / "tokenizer")
    opened = [*open_data(folder, "train").values(), *open_data(folder, "validation").values()]
    with show_stage(console, "verify", len(opened), "splits") as advance:
        for shards in opened:
            shards.verify()
            advance(1)
