"""The three kinds of record that post-training learns from, and their form in JSON.

Conversation    supervised fine-tuning: messages that end with the assistant's
Preference      reward model, DPO: a prompt and two answers, the first one better
Prompt          reinforcement learning: a prompt, with a good answer where one is known
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)
_ID_DIGITS = 16


@dataclass(frozen=True)
class Message:
    """What one side says."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """Messages that end with one of the assistant."""

    id: str
    source: str
    messages: tuple[Message, ...]

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All messages before the last one."""
        return self.messages[:-1]

    def to_dict(self) -> dict[str, Any]:
        """As one row of format `messages`."""
        return asdict(self) | {"messages": _to_rows(self.messages)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Conversation":
        """Take back what `to_dict` gave."""
        return cls(row["id"], row["source"], _from_rows(row["messages"]))


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt."""

    id: str
    source: str
    prompt: tuple[Message, ...]
    chosen: str
    rejected: str

    def to_dict(self) -> dict[str, Any]:
        """As one row of format `preference`."""
        return asdict(self) | {"prompt": _to_rows(self.prompt)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Preference":
        """Take back what `to_dict` gave."""
        return cls(row["id"], row["source"], _from_rows(row["prompt"]), row["chosen"], row["rejected"])


@dataclass(frozen=True)
class Prompt:
    """Messages that end with one of the user."""

    id: str
    source: str
    messages: tuple[Message, ...]
    reference: str | None
    """A good answer, if one is known."""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """All messages."""
        return self.messages

    def to_dict(self) -> dict[str, Any]:
        """As one row of format `messages`, with a key `reference`."""
        return asdict(self) | {"messages": _to_rows(self.messages)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> "Prompt":
        """Take back what `to_dict` gave."""
        return cls(row["id"], row["source"], _from_rows(row["messages"]), row["reference"])


def identify(*parts: Iterable[Message] | str | None) -> str:
    """Identity of a content: 16 hexadecimal digits of its sha256, the same on every machine.

    Args:
        parts: what the record says, in order; its source is no part of it.

    Returns:
        The id of a record that brings none.
    """
    content = [part if part is None or isinstance(part, str) else _to_rows(part) for part in parts]
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:_ID_DIGITS]


def _to_rows(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _from_rows(rows: Iterable[Mapping[str, Any]]) -> tuple[Message, ...]:
    return tuple(Message(row["role"], row["content"]) for row in rows)
