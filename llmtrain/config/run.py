"""Section `run`: the name of a run, where its folder lies, its seed."""

from pathlib import Path

from llmtrain.config.section import Name, NonNegativeInt, Section


class RunConfig(Section):
    """Identity of one run. Everything it writes goes to `root/name`."""

    name: Name
    """Name of the run and of its folder: lower-case letters, digits, `_`, `-`, `.`."""
    root: Path = Path("runs")
    """Folder that holds run folders and the MLflow database shared by them."""
    seed: NonNegativeInt = 1234
    """Seed of the initial weights and of the sample order."""

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.root / self.name
