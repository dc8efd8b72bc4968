"""Conversations -> tokens with labels; what was left out is counted by reason, never dropped in silence."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from llmtrain.conversations.records import Conversation
from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.errors import DataError
from llmtrain.posttraining.chat import ChatTokenizer, naming
from llmtrain.posttraining.records import describe_empty


@dataclass
class Examples:
    """Encoded conversations."""

    input_ids: list[list[int]] = field(default_factory=list)
    labels: list[list[int]] = field(default_factory=list)
    """The same ids, `IGNORE_INDEX` where nothing is learned."""
    sources: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    """Records by reason."""
    longest_tokens: int = 0
    """Of any record, also of those that are too long."""

    def describe(self) -> dict[str, object]:
        """For the summary."""
        return {
            "examples": len(self.input_ids),
            "tokens": sum(map(len, self.input_ids)),
            "learned_tokens": sum(label != IGNORE_INDEX for row in self.labels for label in row),
            "longest_tokens": self.longest_tokens,
            "left_out": dict(sorted(self.left_out.items())),
        }


def encode_conversations(
    chat: ChatTokenizer,
    conversations: Sequence[Conversation],
    max_length: int,
    long_examples: Literal["leave_out", "cut", "refuse"],
    loss_on: Literal["assistant", "all"],
    training: int | None = None,
) -> Examples:
    """Encode by the chat template.

    Args:
        chat: the tokenizer.
        conversations: records.
        max_length: tokens of one example at most.
        long_examples: what becomes of longer ones.
        loss_on: which tokens have labels; the first token of a sequence has none.
        training: for held-out records, how many there are to train on; for messages.

    Raises:
        DataError: an example is longer and `long_examples` is `refuse`, or nothing is left.
    """
    examples = Examples()
    for record in conversations:
        if (special := chat.find_special(record.messages)) is not None:
            examples.left_out[f"spells the special token {special}"] += 1
            continue
        with naming(record):
            encoded = chat.encode(record.messages)
        ids, said = encoded.input_ids, encoded.is_said
        examples.longest_tokens = max(examples.longest_tokens, len(ids))
        if len(ids) > max_length:
            if long_examples == "refuse":
                raise DataError(
                    f"{record.source}: record {record.id} has {len(ids):,} tokens, more than {max_length:,}. Raise "
                    "sft.max_length, or set sft.long_examples to leave_out or cut."
                )
            if long_examples == "leave_out":
                examples.left_out[f"longer than {max_length} tokens"] += 1
                continue
            ids, said = ids[:max_length], said[:max_length]
        labels = [
            token if i and (flag or loss_on == "all") else IGNORE_INDEX
            for i, (token, flag) in enumerate(zip(ids, said, strict=True))
        ]
        if all(label == IGNORE_INDEX for label in labels):
            examples.left_out["nothing to learn within the limit"] += 1
            continue
        if len(encoded.input_ids) > max_length:
            examples.left_out[f"cut at {max_length} tokens (kept)"] += 1
        examples.input_ids.append(ids)
        examples.labels.append(labels)
        examples.sources.append(record.source)
    if not examples.input_ids:
        raise DataError(describe_empty("sft", "example", len(conversations), examples.left_out, training))
    return examples
