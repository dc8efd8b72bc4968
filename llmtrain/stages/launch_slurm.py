"""Stage `launch slurm`: check a run as `pretrain` would, then write the script that queues it."""

import sys
from pathlib import Path

from llmtrain.config.loader import LoadedConfig
from llmtrain.config.root import Config
from llmtrain.errors import MachineError
from llmtrain.process.slurm_script import SlurmRequest, build_script, write_script
from llmtrain.stages.pretrain import print_plan


def write_slurm_script(loaded: LoadedConfig[Config], request: SlurmRequest, output: Path | None) -> Path:
    """Print the plan of the run on that many ranks, and write the script.

    Args:
        loaded: the configuration; the script reads it again when the job starts.
        request: what to ask Slurm for.
        output: the script; None = the name of the run.

    Returns:
        The script.

    Raises:
        ConfigError: the run is not possible on that many ranks, or the request is wrong.
        MachineError: the script cannot be written.
    """
    text = build_script(request)
    print_plan(loaded, request.nodes * request.ranks_per_node)
    path = output or Path(f"{loaded.config.run.name}.sbatch")
    try:
        write_script(path, text)
    except OSError as error:
        raise MachineError(f"{path}: cannot be written: {error.strerror}. Choose another --output.") from error
    sys.stdout.write(f"{path}: read it, then queue it with: sbatch {path}\n")
    return path
