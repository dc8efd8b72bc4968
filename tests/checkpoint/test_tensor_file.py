import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from llmtrain.checkpoint.manifest import read_manifest
from llmtrain.checkpoint.tensor_file import PieceReader, count_tensor_bytes, hash_file, write_tensor_file
from llmtrain.errors import CheckpointError
from llmtrain.parallel.geometry import Box, whole_box
from tests.checkpoint.small import file_name, make_checkpoint, rows_of_rank, whole_tensor


def test_safetensors_library_reads_what_is_written(tmp_path: Path) -> None:
    tensors = {
        "matrix@0,0": torch.randn(3, 5),
        "scalar@": torch.tensor(2.5),
        "view@1": torch.randn(4, 6)[:, 2],
        "bits": torch.tensor([float("nan"), float("-inf"), -0.0]),
    }
    entry = write_tensor_file(tmp_path / "file", tensors)
    loaded = load_file(tmp_path / "file")
    assert loaded.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert loaded[key].shape == tensor.shape
        assert torch.equal(loaded[key].reshape(-1).view(torch.int32), tensor.reshape(-1).view(torch.int32))
    assert entry.bytes == (tmp_path / "file").stat().st_size >= count_tensor_bytes(tensors)
    assert entry.sha256 == hash_file(tmp_path / "file") == hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()


def test_boxes_are_read_across_pieces(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 3, num_ranks=3)
    logical = read_manifest(checkpoint).tensors["exp_avg/w"]
    whole = whole_tensor(3, "exp_avg")
    with PieceReader(checkpoint) as reader:
        for box in (whole_box((6, 40)), Box((1, 7), (4, 20)), Box((3, 39), (1, 1)), Box((0, 0), (2, 40))):
            target = torch.empty(box.shape)
            reader.read_into(target, logical, box)
            assert torch.equal(target, whole[box.slices]), box


def test_only_the_files_that_are_needed_are_opened(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 3, num_ranks=3)
    (checkpoint / file_name(2)).unlink()
    logical = read_manifest(checkpoint).tensors["weights/w"]
    with PieceReader(checkpoint) as reader:
        target = torch.empty(4, 40)
        reader.read_into(target, logical, Box((0, 0), (4, 40)))
        assert torch.equal(target, whole_tensor(3, "weights")[:4])
        with pytest.raises(CheckpointError, match=r"rank00002\.safetensors: cannot read weights/w@4,0"):
            reader.read_into(torch.empty(1, 40), logical, Box((5, 0), (1, 40)))


def test_piece_of_another_shape_is_refused(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 3)
    logical = read_manifest(checkpoint).tensors["weights/w"]
    wrong = {key: tensor[:2] for key, tensor in rows_of_rank(3, 0, 2).items()}
    write_tensor_file(checkpoint / file_name(0), wrong)
    with (
        PieceReader(checkpoint) as reader,
        pytest.raises(CheckpointError, match=r"weights/w@0,0 is F32 \(2, 40\), the manifest says F32 \(3, 40\)"),
    ):
        reader.read_into(torch.empty(6, 40), logical, whole_box((6, 40)))


def test_file_that_lacks_a_piece_is_named(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 3)
    logical = read_manifest(checkpoint).tensors["weights/w"]
    write_tensor_file(checkpoint / file_name(1), {"something": torch.zeros(3)})
    with (
        PieceReader(checkpoint) as reader,
        pytest.raises(CheckpointError, match=r"rank00001\.safetensors: cannot read weights/w@3,0"),
    ):
        reader.read_into(torch.empty(6, 40), logical, whole_box((6, 40)))
