"""What `llmtrain plan` tells of the data: tokens on disk, tokens drawn and epochs of each source.

In: `Config`, `Plan`, the data folder. Out: `MixtureUse` where the data is prepared; text on standard output.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import rich.box
from rich.console import Console
from rich.table import Table

from llmtrain.config.data import DataConfig
from llmtrain.config.root import Config
from llmtrain.plan.build import Plan

if TYPE_CHECKING:  # numpy, which a plan without data starts without
    from llmtrain.data.epochs import MixtureUse


def _has_shards(config: DataConfig) -> bool:
    """Whether every source of the mixture has a folder of training shards."""
    root = config.folder / "shards"
    if not config.sources:
        return any(root.glob("*/train"))
    return all((root / name / "train").is_dir() for name in config.sources)


def find_mixture_use(config: Config, plan: Plan) -> "MixtureUse | None":
    """What the run will draw from each source; None where its data is not prepared.

    Raises:
        DataError: shards are damaged, or the mixture cannot be made from them.
    """
    if not _has_shards(config.data):
        return None
    from llmtrain.data.epochs import compute_mixture_use
    from llmtrain.shards.reader import open_data

    return compute_mixture_use(config, plan, open_data(config.data.folder, "train", list(config.data.sources)))


def sources_to_dict(use: "MixtureUse | None") -> dict[str, Any] | None:
    """Everything that is printed, for JSON."""
    return None if use is None else dataclasses.asdict(use)


def print_sources(console: Console, use: "MixtureUse | None", config: DataConfig) -> None:
    """A row for each source; one line where the data is not prepared."""
    if use is None:
        console.print(
            f"\n  epochs of each source: not known before `llmtrain data prepare`: no shards in {config.folder}"
        )
        return
    table = Table("source", "tokens on disk", "share", "tokens drawn", "epochs", box=rich.box.SIMPLE_HEAD)
    for source in use.sources:
        shares = ", then ".join(f"{share:.1%}" for share in source.shares)
        cells = (f"{source.tokens:,}", shares, f"{source.drawn_tokens:,}", f"{source.epochs:.2f}")
        table.add_row(source.name, *cells)
    console.print(table)
    if len(use.first_steps) > 1:
        borders = ", ".join(f"{step:,}" for step in use.first_steps[1:])
        console.print(f"  shares change at optimizer step {borders}")
    if not use.is_packed:
        console.print("  rows are counted as if they were full: they are packed when training starts")
