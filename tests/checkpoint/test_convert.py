import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmtrain.checkpoint import convert
from llmtrain.checkpoint.convert import convert_checkpoint
from llmtrain.checkpoint.digest import combine_digests, compute_range_digest
from llmtrain.checkpoint.fragments import Fragment
from llmtrain.checkpoint.manifest import STATES, read_manifest
from llmtrain.checkpoint.read import read_state_dict
from llmtrain.checkpoint.save import Destination, write_snapshot
from llmtrain.checkpoint.snapshot import Snapshot, TrainingState
from llmtrain.errors import CheckpointError
from llmtrain.parallel.geometry import whole_box
from llmtrain.parallel.placement import Placement
from tests.checkpoint.engines import KEEP_ALL
from tests.checkpoint.small import flip_bit

SHAPES: dict[str, tuple[int, ...]] = {"a.weight": (4, 5), "b.bias": (7,), "b.weight": (2, 3)}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Three parameters, saved by one process."""
    generator = torch.Generator().manual_seed(0)
    fragments = []
    for name, shape in SHAPES.items():
        placement = Placement(name, shape, ((whole_box(shape), (0,) * len(shape)),))
        states: dict[str, torch.Tensor] = {
            state: torch.randn(torch.Size(shape).numel(), generator=generator) for state in STATES
        }
        fragments.append(Fragment(placement, shape, 0, states))
    snapshot = Snapshot(TrainingState(3, 24, 2.5), fragments, {3}, SHAPES, {"world_size": 1})
    return write_snapshot(snapshot, Destination(tmp_path / "checkpoints", {"model": "odd"}, KEEP_ALL))


def digest_of(tensors: dict[str, torch.Tensor]) -> str:
    digests = (compute_range_digest(name, tensor.float().view(-1), 0) for name, tensor in tensors.items())
    return f"{combine_digests(digests):016x}"


def test_one_file_holds_whole_float32_tensors_by_canonical_name(checkpoint: Path, tmp_path: Path) -> None:
    convert_checkpoint(checkpoint, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["metadata.json", "model.safetensors"]
    found, expected = load_file(tmp_path / "out" / "model.safetensors"), read_state_dict(checkpoint)
    assert found.keys() == expected.keys() == SHAPES.keys()
    assert all(torch.equal(found[name], expected[name]) for name in SHAPES)
    metadata = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert metadata["weights_digest"] == metadata["checkpoint_weights_digest"] == digest_of(found)
    assert (metadata["step"], metadata["consumed_samples"], metadata["validation_loss"]) == (3, 24, 2.5)
    assert metadata["shapes"] == {name: list(shape) for name, shape in SHAPES.items()}
    assert metadata["config"] == {"model": "odd"}
    assert metadata["versions"] == read_manifest(checkpoint).versions


def test_bfloat16_is_rounded_once_and_has_a_digest_of_its_own(checkpoint: Path, tmp_path: Path) -> None:
    convert_checkpoint(checkpoint, tmp_path / "out", "bfloat16")
    found, full = load_file(tmp_path / "out" / "model.safetensors"), read_state_dict(checkpoint)
    assert all(torch.equal(found[name], full[name].to(torch.bfloat16)) for name in SHAPES)
    metadata = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert metadata["dtype"] == "bfloat16"
    assert metadata["weights_digest"] == digest_of(found)
    assert metadata["weights_digest"] != metadata["checkpoint_weights_digest"] == digest_of(full)


def test_above_the_limit_there_are_several_files_and_an_index(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    convert_checkpoint(checkpoint, tmp_path / "out", max_file_bytes=60)
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    assert index["weight_map"] == {"a.weight": first, "b.bias": second, "b.weight": second}
    assert index["metadata"] == {"total_size": 4 * (20 + 7 + 6)}
    found = load_file(tmp_path / "out" / first) | load_file(tmp_path / "out" / second)
    assert digest_of(found) == read_manifest(checkpoint).weights_digest
    assert not (tmp_path / "out.tmp").exists()


def test_what_lies_in_the_folder_is_not_overwritten(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    with pytest.raises(CheckpointError, match=r"out: is there already and is not empty. Choose another folder"):
        convert_checkpoint(checkpoint, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


def test_a_damaged_checkpoint_is_not_converted(checkpoint: Path, tmp_path: Path) -> None:
    flip_bit(checkpoint / "rank00000.safetensors", len((checkpoint / "rank00000.safetensors").read_bytes()) - 4 * 99)
    with pytest.raises(CheckpointError, match=r"its weights have digest \w{16}, the manifest says \w{16}: damaged"):
        convert_checkpoint(checkpoint, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_what_does_not_read_back_is_refused(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoil(tensors: dict[str, torch.Tensor], path: Path, metadata: dict[str, str]) -> None:
        save_file({**tensors, "b.bias": tensors["b.bias"] + 1}, path, metadata)

    monkeypatch.setattr(convert, "save_file", spoil)
    with pytest.raises(CheckpointError, match=r"what was written has digest \w{16}, it should have \w{16}"):
        convert_checkpoint(checkpoint, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_folder_that_cannot_be_made_is_named(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"file/out: could not be written: .*Not a directory"):
        convert_checkpoint(checkpoint, tmp_path / "file" / "out")
