"""Which rank this process is: the only place that reads rank variables.

`torchrun`, `deepspeed` and `llmtrain ... --nproc` set RANK and its relatives; under `srun` the Slurm variables are
read; with none of them this is the only process.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass

from llmtrain.errors import ParallelError


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
        local_world_size = environment.get("LOCAL_WORLD_SIZE", environment.get("WORLD_SIZE", "1"))
    elif "SLURM_PROCID" in environment and int(environment.get("SLURM_NTASKS", "1")) > 1:
        names = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "MASTER_ADDR", "MASTER_PORT")
        # "4(x2)" or "4": tasks on each node.
        local_world_size = environment.get("SLURM_NTASKS_PER_NODE", environment["SLURM_NTASKS"]).split("(")[0]
    else:
        return World()
    missing = [name for name in names if name not in environment]
    if missing:
        raise ParallelError(
            f"environment: {names[0]} is set but {', '.join(missing)} is not. Start ranks with torchrun, deepspeed, "
            "srun through launch/slurm.sbatch, or `llmtrain pretrain CONFIG --nproc N`."
        )
    rank, world_size, local_rank, address, port = (environment[name] for name in names)
    if not 0 <= int(rank) < int(world_size):
        raise ParallelError(f"environment: {names[0]} = {rank} is not below {names[1]} = {world_size}.")
    return World(int(rank), int(world_size), int(local_rank), int(local_world_size), address, int(port))
