"""Commands `checkpoint list` and `checkpoint verify`."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from llmtrain.checkpoint.find import list_checkpoints, verify_checkpoint
from llmtrain.checkpoint.manifest import parse_step
from llmtrain.errors import CheckpointError


def print_checkpoints(run_folder: Path) -> None:
    """A table of the checkpoints of a run, newest first, and what is wrong with damaged ones, on standard output.

    Raises:
        CheckpointError: there is none.
    """
    table = Table("step", "MB", "validation loss", "ranks", "whole")
    problems = []
    for checkpoint in _list(run_folder):
        try:
            manifest = verify_checkpoint(checkpoint, "size")
        except CheckpointError as error:
            table.add_row(str(parse_step(checkpoint)), "", "", "", "no")
            problems.append(str(error))
            continue
        loss = "" if manifest.validation_loss is None else f"{manifest.validation_loss:.4f}"
        size = sum(entry.bytes for entry in manifest.files.values()) / 1e6
        table.add_row(str(manifest.step), f"{size:,.1f}", loss, str(len(manifest.files)), "yes (sizes)")
    console = Console(soft_wrap=True, highlight=False)
    console.print(table)
    for problem in problems:  # too long for a cell
        console.print(problem, markup=False)


def verify_checkpoints(run_folder: Path) -> None:
    """Check every file of every checkpoint against its sha256.

    Raises:
        CheckpointError: some are damaged; all of them are named.
    """
    problems = []
    console = Console(soft_wrap=True, highlight=False)
    for checkpoint in _list(run_folder):
        try:
            verify_checkpoint(checkpoint, "full")
            console.print(f"{checkpoint.name}: whole")
        except CheckpointError as error:
            problems.append(str(error))
    if problems:
        raise CheckpointError("\n".join(problems))


def _list(run_folder: Path) -> list[Path]:
    checkpoints = list_checkpoints(run_folder / "checkpoints")
    if not checkpoints:
        raise CheckpointError(f"{run_folder / 'checkpoints'}: no checkpoint. Train first: llmtrain pretrain CONFIG.")
    return checkpoints
