"""Options of command `plan`, and which go together.

In: the command line. Out: `PlanOptions`; a `ConfigError` for an option that would be ignored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llmtrain.errors import ConfigError


@dataclass(frozen=True)
class PlanOptions:
    """As given; None, False or empty = not given."""

    config: Path | None = None
    overrides: Sequence[str] = ()
    more: Sequence[Path] = ()
    cluster: str | None = None
    world_size: int | None = None
    search: bool = False
    explain: bool = False
    as_json: bool = False
    write: Path | None = None
    calibrate: Sequence[Path] = ()
    simulate_failures: bool = False
    seed: int | None = None
    scaling: Path | None = None


def check_options(options: PlanOptions) -> None:
    """Refuse what does not go together.

    Raises:
        ConfigError: an option contradicts another, or needs one that is missing.
    """
    if options.cluster is not None and not options.cluster.strip():
        raise ConfigError("command line: --cluster is empty. Give a name of `llmtrain cluster list`, or a YAML file.")
    if options.write is not None and bool(options.calibrate) == options.search:
        raise ConfigError(
            "command line: --write needs --search, to write the best layout found, or --calibrate, to write the "
            "fitted cluster. Add one of them, not both."
        )
    if options.config is None:
        _check_without_config(options)
    if options.calibrate and options.config is not None and options.as_json:
        raise ConfigError("command line: --calibrate with CONFIG prints two things, --json one. Leave out one of them.")
    if options.explain and (options.search or options.as_json):
        raise ConfigError(
            f"command line: --explain writes formulas into the table of one layout, "
            f"{'--search ranks many' if options.search else '--json prints no table'}. Leave out one of them."
        )
    if options.simulate_failures and options.search:
        raise ConfigError(
            "command line: --simulate-failures plays one layout, --search ranks many. Write the best one with --search "
            "--write FILE, then plan with -c FILE --simulate-failures."
        )
    if options.seed is not None and not options.simulate_failures:
        raise ConfigError("command line: --seed needs --simulate-failures: it decides them. Add --simulate-failures.")
    if options.scaling is not None and options.scaling.suffix != ".png":
        raise ConfigError(
            f"command line: --scaling {options.scaling}: the picture is a PNG. Give a file that ends in .png."
        )


def _check_without_config(options: PlanOptions) -> None:
    if not options.calibrate:
        raise ConfigError("command line: plan needs CONFIG, the YAML file of a run, or --calibrate RUN. Add one.")
    given = {
        "-c": options.more,
        "--world-size": options.world_size,
        "--search": options.search,
        "--explain": options.explain,
        "--simulate-failures": options.simulate_failures,
        "--seed": options.seed is not None,
        "--scaling": options.scaling,
    }
    if useless := ", ".join(name for name, value in given.items() if value):
        raise ConfigError(
            f"command line: --calibrate without CONFIG fits the cluster and plans no run; {useless} would say how. Add "
            "CONFIG, the YAML file of the run, or leave out the rest."
        )
