import pytest

from llmtrain.errors import ParallelError
from llmtrain.process.world import World, read_world


def test_a_process_without_a_launcher_is_alone() -> None:
    assert read_world({}) == World()


def test_torchrun_variables_are_read() -> None:
    world = read_world(
        {
            "RANK": "5",
            "WORLD_SIZE": "8",
            "LOCAL_RANK": "1",
            "LOCAL_WORLD_SIZE": "4",
            "MASTER_ADDR": "n0",
            "MASTER_PORT": "2",
        }
    )
    assert (world.rank, world.world_size, world.local_rank, world.node_rank) == (5, 8, 1, 1)
    assert (world.master_address, world.master_port) == ("n0", 2)


def test_slurm_variables_are_read() -> None:
    world = read_world(
        {
            "SLURM_PROCID": "3",
            "SLURM_NTASKS": "4",
            "SLURM_LOCALID": "1",
            "SLURM_NTASKS_PER_NODE": "2",
            "MASTER_ADDR": "n0",
            "MASTER_PORT": "29500",
        }
    )
    assert (world.rank, world.world_size, world.local_rank, world.node_rank) == (3, 4, 1, 1)


def test_a_slurm_job_of_one_task_is_alone() -> None:
    assert read_world({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}) == World()


def test_half_set_variables_are_refused_by_name() -> None:
    with pytest.raises(ParallelError, match="RANK is set but LOCAL_RANK, MASTER_PORT is not"):
        read_world({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x"})


def test_a_rank_beyond_the_world_is_refused() -> None:
    with pytest.raises(ParallelError, match="RANK = 2 is not below WORLD_SIZE = 2"):
        read_world({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"})
