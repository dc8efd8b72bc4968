import json
import logging
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmtrain.checkpoint import commit
from llmtrain.checkpoint.agreement import own_rank
from llmtrain.checkpoint.find import find_latest, verify_checkpoint
from llmtrain.checkpoint.manifest import FileEntry, Manifest
from llmtrain.checkpoint.read import read_state_dict
from llmtrain.errors import CheckpointError
from tests.checkpoint.small import file_name, flip_bit, make_checkpoint, make_manifest, rows_of_rank
from tests.helpers.ranks import RankError, run_ranks

ROOT = Path(__file__).parents[2]
WORLD_SIZE = 2


def save(folder: Path, step: int, num_ranks: int = 1) -> Path:
    def manifest(files: dict[str, FileEntry]) -> Manifest:
        return make_manifest(step, files, num_ranks)

    rank = own_rank()
    return commit.commit_checkpoint(folder, step, file_name(rank), rows_of_rank(step, rank, num_ranks), manifest)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_committed_checkpoint_is_whole_and_pointed_at(tmp_path: Path) -> None:
    checkpoint = save(tmp_path / "checkpoints", 10)
    assert names(checkpoint.parent) == ["latest.json", "step-00000010"]
    assert names(checkpoint) == ["manifest.json", "rank00000.safetensors"]
    assert verify_checkpoint(checkpoint, "full").step == 10
    assert json.loads((checkpoint.parent / "latest.json").read_text()) == {"checkpoint": "step-00000010"}


def test_damaged_checkpoint_of_the_same_step_is_replaced(tmp_path: Path) -> None:
    checkpoint = save(tmp_path, 10)
    flip_bit(checkpoint / file_name(0), -1)
    assert save(tmp_path, 10) == checkpoint
    assert verify_checkpoint(checkpoint, "full").step == 10
    assert names(tmp_path) == ["latest.json", "step-00000010"]


def test_leftovers_of_killed_runs_are_removed_and_nothing_else(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, 1)
    for name in ("step-00000002.tmp", "step-00000001.trash", "notes.tmp", "step-2.trash"):
        (tmp_path / name).mkdir()
    (tmp_path / "step-00000002.tmp" / file_name(0)).write_bytes(b"half")
    (tmp_path / "latest.json.tmp").write_text("{")
    removed = commit.remove_leftovers(tmp_path)
    assert sorted(path.name for path in removed) == ["latest.json.tmp", "step-00000001.trash", "step-00000002.tmp"]
    assert names(tmp_path) == ["notes.tmp", "step-00000001", "step-2.trash"]
    assert commit.remove_leftovers(tmp_path / "absent") == []


def test_pointer_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "latest.json").mkdir()
    with caplog.at_level(logging.WARNING):
        checkpoint = save(tmp_path, 3)
    assert "latest.json: not updated" in caplog.text
    assert find_latest(tmp_path) == checkpoint


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"step-00000003\.tmp: rank 0 could not write it: .*Not a directory"):
        save(tmp_path / "file", 3)


def test_kill_at_any_line_of_saving_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    program = [sys.executable, "-m", "tests.checkpoint.kill_points", str(tmp_path / "checkpoints")]
    result = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["lines"] > 100
    assert report["found"].keys() == {"step-00000001", "step-00000002"}
    assert report["leftovers"] > 50


def die_half_way(path: Path, tensors: object) -> None:
    path.write_bytes(b"half a file")
    os.kill(os.getpid(), signal.SIGKILL)


def fail_in_many_ways(folder: Path) -> None:
    """On two ranks: faults that every rank must report alike; at the end rank 1 dies while it writes."""
    rank = own_rank()
    facts: dict[str, Any] = {"saved": save(folder, 1, WORLD_SIZE).name}

    def try_to_save(fault: str) -> None:
        try:
            save(folder, 2, WORLD_SIZE)
        except CheckpointError as error:
            facts[fault] = str(error)
        facts[f"{fault} leaves"] = names(folder)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if rank == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try_to_save("file size limit on rank 1")
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    disk_usage = shutil.disk_usage
    shutil.disk_usage = lambda path: disk_usage(path)._replace(free=5)
    try_to_save("no room")
    shutil.disk_usage = disk_usage

    write_flushed = commit._write_flushed

    def refuse(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    commit._write_flushed = refuse
    try_to_save("manifest")
    commit._write_flushed = write_flushed

    damaged = save(folder, 3, WORLD_SIZE)
    if rank == 1:
        flip_bit(damaged / file_name(1), -1)
    latest = find_latest(folder, "full")
    facts["latest"] = latest.name if latest else None
    (folder.parent / f"facts-{rank}.json").write_text(json.dumps(facts))

    if rank == 1:
        setattr(commit, "write_tensor_file", die_half_way)  # noqa: B010  mypy forbids patching a foreign name
    save(folder, 4, WORLD_SIZE)


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("faults") / "checkpoints"
    with pytest.raises(RankError):
        run_ranks(WORLD_SIZE, fail_in_many_ways, folder)
    return folder, [json.loads((folder.parent / f"facts-{rank}.json").read_text()) for rank in range(WORLD_SIZE)]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("file size limit on rank 1", ["rank00001.safetensors: rank 1 could not write its 1,440 bytes", "Older"]),
        ("no room", ["a checkpoint needs 2,880 bytes, 5 are free", "checkpoint.keep_last"]),
        ("manifest", ["step-00000002: rank 0 could not write it", "No space left on device"]),
    ],
)
def test_all_ranks_report_the_rank_that_failed_and_leave_nothing_behind(
    fault: str, words: list[str], faults: tuple[Path, list[dict[str, Any]]]
) -> None:
    _, facts = faults
    assert facts[0][fault] == facts[1][fault]
    for word in words:
        assert word in facts[0][fault]
    assert facts[0][f"{fault} leaves"] == ["latest.json", "step-00000001"]


def test_ranks_share_the_verification_and_agree(faults: tuple[Path, list[dict[str, Any]]]) -> None:
    _, facts = faults
    assert [rank_facts["latest"] for rank_facts in facts] == ["step-00000001", "step-00000001"]


def test_rank_killed_while_writing_leaves_the_older_checkpoint(faults: tuple[Path, list[dict[str, Any]]]) -> None:
    folder, _ = faults
    assert "step-00000004" not in names(folder)
    latest = find_latest(folder, "full")
    assert latest == folder / "step-00000001"
    assert read_state_dict(latest)["w"].shape == (6, 40)
