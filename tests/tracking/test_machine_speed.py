"""What a machine does at most: figures that all ranks agree on, within a machine and between machines."""

import dataclasses
from pathlib import Path

import psutil
import pytest
import torch
import torch.distributed as dist

from llmtrain.errors import MachineError, ParallelError
from llmtrain.process.world import World
from llmtrain.tracking import machine_speed
from llmtrain.tracking.machine_speed import MachineSpeed, Spread, measure_machine, read_memory_limit
from tests.helpers.ranks import run_ranks

CPU = torch.device("cpu")


def shrink() -> None:
    """Make a measurement take a moment; what it finds is not looked at."""
    machine_speed.ROUNDS = 3
    machine_speed._PRODUCT_SECONDS = 0.01
    machine_speed._FILE_BYTES = machine_speed._SUM_BYTES["cpu"] = machine_speed._TERM_BYTES["cpu"] = 1 << 20


def measure_twice(folder: str) -> list[MachineSpeed]:
    """As one machine with two ranks, then as two machines with one each."""
    shrink()
    rank = dist.get_rank()
    worlds = (World(rank, 2, rank, 2), World(rank, 2, 0, 1))
    return [measure_machine(CPU, world, Path(folder)) for world in worlds]


def list_spreads(speed: MachineSpeed) -> list[Spread]:
    fields = [getattr(speed, field.name) for field in dataclasses.fields(speed)]
    sums = [sums for sums in (speed.link, speed.network) if sums is not None]
    own = [value for value in fields if isinstance(value, Spread)]
    return own + [spread for found in sums for spread in (found.small, found.large)]


def test_ranks_agree_on_figures_of_one_machine_and_of_two(tmp_path: Path) -> None:
    first, second = run_ranks(2, measure_twice, str(tmp_path), timeout=200)
    assert first == second
    together, apart = first
    assert (together.nodes, together.ranks_per_node, apart.nodes, apart.ranks_per_node) == (1, 2, 2, 1)
    assert together.link is not None
    assert apart.network is not None
    assert (together.network, apart.link) == (None, None)
    assert together.link.ranks == apart.network.ranks == 2
    assert together.link.small.median < together.link.large.median
    assert apart.memory_bytes == pytest.approx(2 * together.memory_bytes, abs=1)
    for speed in first:
        spreads = list_spreads(speed)
        assert len(spreads) == 7
        assert all(0 < spread.least <= spread.median <= spread.most for spread in spreads)
    assert list(tmp_path.iterdir()) == []


def fail_to_measure(folder: str) -> list[str]:
    shrink()
    messages = []
    for world, place in ((World(), f"{folder}/absent"), (World(0, 3, 0, 2), folder)):
        try:
            measure_machine(CPU, world, Path(place))
        except (MachineError, ParallelError) as error:
            messages.append(str(error))
    return messages


def test_a_folder_that_cannot_be_written_and_unequal_machines_are_refused(tmp_path: Path) -> None:
    (storage, machines), *_ = run_ranks(1, fail_to_measure, str(tmp_path))
    assert storage == (
        f"{tmp_path}/absent: files of 1 MiB for each rank cannot be written: No such file or directory. Give --folder "
        "a folder with free space that can be written."
    )
    assert machines == (
        "cluster measure: 3 ranks are no multiple of the 2 on this machine. Start equally many on each."
    )


def test_memory_is_that_of_the_host_or_the_least_limit_of_its_control_group(tmp_path: Path) -> None:
    without, with_limit = tmp_path / "memory.max", tmp_path / "limit_in_bytes"
    without.write_text("max\n")
    with_limit.write_text("1048576\n")
    assert read_memory_limit([without, tmp_path / "absent"]) == psutil.virtual_memory().total
    assert read_memory_limit([without, with_limit]) == 1 << 20
