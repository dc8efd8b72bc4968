"""The mixture: the share of each source over the run, checked against what there is before the run begins.

In: section `data`, tokens and windows on disk, the length of the run. Out: exact integer weights of each stage.
"""

import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llmtrain.config.data import DataConfig, MixtureStage
from llmtrain.errors import DataError

# Shares are kept as integers out of this; the rounding of a share is below one sequence in a trillion.
WEIGHT_SCALE = 1 << 40


@dataclass(frozen=True)
class Stage:
    """Shares from one sample of the run on."""

    first_sample: int
    weights: tuple[int, ...]
    """One for each source of the mixture; 0 = not read in this stage."""

    @property
    def shares(self) -> tuple[float, ...]:
        """Fraction of the sampled sequences."""
        total = sum(self.weights)
        return tuple(weight / total for weight in self.weights)


@dataclass(frozen=True)
class Mixture:
    """Sources in a fixed order, and the stages of the run, the first from sample 0 on."""

    names: tuple[str, ...]
    windows: tuple[int, ...]
    """Windows of one epoch."""
    stages: tuple[Stage, ...]

    def compute_epochs(self, sequences: int) -> dict[str, float]:
        """How often each source is read by a run of so many sequences."""
        return {
            name: self._count(i, sequences) / windows
            for i, (name, windows) in enumerate(zip(self.names, self.windows, strict=True))
        }

    def find_longest(self, name: str, epochs: float) -> int:
        """Sequences of the longest run that reads a source at most so many times; at most 2^62."""
        source = self.names.index(name)
        allowed = epochs * self.windows[source] * (1 + 1e-12)
        return bisect.bisect_right(range(1 << 62), allowed, key=lambda sequences: self._count(source, sequences)) - 1

    def describe_past(self, sequences: int) -> list[dict[str, Any]]:
        """What the order of the first `sequences` samples was drawn from, as plain values."""
        return [
            {
                "first_sample": stage.first_sample,
                "weights": {name: weight for name, weight in zip(self.names, stage.weights, strict=True) if weight},
            }
            for stage in self.stages
            if stage.first_sample < sequences
        ]

    def _count(self, source: int, sequences: int) -> float:
        """Sequences of one source in a run, by its shares."""
        ends = [*(stage.first_sample for stage in self.stages[1:]), sequences]
        lengths = (min(end, sequences) - stage.first_sample for stage, end in zip(self.stages, ends, strict=True))
        return sum(max(0, length) * stage.shares[source] for stage, length in zip(self.stages, lengths, strict=True))


def resolve_mixture(
    config: DataConfig,
    tokens: Mapping[str, int],
    windows: Mapping[str, int],
    train_steps: int,
    global_batch_size: int,
) -> Mixture:
    """Shares from weights and temperature; refuses what cannot be done.

    Args:
        config: section `data`.
        tokens: training tokens of each source on disk, in the order of the mixture.
        windows: sequences of one epoch of each source.
        train_steps: optimizer steps of the run.
        global_batch_size: sequences of a step.

    Raises:
        DataError: a source has less than one window, a stage weighs nothing or what is not there, or a cap on epochs
            would be exceeded; all sources that are wrong are named with their numbers.
    """
    empty = [name for name in tokens if windows[name] < 1]
    if empty:
        rows = ", ".join(f"{name} ({tokens[name]:,} tokens)" for name in empty)
        raise DataError(
            f"data.sources: less than one sequence in {rows}. Shorten batch.sequence_length, or leave the source out."
        )
    given = {0: {name: _given_weight(config, name, tokens[name]) for name in tokens}}
    for number, stage in enumerate(config.stages):
        first_sample = find_first_step(stage, train_steps) * global_batch_size
        if first_sample <= max(given):
            raise DataError(
                f"data.stages.{number}: begins at sample {first_sample:,}, the stage before it at {max(given):,}: "
                "nothing is left of that one. Put the stages in order, or train more steps."
            )
        _check_known(f"data.stages.{number}.weights", stage.weights, tokens)
        given[first_sample] = {name: stage.weights.get(name, 0.0) for name in tokens}
    names = tuple(name for name in tokens if any(weights[name] > 0 for weights in given.values()))
    stages = [
        Stage(first, _scale(weights, names, config.temperature, where="data.sources" if not first else "data.stages"))
        for first, weights in given.items()
    ]
    mixture = Mixture(names, tuple(windows[name] for name in names), tuple(stages))
    _check_caps(config, mixture, train_steps * global_batch_size)
    return mixture


def find_first_step(stage: MixtureStage, train_steps: int) -> int:
    """Optimizer steps taken before a stage begins."""
    if stage.from_step is not None:
        return stage.from_step
    assert stage.from_fraction is not None
    return round(stage.from_fraction * train_steps)


def _given_weight(config: DataConfig, name: str, tokens: int) -> float:
    source = config.sources.get(name)
    return float(tokens) if source is None or source.weight is None else source.weight


def _scale(weights: Mapping[str, float], names: tuple[str, ...], temperature: float, where: str) -> tuple[int, ...]:
    tempered = {name: weight ** (1 / temperature) for name, weight in weights.items() if weight > 0}
    if not tempered:
        raise DataError(f"{where}: every weight is 0. Give at least one source a positive weight.")
    total = sum(tempered.values())
    return tuple(max(1, round(tempered[name] / total * WEIGHT_SCALE)) if name in tempered else 0 for name in names)


def _check_known(where: str, weights: Mapping[str, float], tokens: Mapping[str, int]) -> None:
    unknown = sorted(set(weights) - set(tokens))
    if unknown:
        raise DataError(f"{where}: no such source: {', '.join(unknown)}. There are: {', '.join(tokens)}.")


def _check_caps(config: DataConfig, mixture: Mixture, sequences: int) -> None:
    problems = []
    for name, epochs in mixture.compute_epochs(sequences).items():
        cap = config.sources[name].max_epochs if name in config.sources else None
        if cap is not None and epochs > cap:
            windows = mixture.windows[mixture.names.index(name)]
            problems.append(
                f"data.sources.{name}: {sequences:,} sequences x share {epochs * windows / sequences:.4f} read "
                f"{windows:,} windows {epochs:.2f} times; max_epochs is {cap:g}. Train at most "
                f"{mixture.find_longest(name, cap):,} sequences, lower the weight, add text, or raise max_epochs."
            )
    if problems:
        raise DataError("\n".join(problems))
