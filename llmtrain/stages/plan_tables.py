"""The tables of command `plan`: rows of numbers, a bar of memory for each pipeline rank, a ranked list.

In: `Estimate` or `Proposal`s. Out: text on standard output.
"""

import itertools
from collections.abc import Sequence

import rich.box
from rich.console import Console
from rich.table import Table

from llmtrain.config.cluster import ClusterConfig
from llmtrain.config.root import Config
from llmtrain.plan.estimate import Estimate
from llmtrain.plan.memory import GIB, RankMemory, judge
from llmtrain.plan.rank_map import find_split_groups
from llmtrain.plan.report import describe_bytes, describe_seconds, list_rows
from llmtrain.plan.search import Proposal, SearchResult
from llmtrain.plan.suggest import suggest_changes

_BAR_WIDTH = 40
_FILE_WIDTH = 200
_FIRST_ROWS, _LAST_ROWS = 4, 3
_LETTERS = {
    "parameters": "P",
    "master_weights": "M",
    "moments": "O",
    "gradients": "G",
    "activations": "A",
    "loss": "L",
    "buffers": "B",
    "margin": "x",
}
_LEGEND = (
    "P weights  M master weights  O moments  G gradients  A activations  L logits  B buffers  x context, fragments"
)


def open_console() -> Console:
    """Standard output; as wide as the tables need where it is no terminal."""
    console = Console(soft_wrap=True, highlight=False)
    return console if console.is_terminal else Console(soft_wrap=True, highlight=False, width=_FILE_WIDTH)


def draw_memory_bar(memory: RankMemory, capacity: float, width: int = _BAR_WIDTH) -> str:
    """A stacked bar: a letter for each share of the device, dots for what is free, `!` for what is too much.

    Args:
        memory: of one rank.
        capacity: of the device, bytes.
        width: characters that stand for the whole device.
    """
    bar, filled = "", 0.0
    for name, size in memory.parts.items():
        filled += size
        bar += _LETTERS[name] * (round(filled / capacity * width) - len(bar))
    if len(bar) > width:
        return bar[:width] + "!"
    return bar.ljust(width, ".")


def print_estimate(config: Config, estimate: Estimate, explain: bool) -> None:
    """Every number of a run, with `explain` its formula and source beside it; what to change where it does not fit."""
    console = open_console()
    table = Table(box=rich.box.SIMPLE_HEAD, show_header=explain)
    for column in ("", "number", "", *(("formula", "source") if explain else ())):
        table.add_column(column, overflow="fold")
    group = ""
    for row in list_rows(estimate):
        if not row.text:
            continue
        cells = ["" if row.group == group else row.group, _name(row.key), row.text]
        table.add_row(*cells, *((row.formula, row.source) if explain else ()))
        group = row.group
    console.print(table)
    _print_memory(console, config, estimate)
    if warning := find_split_groups(estimate.plan, estimate.cluster.devices_per_node):
        console.print(f"  {warning}")


def _name(key: str) -> str:
    for unit in ("_seconds", "_bytes_per_second", "_bytes", "_mwh", "_tonnes"):
        key = key.removesuffix(unit)
    return key.replace("_", " ")


def _print_memory(console: Console, config: Config, estimate: Estimate) -> None:
    table = Table(box=rich.box.SIMPLE_HEAD)
    for column in ("pipeline rank", f"memory of {estimate.cluster.device.name}", "needed", "verdict"):
        table.add_column(column, no_wrap=True)
    for row in list_memory_rows(estimate.memories, estimate.cluster):
        table.add_row(*row)
    console.print(table)
    console.print(f"  {_LEGEND}\n")
    worst = estimate.worst
    parts = ", ".join(f"{name.replace('_', ' ')} {describe_bytes(size)}" for name, size in worst.parts.items() if size)
    console.print(f"  largest rank, at its peak ({worst.moment}): {parts}")
    if worst.start >= worst.total:
        console.print(
            f"  most is needed at the start: {describe_bytes(worst.start)}, its weights in float32, not yet shared"
        )
    if estimate.verdict != "fits":
        changes = " or ".join(suggest_changes(config, estimate))
        told = f"Try {changes}; or --search." if changes else "No one key lowers it. Try --search, or more ranks."
        console.print(f"  {estimate.verdict}. {told}")


def list_memory_rows(memories: Sequence[RankMemory], cluster: ClusterConfig) -> list[tuple[str, str, str, str]]:
    """Cells for each pipeline rank: ranks, bar, bytes needed, verdict; neighbours that need the same share a row.

    Of many, the first and last few have rows, and those with the most; what lies between has a row without a bar.

    Args:
        memories: of each pipeline rank.
        cluster: with the device they must fit.
    """
    capacity = cluster.device.memory_gib * GIB
    merged = _merge_equal(memories)
    most = max(range(len(merged)), key=lambda place: merged[place][2].total)
    ends = {*range(_FIRST_ROWS), *range(len(merged) - _LAST_ROWS, len(merged)), most}
    rows: list[tuple[str, str, str, str]] = []
    for has_row, places in itertools.groupby(range(len(merged)), lambda place: place in ends):
        group = [merged[place] for place in places]
        for part in [[entry] for entry in group] if has_row or len(group) == 1 else [group]:
            sizes = sorted((memory for _, _, memory in part), key=lambda memory: memory.total)
            least, largest = sizes[0], sizes[-1]
            first, last = part[0][0], part[-1][1]
            needed = f"{describe_bytes(largest.total)} of {describe_bytes(capacity)}"
            bar = draw_memory_bar(largest, capacity)
            if len(part) > 1:
                needed, bar = f"{describe_bytes(least.total)} to {describe_bytes(largest.total)}", "between"
            rows.append((str(first) if first == last else f"{first}-{last}", bar, needed, judge(largest, cluster)))
    return rows


def _merge_equal(memories: Sequence[RankMemory]) -> list[tuple[int, int, RankMemory]]:
    merged: list[tuple[int, int, RankMemory]] = []
    for rank, memory in enumerate(memories):
        if merged and merged[-1][2] == memory:
            merged[-1] = (merged[-1][0], rank, memory)
        else:
            merged.append((rank, rank, memory))
    return merged


def print_proposals(best: Sequence[Proposal], result: SearchResult, cluster: ClusterConfig) -> None:
    """The ranked list, and why each is behind the first."""
    console = open_console()
    columns = (
        "",
        "data",
        "tensor",
        "pipeline",
        "ZeRO",
        "micro-batch",
        "recompute",
        "step",
        "tokens/s",
        "memory",
        "why",
    )
    table = Table(*columns, box=rich.box.SIMPLE_HEAD)
    for place, found in enumerate(best, 1):
        work = found.work
        table.add_row(
            str(place),
            *map(
                str,
                (
                    work.data_parallel_size,
                    work.tensor_parallel_size,
                    f"{work.pipeline_parallel_size}{' dualpipev' if work.is_two_way else ''}",
                    work.zero_stage,
                    work.micro_batch_size,
                    work.recompute,
                ),
            ),
            describe_seconds(found.step.total),
            f"{work.tokens_per_step / found.step.total:,.0f}",
            describe_bytes(found.memory.total) + (", tight" if found.verdict == "tight" else ""),
            "the best" if place == 1 else found.explain_loss_to(best[0]),
        )
    console.print(table)
    tight = sum(found.verdict == "tight" for found in result.proposals)
    console.print(
        f"  {result.tried:,} layouts tried on {cluster.name}, {result.too_large:,} do not fit "
        f"{cluster.device.memory_gib:g} GiB, {tight:,} are tight and come last."
    )
