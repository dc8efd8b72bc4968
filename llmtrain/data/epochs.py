"""How often a run will read each source, from the manifests of its shards, before it is started. Starts without torch.

In: `Config`, `Plan`, the shards. Out: `MixtureUse`: the sequences that the sample order will draw, counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llmtrain.config.data import DataConfig
from llmtrain.config.root import Config
from llmtrain.data.mixture import resolve_mixture
from llmtrain.data.order import SampleOrder
from llmtrain.data.rows import StreamRows
from llmtrain.plan.build import Plan
from llmtrain.shards.packing import count_packed_rows
from llmtrain.shards.reader import ShardedTokens


@dataclass(frozen=True)
class SourceUse:
    """One source of the mixture."""

    name: str
    tokens: int
    """On disk, of the training split."""
    shares: tuple[float, ...]
    """Of the sequences of each stage, fractions."""
    sequences: int
    """Drawn in the whole run."""
    drawn_tokens: int
    epochs: float
    """Sequences drawn over those that there are."""


@dataclass(frozen=True)
class MixtureUse:
    """All sources of a run."""

    sources: tuple[SourceUse, ...]
    first_steps: tuple[int, ...]
    """Optimizer steps before each stage of the mixture."""
    is_packed: bool
    """False: rows of whole documents are counted as if they were full, because they are not packed yet."""


def compute_mixture_use(config: Config, plan: Plan, shards: Mapping[str, ShardedTokens]) -> MixtureUse:
    """Count what a run will draw from each source.

    Args:
        config: the resolved configuration.
        plan: batch arithmetic and horizon.
        shards: training shards by source, in the order of the mixture.

    Raises:
        DataError: the mixture cannot be made from these shards, or would read a source too often.
    """
    windows = {name: _count_windows(opened, config.data, plan.sequence_length) for name, opened in shards.items()}
    tokens = {name: opened.token_count for name, opened in shards.items()}
    counts = {name: count for name, (count, _) in windows.items()}
    mixture = resolve_mixture(config.data, tokens, counts, plan.train_steps, plan.global_batch_size)
    drawn = SampleOrder(mixture, config.run.seed).count_sources(plan.train_steps * plan.global_batch_size)
    sources = tuple(
        SourceUse(
            name=name,
            tokens=tokens[name],
            shares=tuple(stage.shares[i] for stage in mixture.stages),
            sequences=sequences,
            drawn_tokens=sequences * plan.sequence_length,
            epochs=sequences / mixture.windows[i],
        )
        for i, (name, sequences) in enumerate(zip(mixture.names, drawn.tolist(), strict=True))
    )
    first_steps = tuple(stage.first_sample // plan.global_batch_size for stage in mixture.stages)
    return MixtureUse(sources, first_steps, all(is_packed for _, is_packed in windows.values()))


def _count_windows(shards: ShardedTokens, config: DataConfig, sequence_length: int) -> tuple[int, bool]:
    """Sequences of one epoch, and whether that is their exact number."""
    if config.packing == "concatenate":
        return StreamRows(shards, sequence_length, config.mask_across_documents).num_windows, True
    rows = count_packed_rows(shards, sequence_length)
    return (-(-shards.token_count // sequence_length), False) if rows is None else (rows, True)
