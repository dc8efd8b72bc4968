"""Progress of a stage for people, on standard error: a bar on a terminal, one line at the end elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def show_stage(console: Console, name: str, total: int, unit: str) -> Iterator[Callable[[int], None]]:
    """Show one stage; gives a function that moves the bar on.

    Args:
        console: where to.
        name: of the stage.
        total: when it is done.
        unit: what is counted.
    """
    columns = (
        TextColumn(f"{name:<22}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    started, done = time.monotonic(), 0
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(name, total=total)

        def advance(count: int = 1) -> None:
            nonlocal done
            done += count
            progress.advance(task, count)

        yield advance
    console.print(f"{name:<22} {done:,} {unit} in {time.monotonic() - started:.1f} s", markup=False)
