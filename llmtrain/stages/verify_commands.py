"""Commands `verify`: prove what this machine or cluster computes."""

from pathlib import Path
from typing import Annotated, Literal

import typer

verify_app = typer.Typer(help="Prove what this machine or cluster computes.", no_args_is_help=True)


@verify_app.command("parity")
def verify_parity_command(
    tensor: Annotated[int, typer.Option(min=1, help="Tensor-parallel size.")] = 1,
    pipeline: Annotated[int, typer.Option(min=1, help="Pipeline-parallel size.")] = 1,
    data: Annotated[int, typer.Option(min=1, help="Data-parallel size.")] = 1,
    zero: Annotated[int, typer.Option(min=0, max=3, help="ZeRO stage.")] = 1,
    accumulation: Annotated[int, typer.Option(min=1, help="Micro-batches of a step.")] = 4,
    schedule: Annotated[Literal["1f1b", "dualpipev"], typer.Option(help="Of the pipeline.")] = "1f1b",
    family: Annotated[Literal["llama", "gpt2"], typer.Option(help="Of the model.")] = "llama",
    dtype: Annotated[Literal["float32", "bfloat16", "autocast"], typer.Option(help="Numbers.")] = "float32",
    every_case: Annotated[bool, typer.Option("--all", help="The whole table of layouts and models instead.")] = False,
    max_ranks: Annotated[int, typer.Option(min=1, help="With --all: leave out larger layouts.")] = 8,
    steps: Annotated[int, typer.Option(min=2, help="Optimizer steps.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print results as JSON.")] = False,
    cases: Annotated[Path | None, typer.Option(hidden=True, help="Cases for ranks that this command started.")] = None,
) -> None:
    """Does a layout compute what one process computes? Losses, gradient norms and weights, side by side."""
    from llmtrain.process.world import read_world
    from llmtrain.stages.verify_parity import choose_cases, run_cases_of_file, verify_parity

    world = read_world()
    if cases is not None:
        run_cases_of_file(cases, world)
        return
    choice = {"tensor": tensor, "pipeline": pipeline, "data": data, "zero": zero, "accumulation": accumulation}
    texts = {"schedule": schedule, "family": family, "dtype": dtype}
    chosen = choose_cases(choice | texts, max_ranks if every_case else None)
    raise typer.Exit(verify_parity(chosen, steps, world, as_json))
