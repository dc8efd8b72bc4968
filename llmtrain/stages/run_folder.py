"""The folder of a run: who may write there, and whether a configuration may continue what lies in it."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from llmtrain.config.compare import find_changes, find_fixed_changes, list_changes
from llmtrain.config.loader import dump_config, validate
from llmtrain.config.root import Config
from llmtrain.config.yaml_reader import read_yaml
from llmtrain.errors import ConfigError
from llmtrain.process.folder_lock import locked_folder
from llmtrain.shards.manifest import write_atomically
from llmtrain.tracking.run_folder import explain_refusal

logger = logging.getLogger(__name__)

CONFIG_NAME = "config.yaml"
LOCK_NAME = "run.lock"
# Stages that have run folders of their own.
_OF_OTHER_STAGES = ("instructions", "sft", "reward", "ppo")


def load_run_config(run_folder: Path) -> Config:
    """The configuration a run was made with.

    Raises:
        ConfigError: there is no run in that folder.
    """
    path = run_folder / CONFIG_NAME
    if not path.is_file():
        raise ConfigError(
            f"{run_folder}: no run here, {CONFIG_NAME} is missing. Give a run folder such as runs/quickstart."
        )
    return validate(*read_yaml(path))


def check_continuation(config: Config) -> None:
    """Refuse to continue another run; say which changed keys take effect from here on.

    Raises:
        ConfigError: the folder holds a run whose fixed keys differ; every one of them is named.
    """
    folder = config.run.folder
    if not (folder / CONFIG_NAME).is_file():
        return
    old = load_run_config(folder)
    fixed = find_fixed_changes(old, config)
    if fixed:
        raise ConfigError(
            f"{folder}: holds a run made with other values of keys that cannot change:\n{list_changes(fixed)}\n"
            "Choose another run.name to start anew, or put these values back to continue."
        )
    for key, before, after in find_changes(old, config):
        if key.startswith(_OF_OTHER_STAGES):
            continue
        logger.info("%s: %s until now, %s from here on", key, before, after)


def start_run_folder(config: Config) -> None:
    """Write the resolved configuration, unless the folder belongs to another run; the caller holds the folder."""
    check_continuation(config)
    with explain_refusal(config.run.folder / CONFIG_NAME):
        write_atomically(config.run.folder / CONFIG_NAME, dump_config(config).encode())


@contextmanager
def locked_run_folder(folder: Path) -> Iterator[None]:
    """Hold the run folder, so that two runs never write into one.

    Raises:
        ConfigError: another process holds it; its id and host are named.
        MachineError: the folder cannot be written or locked.
    """
    remedy = "Wait for it, stop it, or choose another run.name."
    with ExitStack() as stack:
        with explain_refusal(folder):
            stack.enter_context(locked_folder(folder, LOCK_NAME, "a run", remedy))
        yield
