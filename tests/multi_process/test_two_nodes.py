"""Two torchrun agents, each with a rank of its own, give the run of one machine bit for bit; so does a run that broke.

tests/multi_process/two_namespaces.py does the same between two network namespaces with their own addresses.
"""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.helpers.commands import read_curve, read_digest, run_command
from tests.helpers.nodes import find_workers, kill_node, pick_port, start_node, wait_for_line

STEPS = 30
OVERRIDES = [f"training.train_steps={STEPS}", "checkpoint.save_every_steps=3"]


@pytest.fixture(scope="module")
def one_node(project: Path) -> Path:
    result = run_command(project, "pretrain", "tiny.yaml", "--nproc", "2", "run.name=one_node", *OVERRIDES)
    assert result.returncode == 0, result.stderr
    return project / "runs" / "one_node"


def start_nodes(project: Path, name: str, master: str) -> "list[subprocess.Popen[str]]":
    shared = {"NODES": "2", "RANKS_PER_NODE": "1", "MASTER_ADDR": master, "MASTER_PORT": str(pick_port())}
    overrides = [f"run.name={name}", *OVERRIDES]
    return [start_node(project, overrides, shared | {"NODE_RANK": str(rank)}) for rank in range(2)]


def assert_same_run(found: Path, expected: Path) -> None:
    assert read_curve(found) == read_curve(expected)
    assert read_digest(found, STEPS) == read_digest(expected, STEPS)


def test_two_nodes_give_the_run_of_one(project: Path, one_node: Path) -> None:
    nodes = start_nodes(project, "two_nodes", "127.0.0.2")
    outputs = [node.communicate(timeout=240)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert_same_run(project / "runs" / "two_nodes", one_node)


def test_a_node_that_is_lost_ends_the_other_and_the_run_goes_on_when_both_are_back(
    project: Path, one_node: Path
) -> None:
    run_folder = project / "runs" / "lost_node"
    nodes = start_nodes(project, "lost_node", "127.0.0.1")
    wait_for_line(run_folder, nodes, 10)
    kill_node(nodes[1])
    output, _ = nodes[0].communicate(timeout=90)
    assert nodes[0].returncode == 1, output
    again = start_nodes(project, "lost_node", "127.0.0.1")
    outputs = [node.communicate(timeout=240)[0] for node in again]
    assert [node.returncode for node in again] == [0, 0], outputs
    starts = [json.loads(line) for line in (run_folder / "events.jsonl").read_text().splitlines() if "started" in line]
    assert starts[0]["first_step"] == 0
    assert starts[1]["first_step"] >= 3
    assert_same_run(run_folder, one_node)


def test_torchrun_starts_again_after_a_killed_rank_and_the_run_is_the_same(project: Path, one_node: Path) -> None:
    run_folder = project / "runs" / "restarted"
    variables = {"RANKS_PER_NODE": "2", "MAX_RESTARTS": "1", "MASTER_PORT": str(pick_port())}
    node = start_node(project, ["run.name=restarted", *OVERRIDES], variables)
    wait_for_line(run_folder, [node], 10)
    os.kill(find_workers(node)[1].pid, signal.SIGKILL)
    output, _ = node.communicate(timeout=240)
    assert node.returncode == 0, output
    starts = [json.loads(line) for line in (run_folder / "events.jsonl").read_text().splitlines() if "started" in line]
    assert len(starts) == 2
    assert starts[1]["first_step"] >= 3
    assert_same_run(run_folder, one_node)
