import pytest

from llmtrain.errors import ParallelError
from llmtrain.process.world import World, read_world, refuse_second_launcher


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


BATCH = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "8", "SLURM_NTASKS_PER_NODE": "4"}
TASK = BATCH | {
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "MASTER_ADDR": "n0",
    "MASTER_PORT": "29500",
}


def test_a_task_of_srun_is_a_rank_of_its_step_not_of_the_job() -> None:
    world = read_world(TASK)
    assert (world.rank, world.world_size, world.local_rank, world.node_rank) == (3, 4, 1, 1)
    assert (world.local_world_size, world.master_address, world.master_port) == (2, "n0", 29500)
    assert read_world(TASK | {"SLURM_STEP_TASKS_PER_NODE": "3,1"}).local_world_size == 3


@pytest.mark.parametrize("step", [{}, {"SLURM_STEP_ID": "4294967291"}, {"SLURM_STEP_ID": "batch"}])
def test_a_batch_script_of_many_tasks_is_no_task_itself(step: dict[str, str]) -> None:
    assert read_world(BATCH | step) == World()
    assert read_world(BATCH | step | {"SLURM_STEP_NUM_TASKS": "8"}) == World()


def test_a_step_of_one_task_is_alone_in_a_job_of_many() -> None:
    assert read_world(TASK | {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}) == World()


def test_a_task_without_a_meeting_place_is_refused_by_name() -> None:
    environment = {name: value for name, value in TASK.items() if not name.startswith("MASTER")}
    with pytest.raises(ParallelError, match="SLURM_PROCID is set but MASTER_ADDR, MASTER_PORT is not"):
        read_world(environment)


def test_ranks_are_not_started_by_a_rank() -> None:
    with pytest.raises(ParallelError, match=r"--nproc: this process is already rank 1 of 2.*Leave out --nproc"):
        refuse_second_launcher({"RANK": "1", "WORLD_SIZE": "2"})
    for environment in ({}, TASK, BATCH, {"RANK": "0", "WORLD_SIZE": "1"}):
        refuse_second_launcher(environment)


def test_half_set_variables_are_refused_by_name() -> None:
    with pytest.raises(ParallelError, match="RANK is set but LOCAL_RANK, MASTER_PORT is not"):
        read_world({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x"})


def test_a_rank_beyond_the_world_is_refused() -> None:
    with pytest.raises(ParallelError, match="RANK = 2 is not below WORLD_SIZE = 2"):
        read_world({"RANK": "2", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "x", "MASTER_PORT": "1"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("RANK", "abc", "RANK = 'abc' is no whole number"),
        ("WORLD_SIZE", "-2", "WORLD_SIZE = '-2' is no whole number"),
        ("MASTER_PORT", "http", "MASTER_PORT = 'http' is no whole number"),
        ("MASTER_PORT", "99999", "MASTER_PORT = 99999 is no port"),
        ("LOCAL_WORLD_SIZE", "x", "ranks of this machine are 'x', which is no number"),
    ],
)
def test_variables_that_are_no_numbers_are_refused_by_name(name: str, value: str, message: str) -> None:
    good = {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}
    with pytest.raises(ParallelError, match=message):
        read_world(good | {name: value})


def test_the_name_that_deepspeed_gives_to_the_ranks_of_a_machine_is_read() -> None:
    names = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}
    assert read_world(names | {"LOCAL_SIZE": "4"}).local_world_size == 4
