"""Records of conversations, preferences or prompts: which files, in which format. Part of other sections."""

from typing import Literal

from pydantic import Field

from llmtrain.config.section import Section

RecordFormat = Literal[
    "messages",
    "prompt_completion",
    "prompt",
    "alpaca",
    "sharegpt",
    "open_assistant",
    "hh_rlhf",
    "ultrafeedback",
    "preference",
]


class RecordsConfig(Section):
    """Where records are read from."""

    paths: tuple[str, ...] = Field(min_length=1)
    """Files or globs: `.jsonl`, `.json` (each also with `.gz` or `.zst`), `.parquet`. Globs go by name."""
    format: RecordFormat | None = None
    """Format of the rows, see docs/conversations.md. Null: told by the columns of the first row of each file."""
    bad_rows: Literal["refuse", "leave_out"] = "refuse"
    """What becomes of a row that does not follow its format: `refuse` stops at the first one and names it; `leave_out`
    counts it by reason and goes on."""
    licence: str = "unknown"
    """Licence of the records, told in what is made of them (SPDX where there is one)."""
