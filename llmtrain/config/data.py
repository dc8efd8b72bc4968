"""Section `data`: token shards -> batches: the mixture, packing, masking."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from llmtrain.config.section import Name, NonNegativeFloat, PositiveFloat, PositiveInt, Section


class MixtureSource(Section):
    """One source of the mixture."""

    weight: NonNegativeFloat | None = None
    """Relative share of the sampled sequences. Null for all sources: the size of each in tokens."""
    max_epochs: PositiveFloat | None = None
    """Refuse a run that would read this source more often; null = no cap."""


class MixtureStage(Section):
    """Other shares from some step of the run on: a curriculum, or annealing at its end."""

    from_step: PositiveInt | None = None
    """Optimizer steps taken before the stage begins."""
    from_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The same as a share of the steps of the run: 0.9 = for its last tenth."""
    weights: dict[Name, NonNegativeFloat] = Field(min_length=1)
    """Relative shares by source; a source that is left out is not read in this stage."""


class DataConfig(Section):
    """What training reads."""

    folder: Path
    """Folder written by `llmtrain data prepare`: tokenizer and shards by source."""
    sources: dict[Name, MixtureSource] = {}
    """Sources to train on; empty = every source in the folder."""
    stages: list[MixtureStage] = []
    """Shares of later parts of the run, in order; `sources` says those of its beginning, and the caps of all of it."""
    verify: Literal["size", "full"] = "size"
    """What is checked at start: the size of every shard, or also its sha256 (some 1 GB/s and rank)."""
    temperature: PositiveFloat = 1.0
    """Weights are raised to 1/temperature: 1 = as given, larger = flatter (mT5, Xue et al. 2021, section 3.1)."""
    packing: Literal["concatenate", "best_fit"] = "concatenate"
    """`concatenate` cuts the token stream into windows; `best_fit` packs whole documents (Ding et al. 2024)."""
    mask_across_documents: bool = False
    """Tokens attend only to their own document."""
    reset_position_ids: bool = False
    """Positions start at 0 in each document."""
