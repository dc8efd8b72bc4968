"""Section `data`: token shards -> batches: the mixture, packing, masking."""

from pathlib import Path
from typing import Literal

from llmtrain.config.section import Name, NonNegativeFloat, PositiveFloat, Section


class MixtureSource(Section):
    """One source of the mixture."""

    weight: NonNegativeFloat | None = None
    """Relative share of the sampled sequences. Null for all sources: the size of each in tokens."""
    max_epochs: PositiveFloat | None = None
    """Refuse a run that would read this source more often; null = no cap."""


class DataConfig(Section):
    """What training reads."""

    folder: Path
    """Folder written by `llmtrain data prepare`: tokenizer and shards by source."""
    sources: dict[Name, MixtureSource] = {}
    """Sources to train on; empty = every source in the folder."""
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
