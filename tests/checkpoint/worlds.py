"""What the tests of saving and loading do on ranks: a world of one and a world of two, running at the same time.

Each saves its own checkpoints and loads the other's. Both return facts; the tests only look at facts.
"""

import logging
import math
import shutil
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from llmtrain.checkpoint import load
from llmtrain.checkpoint.agreement import gather_from_all
from llmtrain.checkpoint.find import list_checkpoints
from llmtrain.checkpoint.fragments import held_fragments
from llmtrain.checkpoint.load import load_checkpoint
from llmtrain.checkpoint.manifest import MANIFEST_NAME, STATES, encode_manifest, read_manifest
from llmtrain.checkpoint.read import read_state_dict
from llmtrain.checkpoint.tensor_file import PieceReader, write_tensor_file
from llmtrain.errors import CheckpointError
from tests.checkpoint.engines import GLOBAL_BATCH_SIZE, build_engine, full_states, full_weights, save, train

CASES = [(0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"), (2, "bf16"), (3, "bf16")]
SAVED_BY_ONE = [(0, "fp32"), (1, "fp32"), (3, "bf16")]
SAVED_AT, TRAINED_TO = 3, 6
PROGRESS = {"loss_sums": [0.1, 1e-300, 2.0**60], "steps": 7, "note": None}

Facts = dict[str, Any]


def case_name(zero_stage: int, dtype: str) -> str:
    return f"zero{zero_stage}-{dtype}"


def are_equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Bit for bit, same names."""
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


def wait_for_checkpoint(folder: Path) -> Path:
    """The commit protocol is what makes this safe: a directory that is listed is whole."""
    deadline = time.monotonic() + 60
    while not list_checkpoints(folder):
        if time.monotonic() > deadline:
            raise TimeoutError(folder)
        time.sleep(0.02)
    return list_checkpoints(folder)[0]


def read_all_states(checkpoint: Path) -> dict[str, torch.Tensor]:
    return {f"{state}/{k}": v for state in STATES for k, v in read_state_dict(checkpoint, state).items()}


def world_of_two(folder: Path) -> Facts:
    """Train, save, go on; load into a fresh engine, go on; then load what the other world saved."""
    logging.disable(logging.WARNING)
    facts: Facts = {case_name(*case): run_resume_case(folder / "two" / case_name(*case), *case) for case in CASES}
    facts["loaded"] = load_everywhere(folder / "one", SAVED_BY_ONE, [1, 2, 3, 0])
    facts["reads"] = {
        stage: count_reads(wait_for_checkpoint(folder / "one" / "zero0-fp32"), stage) for stage in (0, 1, 3)
    }
    return facts


def world_of_one(folder: Path) -> Facts:
    """Save, then load what the other world saved; then wrong things."""
    logging.disable(logging.WARNING)
    facts: Facts = {}
    for case in SAVED_BY_ONE:
        engine = build_engine(*case, seed=7)
        train(engine, 0, SAVED_AT)
        save(folder / "one" / case_name(*case), engine, SAVED_AT)
    facts["loaded"] = load_everywhere(folder / "two", CASES, [0, 1, 2, 3])
    facts["continued"] = continue_after_change_of_layout(folder / "two" / case_name(2, "fp32"), folder / "moved")
    facts["refused"] = collect_refusals(folder)
    facts["saved twice"] = save_the_same_state_twice(folder / "twice")
    facts["fresh"] = save_before_the_first_step(folder / "fresh")
    return facts


def run_resume_case(folder: Path, zero_stage: int, dtype: str) -> Facts:
    engine = build_engine(zero_stage, dtype)
    train(engine, 0, SAVED_AT)
    checkpoint = save(folder, engine, SAVED_AT, validation_loss=2.5, progress=PROGRESS, parent="p")
    saved = full_states(engine)
    weights_when_saved = full_weights(engine)
    losses = train(engine, SAVED_AT, TRAINED_TO)
    fresh = build_engine(zero_stage, dtype, seed=1)
    state = load_checkpoint(checkpoint, fresh)
    facts: Facts = {
        "state": state,
        "read equals engine": are_equal(read_all_states(checkpoint), saved),
        "loaded states equal": are_equal(full_states(fresh), saved),
        "loaded parameters equal": are_equal(full_weights(fresh), weights_when_saved),
        "counters": (fresh.global_steps, fresh.global_samples, fresh.micro_steps, fresh.skipped_steps),
        "counters of the saved run": (SAVED_AT, SAVED_AT * GLOBAL_BATCH_SIZE, 2 * SAVED_AT, 0),
        "losses": losses,
        "resumed losses": train(fresh, SAVED_AT, TRAINED_TO),
        "final states equal": are_equal(full_states(fresh), full_states(engine)),
        "final parameters equal": are_equal(full_weights(fresh), full_weights(engine)),
    }
    facts["mean losses"] = [sum(ranks) / len(ranks) for ranks in zip(*gather_from_all(losses), strict=True)]
    return facts


def load_everywhere(folder: Path, cases: list[tuple[int, str]], zero_stages: list[int]) -> dict[tuple[str, int], bool]:
    """Load each saved state into each stage; what DeepSpeed then gathers must be what was saved."""
    saved = {case_name(*case): wait_for_checkpoint(folder / case_name(*case)) for case in cases}
    engines = {stage: build_engine(stage, seed=2) for stage in zero_stages}
    equal = {}
    for stage, engine in engines.items():
        for name, checkpoint in saved.items():
            load_checkpoint(checkpoint, engine)
            equal[name, stage] = are_equal(full_states(engine), read_all_states(checkpoint))
    return equal


def count_reads(checkpoint: Path, zero_stage: int) -> Facts:
    """Load into an engine of another layout; bytes read, bytes of the largest read, bytes held."""
    sizes: list[int] = []
    alive: list[weakref.ref[torch.Tensor]] = []
    overlaps = 0

    class CountingReader(PieceReader):
        def _read(self, *args: Any) -> torch.Tensor:
            nonlocal overlaps
            values = super()._read(*args)
            sizes.append(values.nbytes)
            overlaps += sum(reference() is not None for reference in alive)
            alive[:] = [weakref.ref(values)]
            return values

    engine = build_engine(zero_stage, seed=3)
    own = [flat.nbytes for fragment in held_fragments(engine) for flat in fragment.states.values()]
    with patch.object(load, "PieceReader", CountingReader):
        load_checkpoint(checkpoint, engine)
    tensors = [4 * math.prod(tensor.shape) for tensor in read_manifest(checkpoint).tensors.values()]
    return {
        "read": sum(sizes),
        "held": sum(own),
        "all": sum(tensors),
        "largest read": max(sizes),
        "largest tensor": max(tensors),
        "reads that overlap": overlaps,
    }


def continue_after_change_of_layout(source: Path, target: Path) -> Facts:
    checkpoint = wait_for_checkpoint(source)
    engine = build_engine(3, seed=4)
    load_checkpoint(checkpoint, engine)
    saved_again = save(target, engine, SAVED_AT)
    return {
        "digests": (read_manifest(checkpoint).weights_digest, read_manifest(saved_again).weights_digest),
        "losses": train(engine, SAVED_AT, TRAINED_TO),
    }


def collect_refusals(folder: Path) -> dict[str, str]:
    checkpoint = wait_for_checkpoint(folder / "two" / case_name(1, "fp32"))
    forged = folder / "forged" / checkpoint.name
    shutil.copytree(checkpoint, forged)
    forge_weights(forged)
    engine = build_engine(1)
    attempts = {
        "other width": (checkpoint, build_engine(0, width=8)),
        "other names": (checkpoint, build_engine(0, extra_names=True)),
        "forged weights": (forged, engine),
    }
    refusals = {}
    for name, (path, target) in attempts.items():
        try:
            load_checkpoint(path, target)
        except CheckpointError as error:
            refusals[name] = str(error)
    (forged / "rank00001.safetensors").unlink()
    actions: dict[str, Callable[[], object]] = {
        "missing file": lambda: load_checkpoint(forged, engine),
        "bf16 optimizer": lambda: save(folder / "never", build_engine(1, "bf16", grad_accum_dtype="fp32"), 1),
    }
    for name, action in actions.items():
        try:
            action()
        except CheckpointError as error:
            refusals[name] = str(error)
    refusals["left behind"] = str(sorted(path.name for path in folder.glob("never/*")))
    return refusals


def forge_weights(checkpoint: Path) -> None:
    """Exchange one file for a valid one with other weights, and let the manifest agree."""
    manifest = read_manifest(checkpoint)
    tensors = {
        piece.key: torch.full(piece.shape, 0.5)
        for tensor in manifest.tensors.values()
        for piece in tensor.pieces
        if piece.file == "rank00001.safetensors"
    }
    entry = write_tensor_file(checkpoint / "rank00001.safetensors", tensors)
    changed = manifest.model_copy(update={"files": {**manifest.files, "rank00001.safetensors": entry}})
    (checkpoint / MANIFEST_NAME).write_bytes(encode_manifest(changed))


def save_the_same_state_twice(folder: Path) -> Facts:
    engine = build_engine(1)
    train(engine, 0, 1)
    checkpoint = save(folder, engine, 1, progress={"a": 1.0})
    before = (checkpoint / "rank00000.safetensors").stat().st_ino
    again = save(folder, engine, 1, validation_loss=3.5, progress={"b": 2.0})
    manifest = read_manifest(checkpoint)
    facts: Facts = {
        "same directory": again == checkpoint,
        "files untouched": (checkpoint / "rank00000.safetensors").stat().st_ino == before,
        "measured": (manifest.validation_loss, manifest.progress),
    }
    train(engine, 1, 2)
    save(folder, engine, 1)
    facts["other state replaces it"] = are_equal(read_all_states(checkpoint), full_states(engine))
    return facts


def save_before_the_first_step(folder: Path) -> Facts:
    engine = build_engine(1)
    checkpoint = save(folder, engine, 0)
    resumed = build_engine(3, seed=5)
    load_checkpoint(checkpoint, resumed)
    untouched = build_engine(3)
    return {
        "optimizer step": read_manifest(checkpoint).optimizer_step,
        "same losses": train(resumed, 0, 2) == train(untouched, 0, 2),
    }
