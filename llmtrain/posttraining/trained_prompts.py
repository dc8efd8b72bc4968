"""Which prompts a model was trained on: what a later stage may not call held out.

MODEL/trained_prompts.txt    one hash of a prompt a line, of this stage and all before it
"""

import hashlib
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

from llmtrain.conversations.records import Message
from llmtrain.conversations.split import RecordT, normalize
from llmtrain.errors import DataError
from llmtrain.posttraining.records import SplitRecords

FILE_NAME = "trained_prompts.txt"
REASON = "held-out prompt that a model before was trained on"


def hash_prompt(messages: Iterable[Message]) -> str:
    """16 hexadecimal digits of the text, whatever its case, white space and punctuation."""
    return hashlib.sha256(normalize(messages).encode()).hexdigest()[:16]


def read_trained(models: Mapping[str, Path]) -> set[str]:
    """Hashes of the prompts that any of the models was trained on; a model made elsewhere tells none."""
    paths = [folder / FILE_NAME for folder in models.values()]
    return {line for path in paths if path.is_file() for line in path.read_text(encoding="ascii").split()}


def render_trained(prompts: Iterable[Iterable[Message]], before: Set[str]) -> str:
    """The file of a model: prompts of this stage and of those before it."""
    return "".join(f"{line}\n" for line in sorted({hash_prompt(prompt) for prompt in prompts} | before))


def leave_out_trained(records: SplitRecords[RecordT], known: Set[str], key: str) -> None:
    """Take held-out records away whose prompts a model before was trained on; they are counted.

    Args:
        records: of a stage.
        known: of all models that it starts from.
        key: of the section, for messages.

    Raises:
        DataError: none is left.
    """
    kept = [item for item in records.held_out if hash_prompt(item.prompt) not in known]
    left_out = len(records.held_out) - len(kept)
    if left_out and not kept:
        raise DataError(
            f"{key}: all {left_out:,} held-out prompts were trained on by a model that this stage starts from. Give "
            "all stages the same validation_fraction and records, or add records."
        )
    if left_out:
        records.left_out[REASON] += left_out
        records.held_out = kept
