import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from llmtrain.checkpoint.find import find_latest, list_checkpoints, verify_checkpoint
from llmtrain.checkpoint.manifest import MANIFEST_NAME, read_manifest
from llmtrain.errors import CheckpointError
from tests.checkpoint.small import file_name, flip_bit, make_checkpoint


def truncate(checkpoint: Path) -> None:
    path = checkpoint / file_name(1)
    path.write_bytes(path.read_bytes()[:-100])


def fill_with_zeros(checkpoint: Path) -> None:
    path = checkpoint / file_name(1)
    path.write_bytes(bytes(path.stat().st_size))


def swap_rank_files(checkpoint: Path) -> None:
    first, second, aside = checkpoint / file_name(0), checkpoint / file_name(1), checkpoint / "aside"
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def use_shard_of_other_step(checkpoint: Path) -> None:
    other = make_checkpoint(checkpoint.parent / "other", 99) / file_name(1)
    (checkpoint / file_name(1)).write_bytes(other.read_bytes())


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped bit": (
        lambda c: flip_bit(c / file_name(1), -3),
        r"rank00001\.safetensors: sha256 is .* the manifest says",
    ),
    "flipped header bit": (lambda c: flip_bit(c / file_name(1), 20), r"rank00001\.safetensors: sha256"),
    "truncated": (truncate, r"rank00001\.safetensors: [\d,]+ bytes, the manifest says [\d,]+\."),
    "zero-filled": (fill_with_zeros, r"rank00001\.safetensors: sha256"),
    "missing shard": (lambda c: (c / file_name(1)).unlink(), r"rank00001\.safetensors: missing"),
    "swapped shards": (swap_rank_files, r"rank0000[01]\.safetensors: (sha256|[\d,]+ bytes)"),
    "shard of another step": (use_shard_of_other_step, r"rank00001\.safetensors: sha256"),
    "missing manifest": (lambda c: (c / MANIFEST_NAME).unlink(), r"manifest\.json: missing"),
    "flipped manifest digit": (lambda c: flip_bit(c / MANIFEST_NAME, -30), r"manifest\.json: "),
    "empty manifest": (lambda c: (c / MANIFEST_NAME).write_bytes(b""), r"manifest\.json: not readable as JSON"),
    "renamed directory": (lambda c: c.rename(c.with_name("step-00000009")), "its manifest is of step 2"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_checkpoint_is_refused_by_name_and_the_one_before_it_is_used(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good, newer = make_checkpoint(tmp_path, 1), make_checkpoint(tmp_path, 2)
    apply, message = DAMAGES[damage]
    apply(newer)
    newest = list_checkpoints(tmp_path)[0]
    with pytest.raises(CheckpointError, match=message):
        verify_checkpoint(newest, "full")
    with caplog.at_level(logging.WARNING):
        assert find_latest(tmp_path, "full") == good
    assert newest.name in caplog.text


def test_size_check_finds_truncation_but_not_a_flipped_bit(tmp_path: Path) -> None:
    first, second = make_checkpoint(tmp_path, 1), make_checkpoint(tmp_path, 2)
    flip_bit(second / file_name(0), -3)
    assert find_latest(tmp_path, "size") == second
    truncate(second)
    assert find_latest(tmp_path, "size") == first


def test_newest_step_wins_by_number_whatever_the_pointer_says(tmp_path: Path) -> None:
    for step in (9, 10, 100_000_000, 99_999_999):
        make_checkpoint(tmp_path, step)
    (tmp_path / "latest.json").write_text('{"checkpoint": "../elsewhere"}')
    (tmp_path / "step-00000500.tmp").mkdir()
    (tmp_path / "step-00000501.trash").mkdir()
    (tmp_path / "step-1").mkdir()
    (tmp_path / "notes.txt").write_text("kept by a person")
    steps = [read_manifest(checkpoint).step for checkpoint in list_checkpoints(tmp_path)]
    assert steps == [100_000_000, 99_999_999, 10, 9]
    assert find_latest(tmp_path) == tmp_path / "step-100000000"


def test_no_checkpoint_at_all_is_none(tmp_path: Path) -> None:
    assert find_latest(tmp_path) is None
    assert find_latest(tmp_path / "absent") is None


def test_only_damaged_checkpoints_stop_the_run_instead_of_starting_again(tmp_path: Path) -> None:
    for step in (1, 2):
        truncate(make_checkpoint(tmp_path, step))
    with pytest.raises(CheckpointError, match=r"2 checkpoints, none is whole") as raised:
        find_latest(tmp_path)
    assert "step-00000001" in str(raised.value)
    assert "step-00000002" in str(raised.value)
    assert "run.name" in str(raised.value)
