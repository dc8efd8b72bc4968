"""Commands `checkpoint list`, `verify`, `show` and `convert`."""

import math
import re
from collections import Counter
from pathlib import Path

import rich.box
from rich.console import Console
from rich.table import Table

from llmtrain.checkpoint.convert import DtypeName, convert_checkpoint
from llmtrain.checkpoint.find import find_step, list_checkpoints, verify_checkpoint
from llmtrain.checkpoint.manifest import Manifest, parse_step
from llmtrain.config.compare import find_changes
from llmtrain.config.loader import validate
from llmtrain.errors import CheckpointError, ConfigError
from llmtrain.stages.run_folder import CONFIG_NAME, load_run_config


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


def show_checkpoint(run_folder: Path, step: int | None) -> None:
    """All that is known about one checkpoint without reading a tensor, on standard output.

    Args:
        run_folder: e.g. runs/quickstart.
        step: which checkpoint; None = the newest.

    Raises:
        CheckpointError: there is no such checkpoint, or files are missing or have other sizes.
    """
    checkpoint = _list(run_folder)[0] if step is None else find_step(run_folder / "checkpoints", step)
    manifest = verify_checkpoint(checkpoint, "size")
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for name, value in _describe(manifest):
        console.print(f"{name:<16}  {value}")
    parameters = Table("parameter", "shape", "how many", box=rich.box.SIMPLE_HEAD)
    groups = Counter((re.sub(r"\.\d+\.", ".*.", name), shape) for name, shape in manifest.parameter_shapes.items())
    for (name, shape), count in groups.items():
        parameters.add_row(name, " x ".join(map(str, shape)), str(count))
    console.print(parameters)
    for line in _describe_changes(manifest, run_folder):
        console.print(line)


def convert(run_folder: Path, step: int, output: Path, dtype: DtypeName) -> None:
    """Write the weights of a checkpoint as plain safetensors files.

    Args:
        run_folder: e.g. runs/quickstart.
        step: which checkpoint.
        output: folder to make.
        dtype: of the written tensors.

    Raises:
        CheckpointError: there is no such checkpoint, it is damaged, or the folder cannot be written.
    """
    checkpoint = find_step(run_folder / "checkpoints", step)
    verify_checkpoint(checkpoint, "full")
    convert_checkpoint(checkpoint, output, dtype)


def _describe(manifest: Manifest) -> list[tuple[str, str]]:
    size = sum(entry.bytes for entry in manifest.files.values())
    count = sum(math.prod(shape) for shape in manifest.parameter_shapes.values())
    loss = "not measured" if manifest.validation_loss is None else f"{manifest.validation_loss:.4f}"
    return [
        ("step", f"{manifest.step:,}"),
        ("samples", f"{manifest.consumed_samples:,}"),
        ("validation loss", loss),
        ("parameters", f"{count:,} in {len(manifest.parameter_shapes)} tensors"),
        ("files", f"{len(manifest.files)} files, {size:,} bytes"),
        ("weights digest", manifest.weights_digest),
        ("continues", manifest.parent or "nothing"),
        ("layout", ", ".join(f"{name} {value}" for name, value in manifest.layout.items())),
        ("versions", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
    ]


def _describe_changes(manifest: Manifest, run_folder: Path) -> list[str]:
    """Keys of the run that have changed since the checkpoint was made."""
    try:
        changes = find_changes(validate(manifest.config, {}), load_run_config(run_folder))
    except ConfigError as error:
        return [f"configuration: cannot be compared: {error}"]
    if not changes:
        return [f"configuration: as in {run_folder / CONFIG_NAME}"]
    return [f"configuration: {len(changes)} keys differ from {run_folder / CONFIG_NAME}:"] + [
        f"  {key}: {saved} when saved, {now} now" for key, saved, now in changes
    ]


def _list(run_folder: Path) -> list[Path]:
    checkpoints = list_checkpoints(run_folder / "checkpoints")
    if not checkpoints:
        raise CheckpointError(f"{run_folder / 'checkpoints'}: no checkpoint. Train first: llmtrain pretrain CONFIG.")
    return checkpoints
