"""A checkpoint counts when it is whole."""

import json
from pathlib import Path

import pytest

from llmtrain.errors import CheckpointError
from llmtrain.posttraining.checkpoints import (
    COMPLETE_NAME,
    check_ranks,
    commit_checkpoint,
    find_checkpoint,
    remove_torn,
)


def write(folder: Path, step: int, keep_last: int | None = 2) -> Path:
    """A checkpoint with a file in a folder of its own; without a number to keep, it stays torn."""
    checkpoint = folder / f"checkpoint-{step}"
    (checkpoint / "global_step").mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"x" * 1234)
    (checkpoint / "global_step" / "rank0.pt").write_bytes(b"y" * step)
    if keep_last is not None:
        commit_checkpoint(checkpoint, step, keep_last)
    return checkpoint


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_whole_checkpoint_is_found_by_its_number(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path) is None
    assert find_checkpoint(tmp_path / "none") is None
    for step in (9, 10, 100):
        write(tmp_path, step, keep_last=5)
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoint-100"
    recorded = json.loads((tmp_path / "checkpoint-9" / COMPLETE_NAME).read_text())
    assert recorded == {
        "step": 9,
        "world_size": 1,
        "zero_stage": 0,
        "files": {"model.safetensors": 1234, "global_step/rank0.pt": 9},
    }


def test_a_torn_checkpoint_is_passed_over_and_removed(tmp_path: Path) -> None:
    write(tmp_path, 5)
    write(tmp_path, 10, keep_last=None)
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    remove_torn(tmp_path)
    assert names(tmp_path) == ["checkpoint-5"]
    remove_torn(tmp_path / "none")


def test_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10, 20):
        write(tmp_path, step, keep_last=2)
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-20"]
    write(tmp_path, 21, keep_last=1)
    assert names(tmp_path) == ["checkpoint-21"]


def test_a_torn_checkpoint_takes_no_place_of_a_whole_one(tmp_path: Path) -> None:
    write(tmp_path, 1)
    write(tmp_path, 2, keep_last=None)
    write(tmp_path, 3, keep_last=2)
    assert names(tmp_path) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "checkpoint-best"
    other.mkdir()
    (other / COMPLETE_NAME).write_text("{}")
    write(tmp_path, 3, keep_last=1)
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert other.is_dir()


@pytest.mark.parametrize("name", ["model.safetensors", "global_step/rank0.pt"])
def test_a_file_of_another_size_is_refused(name: str, tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 1100)
    size = (checkpoint / name).stat().st_size
    (checkpoint / name).write_bytes(b"z" * 10)
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"{checkpoint / name}: 10 bytes, was {size:,} bytes when it was saved. Remove {checkpoint} to resume from the "
        "one before."
    )


def test_a_file_that_is_gone_is_refused(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 5)
    (checkpoint / "model.safetensors").unlink()
    with pytest.raises(CheckpointError) as caught:
        find_checkpoint(tmp_path)
    assert str(caught.value) == (
        f"{checkpoint}/model.safetensors: missing, was 1,234 bytes when it was saved. Remove {checkpoint} to resume "
        "from the one before."
    )


def test_after_the_damaged_one_is_removed_the_one_before_is_found(tmp_path: Path) -> None:
    write(tmp_path, 5)
    damaged = write(tmp_path, 10)
    (damaged / COMPLETE_NAME).unlink()
    remove_torn(tmp_path)
    assert find_checkpoint(tmp_path) == tmp_path / "checkpoint-5"


def test_a_checkpoint_committed_twice_is_whole(tmp_path: Path) -> None:
    checkpoint = write(tmp_path, 5)
    (checkpoint / "later.json").write_text("{}")
    commit_checkpoint(checkpoint, 5, 2)
    assert find_checkpoint(tmp_path) == checkpoint


def test_pieces_of_zero_are_refused_on_another_number_of_ranks(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-3"
    folder.mkdir()
    commit_checkpoint(folder, 3, keep_last=1, world_size=2, zero_stage=1)
    check_ranks(folder, 2)
    with pytest.raises(CheckpointError, match=r"saved by 2 ranks under ZeRO, this run has 4\. Continue on 2"):
        check_ranks(folder, 4)
    commit_checkpoint(folder, 3, keep_last=1, world_size=2, zero_stage=0)
    check_ranks(folder, 4)
