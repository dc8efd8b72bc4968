"""Which rank this process is: the only place that reads rank variables.

`torchrun`, `deepspeed` and `llmtrain ... --nproc` set RANK and its relatives; a task of `srun` is known by its step id;
with neither this is the only process. A batch script has SLURM_PROCID=0 and SLURM_NTASKS, too, but it is no task.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from llmtrain.errors import ParallelError

# Slurm numbers what is not a step of srun (the batch script, an interactive shell) from 0xFFFFFFFF downwards.
_FIRST_SPECIAL_STEP = 0xFFFFFFF0


@dataclass(frozen=True)
class World:
    """Place of this process among all. `node_rank` is the machine, `local_rank` the place on it."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    master_address: str = "127.0.0.1"
    master_port: int = 0

    @property
    def node_rank(self) -> int:
        """Index of this machine, for launchers that fill machines one after the other."""
        return self.rank // self.local_world_size

    @property
    def is_first(self) -> bool:
        """Whether this process speaks for all."""
        return self.rank == 0


def read_world(environment: Mapping[str, str] = os.environ) -> World:
    """Read the variables of the launcher.

    Raises:
        ParallelError: a launcher set some variables and left out others, or set impossible ones.
    """
    if "RANK" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
        # LOCAL_SIZE is what deepspeed calls it.
        names_of_local = ("LOCAL_WORLD_SIZE", "LOCAL_SIZE", "WORLD_SIZE")
        local_world_size = next((environment[name] for name in names_of_local if name in environment), "1")
    elif _is_slurm_task(environment) and int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "MASTER_ADDR", "MASTER_PORT")
        # "4(x2)", "4" or "4,3": tasks on each node.
        per_node = environment.get("SLURM_STEP_TASKS_PER_NODE", environment["SLURM_STEP_NUM_TASKS"])
        local_world_size = per_node.split("(")[0].split(",")[0]
    else:
        return World()
    missing = [name for name in names if name not in environment]
    if missing:
        raise ParallelError(
            f"environment: {names[0]} is set but {', '.join(missing)} is not. Start ranks with torchrun, deepspeed, "
            "srun through launch/slurm.sbatch, or `llmtrain pretrain CONFIG --nproc N`."
        )
    rank, world_size, local_rank, port = (_read_number(environment, names[i]) for i in (0, 1, 2, 4))
    if rank >= world_size:
        raise ParallelError(f"environment: {names[0]} = {rank} is not below {names[1]} = {world_size}.")
    if not 0 < port < 1 << 16:
        raise ParallelError(f"environment: {names[4]} = {port} is no port. Choose one from 1024 to 65535.")
    if not local_world_size.isdecimal():
        raise ParallelError(f"environment: ranks of this machine are '{local_world_size}', which is no number.")
    return World(rank, world_size, local_rank, int(local_world_size), environment[names[3]], port)


def refuse_second_launcher(environment: Mapping[str, str] = os.environ) -> None:
    """Before ranks are started here: refuse when this process is one of the ranks of torchrun or deepspeed.

    Raises:
        ParallelError: it is; each of them would start ranks.
    """
    if int(environment.get("WORLD_SIZE", "1")) > 1 and "RANK" in environment:
        raise ParallelError(
            f"--nproc: this process is already rank {environment['RANK']} of {environment['WORLD_SIZE']}, by RANK and "
            "WORLD_SIZE. Leave out --nproc under torchrun and deepspeed, or unset these variables."
        )


def _is_slurm_task(environment: Mapping[str, str]) -> bool:
    step = environment.get("SLURM_STEP_ID", "")
    return "SLURM_PROCID" in environment and step.isdigit() and int(step) < _FIRST_SPECIAL_STEP


def _read_number(environment: Mapping[str, str], name: str) -> int:
    text = environment[name].strip()
    if not text.isdecimal():
        raise ParallelError(
            f"environment: {name} = '{environment[name]}' is no whole number from 0 on. Leave it to the launcher."
        )
    return int(text)
