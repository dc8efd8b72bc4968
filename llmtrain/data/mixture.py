"""The mixture: the share of each source, checked against what there is before a run begins.

In: section `data`, tokens and windows on disk, sequences of the run. Out: exact integer weights and epochs per source.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from llmtrain.config.data import DataConfig
from llmtrain.errors import DataError

# Shares are kept as integers out of this; the rounding of a share is below one sequence in a trillion.
WEIGHT_SCALE = 1 << 40


@dataclass(frozen=True)
class Mixture:
    """Sources in a fixed order, with integer weights that add up to their sum."""

    names: tuple[str, ...]
    weights: tuple[int, ...]
    windows: tuple[int, ...]
    """Windows of one epoch."""

    @property
    def shares(self) -> tuple[float, ...]:
        """Fraction of the sampled sequences."""
        total = sum(self.weights)
        return tuple(weight / total for weight in self.weights)

    def compute_epochs(self, sequences: int) -> dict[str, float]:
        """How often each source is read by a run of so many sequences."""
        rows = zip(self.names, self.shares, self.windows, strict=True)
        return {name: sequences * share / windows for name, share, windows in rows}


def resolve_mixture(
    config: DataConfig, tokens: Mapping[str, int], windows: Mapping[str, int], sequences: int
) -> Mixture:
    """Shares from weights and temperature; refuses what cannot be done.

    Args:
        config: section `data`.
        tokens: training tokens of each source on disk, in the order of the mixture.
        windows: sequences of one epoch of each source.
        sequences: sequences of the whole run.

    Raises:
        DataError: a source has less than one window, no weight is positive, or a cap on epochs would be exceeded; all
            sources that are wrong are named with their numbers.
    """
    empty = [name for name in tokens if windows[name] < 1]
    if empty:
        rows = ", ".join(f"{name} ({tokens[name]:,} tokens)" for name in empty)
        raise DataError(
            f"data.sources: less than one sequence in {rows}. Shorten batch.sequence_length, or leave the source out."
        )
    weights = {name: _given_weight(config, name, tokens[name]) for name in tokens}
    tempered = {name: weight ** (1 / config.temperature) for name, weight in weights.items() if weight > 0}
    if not tempered:
        raise DataError("data.sources: every weight is 0. Give at least one source a positive weight.")
    total = sum(tempered.values())
    mixture = Mixture(
        names=tuple(tempered),
        weights=tuple(max(1, round(weight / total * WEIGHT_SCALE)) for weight in tempered.values()),
        windows=tuple(windows[name] for name in tempered),
    )
    _check_caps(config, mixture, sequences)
    return mixture


def _given_weight(config: DataConfig, name: str, tokens: int) -> float:
    source = config.sources.get(name)
    return float(tokens) if source is None or source.weight is None else source.weight


def _check_caps(config: DataConfig, mixture: Mixture, sequences: int) -> None:
    problems = []
    for name, epochs in mixture.compute_epochs(sequences).items():
        cap = config.sources[name].max_epochs if name in config.sources else None
        if cap is not None and epochs > cap:
            position = mixture.names.index(name)
            problems.append(
                f"data.sources.{name}: {sequences:,} sequences x share {mixture.shares[position]:.4f} read "
                f"{mixture.windows[position]:,} windows {epochs:.2f} times; max_epochs is {cap:g}. Train at most "
                f"{int(cap * mixture.windows[position] / mixture.shares[position]):,} sequences, lower the weight, add "
                "text, or raise max_epochs."
            )
    if problems:
        raise DataError("\n".join(problems))
