"""Records of conversations: where they lie and in which public format."""

from typing import Annotated, Literal

from pydantic import Field

from llmtrain.config.section import Section

RecordFormat = Literal[
    "messages",
    "prompt_completion",
    "alpaca",
    "sharegpt",
    "open_assistant",
    "hh_rlhf",
    "ultrafeedback",
    "preference",
]


class RecordsConfig(Section):
    """One source of conversations, pairs or prompts."""

    paths: Annotated[tuple[str, ...], Field(min_length=1)]
    """Files or globs: `.jsonl`, `.json`, also `.gz` and `.zst`, and `.parquet`."""
    format: RecordFormat | None = None
    """Format of the rows; null = told by their columns."""
    licence: str = "unknown"
    """Licence of the text."""
