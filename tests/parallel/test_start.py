import socket
from datetime import timedelta
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist

from llmtrain.errors import HangError, LostRankError, ParallelError
from llmtrain.parallel.start import explain_timeout, find_interface, limit_waiting, start_distributed
from llmtrain.process.world import World
from tests.helpers.nodes import pick_port
from tests.helpers.ranks import run_ranks

ANOTHER = "198.51.100.7"


def find_outside_address() -> str | None:
    """An address of this machine that is not loopback."""
    addresses = [entry for entries in psutil.net_if_addrs().values() for entry in entries]
    return next((a.address for a in addresses if a.family == socket.AF_INET and not a.address.startswith("127.")), None)


def wait_for_a_rank_that_never_comes(port: int) -> str:
    rank = dist.get_rank()
    dist.destroy_process_group()
    try:
        start_distributed(World(rank, 3, 0, 1, "127.0.0.1", port), 60, 3)
    except ParallelError as error:
        return str(error)
    return "met"


def test_a_rank_that_never_comes_is_named_by_all_that_came() -> None:
    port = pick_port()
    messages = run_ranks(2, wait_for_a_rank_that_never_comes, port)
    for rank, message in enumerate(messages):
        assert message == (
            f"rank {rank}: 2 of 3 ranks came to 127.0.0.1:{port} within 3 s; missing: 2. Check that every node was "
            "started, with the same number of nodes and the same MASTER_ADDR and MASTER_PORT."
        )
    assert ParallelError.exit_code == 3


def test_a_port_that_is_taken_is_said_at_once() -> None:
    with socket.socket() as holder:
        holder.bind(("", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(ParallelError, match=rf"rank 0: port {port} is taken on this machine.*Set MASTER_PORT"):
            start_distributed(World(0, 2, 0, 2, "127.0.0.1", port), 60, 60)


def test_a_first_rank_that_is_not_there_is_said_with_its_address() -> None:
    port = pick_port()
    with pytest.raises(ParallelError, match=rf"rank 1: nobody answered at 127\.0\.0\.1:{port} within 1 s\. Check that"):
        start_distributed(World(1, 2, 0, 1, "127.0.0.1", port), 60, 1)


@pytest.mark.parametrize("master", ["127.0.0.1", "127.0.0.2", "localhost"])
def test_ranks_that_meet_on_loopback_use_it(master: str) -> None:
    assert find_interface(World(1, 2, 1, 2, master, 1)) == "lo"
    assert find_interface(World(1, 2, 0, 1, master, 1)) == "lo"


def test_ranks_that_meet_elsewhere_use_the_interface_that_leads_there() -> None:
    outside = find_outside_address()
    found = find_interface(World(1, 2, 0, 1, outside or ANOTHER, 1))
    assert found != "lo"
    assert (found is None) == (outside is None)
    if found is not None:
        assert outside in [entry.address for entry in psutil.net_if_addrs()[found]]


def test_a_name_that_means_loopback_here_is_not_told_to_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "127.0.1.1")
    assert find_interface(World(0, 4, 0, 2, "node0", 1)) != "lo"
    assert find_interface(World(0, 2, 0, 2, "node0", 1)) == "lo"


def test_one_process_and_an_unknown_name_leave_the_choice_to_gloo(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> Any:
        raise socket.gaierror("unknown")

    assert find_interface(World()) is None
    monkeypatch.setattr(socket, "gethostbyname", fail)
    assert find_interface(World(0, 2, 0, 1, "nowhere", 1)) is None


def wait_in_a_group_of_its_own() -> str:
    group = dist.new_group([0, 1])
    limit_waiting(1.0)
    if dist.get_rank() == 1:
        dist.monitored_barrier(timeout=timedelta(seconds=30))  # leaves rank 0 alone in its collective
        return ""
    try:
        with explain_timeout(World(0, 2, 0, 2, "127.0.0.1", 1), 1.0):
            dist.all_reduce(torch.zeros(1), group=group)
    except HangError as error:
        dist.monitored_barrier(timeout=timedelta(seconds=30))
        return str(error)
    return "met"


def test_every_group_has_the_time_limit_and_its_end_is_a_hang() -> None:
    message, _ = run_ranks(2, wait_in_a_group_of_its_own)
    assert message.startswith("rank 0 on ")
    assert "waited 1 s for another rank (parallel.communication_timeout_seconds)" in message
    assert HangError.exit_code == 124


def test_another_error_stays_what_it_is() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), explain_timeout(World(), 1.0):
        raise RuntimeError("shapes differ")


def come_twice(port: int) -> str:
    rank = dist.get_rank()
    dist.destroy_process_group()
    try:
        start_distributed(World(1 if rank == 2 else rank, 3, 0, 1, "127.0.0.1", port), 60, 5)
    except ParallelError as error:
        return str(error)
    return "met"


def test_a_rank_that_was_started_twice_is_said() -> None:
    messages = run_ranks(3, come_twice, pick_port())
    assert any("rank 1: came to 127.0.0.1:" in message and "twice" in message for message in messages)
    assert "missing: 2" in messages[0]


def test_a_lost_rank_is_said_without_the_frames_of_libraries() -> None:
    refused = pytest.raises(LostRankError, match=r"rank 0 on .*: lost another rank.* Start again")
    with refused as caught, explain_timeout(World(), 60):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:12345")
    assert caught.value.exit_code == 1  # the rank that ended first is to blame
