"""Where log lines go: standard error, as `12:30:05 INFO text`; ranks other than the first only warn."""

import logging
import os
import warnings

from llmtrain.process.world import World

_TALKATIVE = ("DeepSpeed", "deepspeed", "torch", "mlflow", "alembic", "py.warnings", "httpx", "filelock", "matplotlib")


def configure_logging(world: World) -> None:
    """Set up logging of this process and quieten libraries that talk at import."""
    logging.captureWarnings(True)
    prefix = "" if world.world_size == 1 else f"[{world.rank}] "
    logging.basicConfig(
        level=logging.INFO if world.is_first else logging.WARNING,
        format=f"%(asctime)s {prefix}%(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        force=True,
    )
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("DeepSpeed").addFilter(_is_error)  # it sets its own level when it is imported
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", category=FutureWarning)
    os.environ.setdefault("DEEPSPEED_LOG_LEVEL", "error")


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR
