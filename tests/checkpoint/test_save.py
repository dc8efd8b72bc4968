import math
from pathlib import Path

import pytest
import torch
from torch import nn

from llmtrain.checkpoint.find import verify_checkpoint
from llmtrain.checkpoint.fragments import get_optimizer_steps
from llmtrain.checkpoint.manifest import STATES
from llmtrain.checkpoint.save import Destination, write_snapshot
from llmtrain.checkpoint.snapshot import Snapshot, TrainingState
from llmtrain.errors import CheckpointError
from tests.checkpoint.engines import KEEP_ALL, fake_engine
from tests.checkpoint.worlds import CASES, PROGRESS, Facts, case_name

Worlds = tuple[Path, Facts, list[Facts]]

PARAMETERS = {"embedding.weight", "norm.weight", "norm.bias", "up.weight", "up.bias", "kernel", "down.weight"}


@pytest.mark.parametrize("case", CASES)
def test_manifest_tells_what_was_saved(case: tuple[int, str], worlds: Worlds) -> None:
    zero_stage, dtype = case
    manifest = verify_checkpoint(worlds[0] / "two" / case_name(*case) / "step-00000003", "full")
    assert (manifest.step, manifest.consumed_samples, manifest.optimizer_step) == (3, 24, 3)
    assert (manifest.validation_loss, manifest.progress, manifest.parent) == (2.5, PROGRESS, "p")
    assert manifest.config == {"model": "odd"}
    assert manifest.layout == {
        "world_size": 2,
        "data_parallel_size": 2,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "zero_stage": zero_stage,
        "parameter_dtype": {"fp32": "float32", "bf16": "bfloat16"}[dtype],
    }
    assert {"python", "torch", "deepspeed", "llmtrain"} <= manifest.versions.keys()
    assert manifest.tensors.keys() == {f"{state}/{name}" for state in STATES for name in PARAMETERS}


@pytest.mark.parametrize("case", CASES)
def test_ranks_share_the_writing_evenly_and_write_nothing_twice(case: tuple[int, str], worlds: Worlds) -> None:
    manifest = verify_checkpoint(worlds[0] / "two" / case_name(*case) / "step-00000003", "size")
    assert manifest.files.keys() == {"rank00000.safetensors", "rank00001.safetensors"}
    numbers = dict.fromkeys(manifest.files, 0)
    for tensor in manifest.tensors.values():
        for piece in tensor.pieces:
            numbers[piece.file] += math.prod(piece.shape)
    total = sum(math.prod(tensor.shape) for tensor in manifest.tensors.values())
    assert sum(numbers.values()) == total
    assert max(numbers.values()) < 0.55 * total


@pytest.mark.parametrize("case", [case_name(*case) for case in CASES])
def test_tensors_read_back_are_the_engines_own(case: str, worlds: Worlds) -> None:
    assert all(facts[case]["read equals engine"] for facts in worlds[2])


def test_digest_does_not_depend_on_ranks_and_stage(worlds: Worlds) -> None:
    saved_by_two_at_stage_2, saved_by_one_at_stage_3 = worlds[1]["continued"]["digests"]
    assert saved_by_two_at_stage_2 == saved_by_one_at_stage_3


def test_same_state_is_not_written_twice_but_takes_new_measurements(worlds: Worlds) -> None:
    facts = worlds[1]["saved twice"]
    assert facts["same directory"]
    assert facts["files untouched"]
    assert facts["measured"] == (3.5, {"b": 2.0})
    assert facts["other state replaces it"]


def test_checkpoint_before_the_first_step_starts_the_same_run(worlds: Worlds) -> None:
    assert worlds[1]["fresh"] == {"optimizer step": 0, "same losses": True}


def test_master_weights_that_cannot_be_reached_are_refused(worlds: Worlds) -> None:
    for word in ("BF16_Optimizer", "ZeRO-1", "precision.parameter_dtype=float32"):
        assert word in worlds[1]["refused"]["bf16 optimizer"]
    assert worlds[1]["refused"]["left behind"] == "[]"


def test_parameters_updated_unequally_are_refused(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model.weight.grad = torch.ones(2, 3)
    optimizer.step()
    snapshot = Snapshot(TrainingState(1, 8), [], get_optimizer_steps(fake_engine(model, optimizer)), {}, {})
    with pytest.raises(CheckpointError, match=r"updated some parameters 0 times, others 1.*gets no gradient"):
        write_snapshot(snapshot, Destination(tmp_path, {}, KEEP_ALL))
    assert list(tmp_path.iterdir()) == []
