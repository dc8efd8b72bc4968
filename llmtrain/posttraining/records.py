"""The records of a stage: read by source, split into training and held-out by prompt, identified by content."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic

from llmtrain.config.records import RecordsConfig
from llmtrain.conversations.read import Records, read_conversations, read_preferences, read_prompts
from llmtrain.conversations.records import Conversation, Preference, Prompt
from llmtrain.conversations.split import RecordT, normalize, split_held_out
from llmtrain.errors import ConfigError


@dataclass
class SplitRecords(Generic[RecordT]):
    """Records of all sources of a stage."""

    train: list[RecordT] = field(default_factory=list)
    held_out: list[RecordT] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    files: list[tuple[str, str, str]] = field(default_factory=list)
    """Source, path and sha256."""

    def describe(self) -> dict[str, Any]:
        """For the summary."""
        return {
            "train": dict(Counter(item.source for item in self.train)),
            "held_out": dict(Counter(item.source for item in self.held_out)),
            "left_out": dict(sorted(self.left_out.items())),
            "files": [{"source": source, "path": path, "sha256": digest} for source, path, digest in self.files],
        }


def describe_empty(key: str, what: str, count: int, left_out: Mapping[str, int], training: int | None) -> str:
    """That nothing is left, and why, for messages.

    Args:
        key: section of the stage.
        what: is missing, `example` or `pair`.
        count: records there were.
        left_out: reason -> count.
        training: records that are left to train on where held-out ones are missing; None = these are missing.
    """
    reasons = ", ".join(f"{reason}: {number}" for reason, number in left_out.items()) or "there were none"
    if training is None:
        return (
            f"{key}.data: no {what} is left of {count} records ({reasons}). Mend them, name others in {key}.data, or "
            f"raise {key}.max_length if they are too long."
        )
    return (
        f"{key}.data: no held-out {what} is left of {count} held-out records ({reasons}); {training} are left to train "
        f"on. Raise {key}.validation_fraction, or mend the records."
    )


def read_split_conversations(data: Mapping[str, RecordsConfig], fraction: float) -> SplitRecords[Conversation]:
    """Conversations of all sources; see `_read_split`."""
    return _read_split(data, fraction, read_conversations, "sft.data")


def read_split_preferences(data: Mapping[str, RecordsConfig], fraction: float) -> SplitRecords[Preference]:
    """Pairs of all sources; see `_read_split`."""
    return _read_split(data, fraction, read_preferences, "reward.data")


def read_split_prompts(data: Mapping[str, RecordsConfig], fraction: float) -> SplitRecords[Prompt]:
    """Prompts of all sources, each once; see `_read_split`."""
    records = _read_split(data, fraction, read_prompts, "ppo.prompts")
    records.train, records.held_out = _keep_first(records.train), _keep_first(records.held_out)
    return records


def _read_split(
    data: Mapping[str, RecordsConfig],
    fraction: float,
    read: Callable[[RecordsConfig, str], Records[RecordT]],
    key: str,
) -> SplitRecords[RecordT]:
    """Read every source and hold out the same share of the prompts of each.

    Raises:
        ConfigError: there is no source.
        DataError: a source cannot be read.
    """
    if not data:
        raise ConfigError(f"{key}: no source. Name files there, or add section `instructions` to make some.")
    result: SplitRecords[RecordT] = SplitRecords()
    for source, config in data.items():
        records = read(config, source)
        train, held_out = split_held_out(records.items, fraction)
        result.train += train
        result.held_out += held_out
        result.left_out.update(records.left_out)
        result.files += [(source, str(path), digest) for path, digest in records.files]
    # A prompt of two sources: the hash holds it out in both, unless a minimum was filled up in one.
    held = {normalize(item.prompt) for item in result.held_out}
    kept = [item for item in result.train if normalize(item.prompt) not in held]
    if len(kept) < len(result.train):
        result.left_out["prompt is held out in another source"] += len(result.train) - len(kept)
        result.train = kept
    return result


def _keep_first(prompts: list[Prompt]) -> list[Prompt]:
    return list({normalize(prompt.prompt): prompt for prompt in reversed(prompts)}.values())[::-1]
