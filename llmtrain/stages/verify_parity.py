"""Command `verify parity`: does a layout, on this machine or cluster, compute what one process computes?

Under torchrun, deepspeed or srun the ranks that are there take part; otherwise ranks are started here, one launch for
each number of ranks.
"""

import dataclasses
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from llmtrain.errors import ConfigError, ParallelError
from llmtrain.process.launch import run_ranks_here
from llmtrain.process.world import World

if TYPE_CHECKING:
    from llmtrain.training.parity import ParityCase

_TIMEOUT_SECONDS = 300
# Each case makes groups of its own, and gloo's threads for a group end with the process only: some twenty a case.
_CASES_TIMES_RANKS = 64


def verify_parity(cases: "Sequence[ParityCase]", steps: int, world: World, as_json: bool) -> int:
    """Compare each case with one process and print a table on standard output.

    Args:
        cases: layouts and models.
        steps: optimizer steps of each.
        world: of a launcher, or one process.
        as_json: print JSON instead.

    Returns:
        0, or 1 when a case differs by more than its tolerance.

    Raises:
        ParallelError: ranks failed, or a launcher started another number of ranks than a case needs.
    """
    if world.world_size > 1:
        results = run_cases(cases, steps, world)
        if not world.is_first:
            return 0
    else:
        results = _launch(cases, steps)
    if as_json:
        sys.stdout.write(json.dumps(results, indent=1) + "\n")
    else:
        _print_table(results)
    return 0 if all(result["is_equal"] for result in results) else 1


def choose_cases(choice: Mapping[str, Any], max_ranks: int | None) -> "list[ParityCase]":
    """One case, or the whole table.

    Args:
        choice: fields of the case.
        max_ranks: for the table: leave out larger layouts; None = the one case.

    Raises:
        ConfigError: the layout is not possible.
    """
    from llmtrain.plan.build import build_plan
    from llmtrain.training.parity import GLOBAL_BATCH_SIZE, VOCAB_SIZE, ParityCase, list_cases

    if max_ranks is not None:
        return list_cases(max_ranks)
    case = ParityCase(**choice)
    if GLOBAL_BATCH_SIZE % (case.data * case.accumulation):
        raise ConfigError(
            f"verify parity: --data {case.data} x --accumulation {case.accumulation} does not divide its "
            f"{GLOBAL_BATCH_SIZE} sequences of a step. Choose numbers whose product does."
        )
    build_plan(case.build_config(steps=10), case.world_size, VOCAB_SIZE)
    return [case]


def run_cases(cases: "Sequence[ParityCase]", steps: int, world: World) -> list[dict[str, Any]]:
    """Compare as one of the ranks."""
    from llmtrain.parallel.start import start_distributed, stop_distributed
    from llmtrain.training.parity import compare_with_one_process

    for case in cases:
        if case.world_size != world.world_size:
            raise ParallelError(
                f"verify parity: {case.name} needs {case.world_size} ranks, the launcher started {world.world_size}. "
                f"Start {case.world_size}, or choose --data, --tensor and --pipeline with that product."
            )
    device = start_distributed(world, _TIMEOUT_SECONDS)
    try:
        results = [compare_with_one_process(case, steps, device) for case in cases]
    finally:
        stop_distributed()
    return [dataclasses.asdict(result) | {"is_equal": result.is_equal} for result in results]


def run_cases_of_file(path: Path, world: World) -> None:
    """As one of the ranks that `_launch` started: read cases, write results beside them."""
    from llmtrain.training.parity import ParityCase

    task = json.loads(path.read_text())
    results = run_cases([ParityCase(**case) for case in task["cases"]], task["steps"], world)
    if world.is_first:
        path.with_suffix(".results").write_text(json.dumps(results))


def _launch(cases: "Sequence[ParityCase]", steps: int) -> list[dict[str, Any]]:
    results: dict[str, dict[str, Any]] = {}
    console = Console(stderr=True, highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        for world_size in sorted({case.world_size for case in cases}):
            own = [case for case in cases if case.world_size == world_size]
            console.print(f"{len(own)} cases on {world_size} ranks ...")
            count = max(1, _CASES_TIMES_RANKS // world_size)
            for first in range(0, len(own), count):
                part = own[first : first + count]
                results |= _launch_once(part, steps, world_size, Path(folder) / f"{world_size}-{first}.json")
    return [results[case.name] for case in cases]


def _launch_once(cases: "Sequence[ParityCase]", steps: int, world_size: int, path: Path) -> dict[str, dict[str, Any]]:
    path.write_text(json.dumps({"cases": [dataclasses.asdict(case) for case in cases], "steps": steps}))
    code = run_ranks_here(["verify", "parity", "--cases", str(path)], world_size, path.parent / "logs")
    if code:
        raise ParallelError(f"verify parity: {world_size} ranks ended with code {code}, see above.")
    return {result["name"]: result for result in json.loads(path.with_suffix(".results").read_text())}


def _print_table(results: Sequence[dict[str, Any]]) -> None:
    table = Table("", "layout and model", "loss", "gradient norm", "validation", "weights")
    for result in results:
        mark = "[green]equal[/]" if result["is_equal"] else "[red]differs[/]"
        figures = (f"{result[key]:.1e}" for key in ("loss", "grad_norm", "validation", "weights"))
        table.add_row(mark, result["name"], *figures)
    console = Console(soft_wrap=True)
    console.print(table)
    count = sum(result["is_equal"] for result in results)
    console.print(
        f"{count} of {len(results)} cases compute what one process computes. Figures are the largest relative"
    )
    console.print("differences over all steps; of weights, relative to the largest weight of the tensor.")
