"""Rows of one conversation: OpenAI's messages, prompt and completion, Alpaca, ShareGPT."""

from collections import Counter
from collections.abc import Iterator, Sequence

from llmtrain.conversations.messages import check_conversation, check_prompt, parse_answer, parse_messages, parse_prompt
from llmtrain.conversations.records import Conversation, Message, Prompt, Role, identify
from llmtrain.conversations.row import Row

_ANSWERS = ("completion", "response")
_SHAREGPT_ROLES: dict[str, Role] = {"human": "user", "gpt": "assistant", "system": "system"}


def parse_messages_row(row: Row, source: str, _: Counter[str]) -> Iterator[Conversation]:
    """`messages`: a list of role and content, which ends with the assistant."""
    messages = parse_messages(row, "messages", row.find("messages"))
    yield _build(row, source, check_conversation(row, "messages", messages))


def parse_messages_prompt(row: Row, source: str) -> Prompt:
    """`messages` that end with either side; a last answer becomes the reference, else column `reference`, if any."""
    messages = parse_messages(row, "messages", row.find("messages"))
    if messages and messages[-1].role == "assistant":
        conversation = _build(row, source, check_conversation(row, "messages", messages))
        return Prompt(conversation.id, source, conversation.prompt, messages[-1].content)
    check_prompt(row, "messages", messages)
    reference = row.text("reference", is_optional=True) or None
    return Prompt(row.identity or identify(messages), source, messages, reference)


def parse_prompt_completion(row: Row, source: str, _: Counter[str]) -> Iterator[Conversation]:
    """`prompt` with `completion` or `response`, each a text or a list of messages."""
    found = [key for key in _ANSWERS if row.values.get(key) is not None]
    if len(found) > 1:
        raise row.refuse("completion", "stands beside 'response'", "Keep one of the two.", "two_answers")
    key = found[0] if found else _ANSWERS[0]
    prompt = parse_prompt(row, "prompt", row.find("prompt"))
    yield _build(row, source, (*prompt, Message("assistant", parse_answer(row, key, row.find(key)))))


def parse_alpaca(row: Row, source: str, _: Counter[str]) -> Iterator[Conversation]:
    """`instruction`, `input` (may be empty or missing) below it, `output`."""
    instruction, material = row.text("instruction"), row.text("input", is_optional=True)
    prompt = f"{instruction}\n\n{material}" if material.strip() else instruction
    yield _build(row, source, (Message("user", prompt), Message("assistant", row.text("output"))))


def parse_sharegpt(row: Row, source: str, _: Counter[str]) -> Iterator[Conversation]:
    """`conversations`: a list of from and value."""
    key = "conversations"
    messages = parse_messages(row, key, row.find(key), ("from", "value"), _SHAREGPT_ROLES)
    yield _build(row, source, check_conversation(row, key, messages))


def _build(row: Row, source: str, messages: Sequence[Message]) -> Conversation:
    return Conversation(row.identity or identify(messages), source, tuple(messages))
