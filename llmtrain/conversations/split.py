"""Records held out from training, chosen by their prompt, and a search for prompts that both parts share."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import TypeVar

from llmtrain.conversations.records import Conversation, Message, Preference, Prompt
from llmtrain.errors import DataError

AnyRecord = Conversation | Preference | Prompt
RecordT = TypeVar("RecordT", Conversation, Preference, Prompt)
_RANGE = 1 << 64


def split_held_out(items: Sequence[RecordT], fraction: float, minimum: int = 1) -> tuple[list[RecordT], list[RecordT]]:
    """Hold out a share of the prompts, by the hash of their text, with all records that have them.

    What is held out depends on the prompt alone: records that are added later move no earlier one, unless the minimum
    had to be filled up. Prompts that differ in case, white space or punctuation count as one.

    Args:
        items: records in any order.
        fraction: share of the prompts, 0 to 1; 0 holds out nothing.
        minimum: records to hold out at least; filled up with the prompts of the lowest hashes.

    Returns:
        Training and held-out records, each in the order given.

    Raises:
        DataError: all records would have to be held out.
    """
    if fraction <= 0 or not items:
        return list(items), []
    places = [_place(item.prompt) for item in items]
    limit = int(fraction * _RANGE)
    ordered = sorted(places)
    if minimum > 0:
        limit = max(limit, ordered[min(minimum, len(ordered)) - 1] + 1)
    train = [item for item, place in zip(items, places, strict=True) if place >= limit]
    if not train:
        raise DataError(
            f"{len(items):,} records with {len(set(places)):,} different prompts: nothing would be left to train on "
            f"with a share of {fraction} and at least {minimum:,} held out. Add records, or hold out fewer."
        )
    return train, [item for item, place in zip(items, places, strict=True) if place < limit]


def find_shared_prompts(train: Iterable[AnyRecord], held_out: Iterable[AnyRecord]) -> list[str]:
    """Prompts of held-out records that stand in training too, but for case, white space and punctuation.

    Returns:
        Their texts as they are held out, in that order, each once; empty if nothing leaks.
    """
    seen = {normalize(item.prompt) for item in train}
    shared = (item.prompt for item in held_out if normalize(item.prompt) in seen)
    return list(dict.fromkeys(_join(prompt) for prompt in shared))


def normalize(messages: Iterable[Message]) -> str:
    """A prompt as its letters and digits in lower case, with single spaces; as it is if it has none."""
    text = _join(messages)
    words = "".join(character if character.isalnum() else " " for character in text.casefold()).split()
    return " ".join(words) or text


def _join(messages: Iterable[Message]) -> str:
    return "\n".join(message.content for message in messages)


def _place(prompt: Iterable[Message]) -> int:
    return int.from_bytes(hashlib.sha256(normalize(prompt).encode()).digest()[:8])
