"""Section `instructions` of a run: records for post-training from its prepared documents."""

from rich.console import Console

from data_pipelines.instructions.make import make_instructions
from llmtrain.config.instructions import MADE_NAME
from llmtrain.config.root import Config


def make_instructions_of_run(config: Config, console: Console | None = None) -> None:
    """Make what is not made yet, into `data.folder/posttraining`; nothing without the section.

    Args:
        config: the resolved configuration.
        console: where progress goes; default standard error.

    Raises:
        ConfigError: another process writes there.
        DataError: there are no documents, or nothing can be made of them.
    """
    if config.instructions is None:
        return
    console = console or Console(stderr=True, highlight=False)
    folder = config.data.folder
    manifest = make_instructions(folder / "documents", folder / MADE_NAME, config.instructions, {}, config.run.seed)
    for name, row in manifest["files"].items():
        console.print(f"{name:<28} {row['records']:,} records")
