"""Rows of two answers to one prompt: transcripts as in HH-RLHF, and TRL's forms, UltraFeedback's among them."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from llmtrain.conversations.messages import check_conversation, check_order, check_prompt, parse_answer, parse_messages
from llmtrain.conversations.messages import parse_prompt as parse_explicit_prompt
from llmtrain.conversations.records import Message, Preference, Role, identify
from llmtrain.conversations.row import Row, show

_TURN = re.compile(r"\n\n(Human|Assistant):")
_SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
_PROMPTS_DIFFER = "prompts_differ"


def is_transcript(value: object) -> bool:
    """Whether a value begins as the transcripts of HH-RLHF do."""
    return isinstance(value, str) and _TURN.match(value) is not None


def parse_hh_rlhf(row: Row, source: str, left_out: Counter[str]) -> Iterator[Preference]:
    """`chosen` and `rejected`: transcripts that differ in the last answer."""
    chosen, rejected = (_parse_transcript(row, key) for key in ("chosen", "rejected"))
    yield from _build(row, source, left_out, _match_prompts(row, chosen, rejected), chosen[-1], rejected[-1])


def parse_preference(row: Row, source: str, left_out: Counter[str]) -> Iterator[Preference]:
    """`prompt`, `chosen`, `rejected`: texts or lists of messages.

    Lists may hold the answer alone or the prompt before it. Without `prompt`, the prompt is what both begin with: of
    texts, up to the last white space there.
    """
    chosen, rejected = row.find("chosen"), row.find("rejected")
    if type(chosen) is not type(rejected):
        raise row.refuse(
            "rejected", f"= {show(rejected)}: of another type than 'chosen'", "Write both alike.", "wrong_type"
        )
    if row.values.get("prompt") is None:
        if isinstance(chosen, list):
            answers = [check_conversation(row, key, parse_messages(row, key, row.find(key))) for key in _BOTH]
            prompt = _match_prompts(row, *answers)
            yield from _build(row, source, left_out, prompt, answers[0][-1], answers[1][-1])
        else:
            yield from _parse_common_beginning(row, source, left_out)
        return
    prompt = parse_explicit_prompt(row, "prompt", row.find("prompt"))
    first, second = (Message("assistant", _strip_prompt(row, key, prompt)) for key in _BOTH)
    yield from _build(row, source, left_out, prompt, first, second)


_BOTH = ("chosen", "rejected")


def _strip_prompt(row: Row, key: str, prompt: Sequence[Message]) -> str:
    """The answer of a column, which may hold the prompt before it."""
    value = row.values[key]
    if not isinstance(value, list) or len(value) < 2:
        return parse_answer(row, key, value)
    messages = check_conversation(row, key, parse_messages(row, key, value))
    spoken = [message for message in messages[:-1] if message.role != "system"]
    if spoken != [message for message in prompt if message.role != "system"]:
        remedy = "Let the list be the answer alone, or the prompt and the answer."
        raise row.refuse(key, "holds another prompt than 'prompt'", remedy, _PROMPTS_DIFFER)
    return messages[-1].content


def _parse_common_beginning(row: Row, source: str, left_out: Counter[str]) -> Iterator[Preference]:
    chosen, rejected = row.text("chosen"), row.text("rejected")
    if chosen == rejected:
        left_out["chosen_equals_rejected"] += 1
        return
    end = next(
        (i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), min(len(chosen), len(rejected))
    )
    spaces = [match.end() for match in re.finditer(r"\s", chosen[:end])]
    cut = spaces[-1] if spaces else 0
    if not chosen[:cut].strip():
        problem = "and 'rejected' begin with no words in common, so there is no prompt"
        raise row.refuse("chosen", problem, "Add a column prompt.", _PROMPTS_DIFFER)
    prompt = (Message("user", chosen[:cut].strip()),)
    answers = [
        Message("assistant", row.check_text(key, text[cut:]))
        for key, text in zip(_BOTH, (chosen, rejected), strict=True)
    ]
    yield from _build(row, source, left_out, prompt, *answers)


def _parse_transcript(row: Row, key: str) -> tuple[Message, ...]:
    text = row.text(key)
    before, *parts = _TURN.split(text)
    if before.strip() or not parts:
        raise row.refuse(
            key, f"= {show(text)}: does not begin with '\\n\\nHuman:'", "Write it as HH-RLHF does.", "wrong_type"
        )
    messages = []
    for index, (speaker, content) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        messages.append(Message(_SPEAKERS[speaker], row.check_text(f"{key}[{index}]", content).strip()))
    check_order(row, key, messages)
    return check_conversation(row, key, messages)


def _match_prompts(row: Row, chosen: Sequence[Message], rejected: Sequence[Message]) -> tuple[Message, ...]:
    if tuple(chosen[:-1]) != tuple(rejected[:-1]):
        remedy = "Let them differ in the last answer alone."
        raise row.refuse("rejected", "answers another prompt than 'chosen'", remedy, _PROMPTS_DIFFER)
    return check_prompt(row, "chosen", chosen[:-1])


def _build(
    row: Row, source: str, left_out: Counter[str], prompt: tuple[Message, ...], chosen: Message, rejected: Message
) -> Iterator[Preference]:
    if chosen.content.strip() == rejected.content.strip():
        left_out["chosen_equals_rejected"] += 1
        return
    own = row.identity or identify(prompt, chosen.content, rejected.content)
    yield Preference(own, source, prompt, chosen.content, rejected.content)
