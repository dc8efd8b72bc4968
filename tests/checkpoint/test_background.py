"""Writing beside training, on two ranks whose writers and trainers are slow at different times."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from llmtrain.checkpoint.agreement import gather_from_all, own_rank, raise_together
from llmtrain.checkpoint.background import BackgroundWriter, ForegroundWriter
from llmtrain.errors import CheckpointError
from tests.helpers.ranks import RankError, run_ranks

WORLD_SIZE = 2
LIMIT_SECONDS = 60.0


def train_one_step() -> float:
    """A collective of training, on the default group."""
    total = torch.ones(3)
    dist.all_reduce(total)
    return float(total[0])


def train_until_written(writer: BackgroundWriter, release: threading.Event | None = None) -> tuple[int, Path]:
    """Steps until `poll` hands the result over; the write is released after the third."""
    steps = 0
    while True:
        assert train_one_step() == WORLD_SIZE
        steps += 1
        if steps == 3 and release is not None:
            release.set()
        written = writer.poll()
        if written is not None:
            return steps, written


def write_and_train(folder: Path) -> dict[str, Any]:
    """What each rank saw of saves that go well, fail, and are waited for."""
    rank, writer = own_rank(), BackgroundWriter(LIMIT_SECONDS)
    release = threading.Event()
    facts: dict[str, Any] = {"idle": (writer.poll(), writer.wait())}
    threads = []

    def write(group: dist.ProcessGroup | None) -> Path:
        threads.append(threading.current_thread().name)
        if rank == 1:
            assert release.wait(LIMIT_SECONDS)
        talk = [gather_from_all(rank + turn, group) for turn in range(50)]
        return folder / str(sum(map(sum, talk)))

    writer.start(write)
    facts["seen"], written = train_until_written(writer, release)
    facts["written"] = written.name
    facts["beside"] = threads[0] != threading.current_thread().name

    def fail(group: dist.ProcessGroup | None) -> Path:
        raise_together("rank 1: disk full" if rank == 1 else None, group)
        return folder

    writer.start(fail)
    try:
        train_until_written(writer)
    except CheckpointError as error:
        facts["failed"] = str(error)
    facts["after failure"] = writer.poll()
    writer.start(write)
    facts["waited"] = writer.wait()
    writer.start(fail)
    facts["closed"] = str(writer.close())
    return facts


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(WORLD_SIZE, write_and_train, tmp_path_factory.mktemp("background"))


def test_training_goes_on_while_a_rank_writes_and_all_see_the_end_after_the_same_step(
    facts: list[dict[str, Any]],
) -> None:
    assert facts[0]["seen"] == facts[1]["seen"]
    assert facts[0]["seen"] >= 3
    assert facts[0]["written"] == facts[1]["written"] == str(sum(2 * turn + 1 for turn in range(50)))
    assert all(rank["beside"] for rank in facts)


def test_a_failure_reaches_all_ranks_with_the_message_of_the_one(facts: list[dict[str, Any]]) -> None:
    assert [rank["failed"] for rank in facts] == ["rank 1: disk full"] * 2
    assert [rank["after failure"] for rank in facts] == [None, None]


def test_an_idle_writer_has_nothing_and_a_pending_write_can_be_waited_for(facts: list[dict[str, Any]]) -> None:
    assert [rank["idle"] for rank in facts] == [(None, None)] * 2
    assert all(isinstance(rank["waited"], Path) for rank in facts)


def test_closing_waits_and_tells_what_failed(facts: list[dict[str, Any]]) -> None:
    assert [rank["closed"] for rank in facts] == ["rank 1: disk full"] * 2


def break_on_one_rank(folder: Path) -> None:
    """A mistake in the program on rank 1, while rank 0 waits for it in the background."""
    rank, writer = own_rank(), BackgroundWriter(LIMIT_SECONDS)

    def write(group: dist.ProcessGroup | None) -> Path:
        if rank == 1:
            raise ZeroDivisionError("a bug")
        gather_from_all(rank, group)
        return folder

    writer.start(write)
    try:
        train_until_written(writer)
    finally:
        (folder / f"end-{rank}.json").write_text(json.dumps({"ended": True}))


def test_a_bug_on_one_rank_ends_that_rank_instead_of_hanging(tmp_path: Path) -> None:
    with pytest.raises(RankError, match=r"rank 1 of 2:[\s\S]*ZeroDivisionError: a bug"):
        run_ranks(WORLD_SIZE, break_on_one_rank, tmp_path)
    assert (tmp_path / "end-1.json").exists()


def test_in_the_foreground_the_write_is_over_when_it_has_begun(tmp_path: Path) -> None:
    writer, groups = ForegroundWriter(), []

    def write(group: dist.ProcessGroup | None) -> Path:
        groups.append(group)
        return tmp_path

    writer.start(write)
    assert groups == [None]
    assert writer.poll() == tmp_path
    assert writer.poll() is None
    assert writer.wait() is None
    assert writer.close() is None
