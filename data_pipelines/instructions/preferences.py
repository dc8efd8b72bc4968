"""Real answers and worse ones: for another question, cut off, shuffled, or with a phrase that repeats.

The four ways go by turns. Each makes the worse answer longer and shorter equally often, or has one that does the
contrary, so that length does not tell which of two answers is the better one.
"""

import hashlib
import random
import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from data_pipelines.instructions.draft import Draft
from llmtrain.conversations.records import Message, Preference, identify

CORRUPTIONS = ("off_topic", "cut", "shuffled", "repeated")
_MIN_WORDS = 4
_NEIGHBOURS = 40
_END = re.compile(r"[.!?][\"')\]]*$")


@dataclass(frozen=True)
class _Pool:
    """All answers of a kind by length, to take off-topic ones from."""

    drafts: Sequence[Draft]
    lengths: Sequence[int]


def make_preferences(kind: str, drafts: Sequence[Draft], seed: int) -> tuple[list[Preference], Counter[str]]:
    """One preference for each draft that a worse answer can be made for.

    Args:
        kind: of the drafts; the source of the preferences. Their ids end with how the worse answer was made.
        drafts: questions with their real answers.
        seed: with the question, decides everything that is drawn.

    Returns:
        The preferences in order, and counts of drafts left out by reason.
    """
    by_length = sorted(drafts, key=lambda draft: (len(draft.answer), draft.answer, draft.prompt))
    pool = _Pool(by_length, [len(draft.answer) for draft in by_length])
    made, left_out = [], Counter[str]()
    for number, draft in enumerate(drafts):
        digest = hashlib.sha256(f"{seed}\0{draft.prompt}".encode()).digest()
        corruption, rejected = _corrupt(draft, pool, number, random.Random(digest))
        if rejected is None:
            left_out["no_worse_answer"] += 1
            continue
        prompt = (Message("user", draft.prompt),)
        own = f"{identify(prompt, draft.answer, rejected)}-{corruption}"
        made.append(Preference(own, kind, prompt, draft.answer, rejected))
    return made, left_out


def describe_balance(preferences: Sequence[Preference]) -> dict[str, Any]:
    """Counts by how the worse answer was made, and shares of pairs whose chosen answer is longer, or equal."""
    total = max(1, len(preferences))
    longer = sum(len(pair.chosen) > len(pair.rejected) for pair in preferences)
    equal = sum(len(pair.chosen) == len(pair.rejected) for pair in preferences)
    return {
        "corruptions": dict(sorted(Counter(pair.id.rpartition("-")[2] for pair in preferences).items())),
        "chosen_longer_fraction": round(longer / total, 4),
        "equal_length_fraction": round(equal / total, 4),
    }


def _corrupt(draft: Draft, pool: _Pool, number: int, draw: random.Random) -> tuple[str, str | None]:
    """The way whose turn it is; for an answer too short for it, the one after."""
    is_longer = number // len(CORRUPTIONS) % 2 == 0
    ways: dict[str, Callable[[], str | None]] = {
        "off_topic": lambda: _take_another(draft, pool, is_longer, draw),
        "cut": lambda: _cut(draft.answer, draw),
        "shuffled": lambda: _shuffle(draft.answer, is_longer, draw),
        "repeated": lambda: _repeat(draft.answer, draw),
    }
    for turn in range(len(CORRUPTIONS)):
        name = CORRUPTIONS[(number + turn) % len(CORRUPTIONS)]
        rejected = ways[name]()
        if rejected and rejected.strip() != draft.answer.strip():
            return name, rejected
    return "", None


def _take_another(draft: Draft, pool: _Pool, is_longer: bool, draw: random.Random) -> str | None:
    """An answer to a question on another topic, a little longer or shorter."""
    length = len(draft.answer)
    first, last = bisect_left(pool.lengths, length), bisect_right(pool.lengths, length)
    shorter, longer = pool.drafts[max(0, first - _NEIGHBOURS) : first], pool.drafts[last : last + _NEIGHBOURS]
    for near in (longer, shorter) if is_longer else (shorter, longer):
        others = [other.answer for other in near if other.topic != draft.topic]
        if others:
            return draw.choice(others)
    return None


def _cut(answer: str, draw: random.Random) -> str | None:
    """The beginning of an answer, up to a word within a sentence."""
    ends = [match.start() for match in re.finditer(r"\s+", answer)]
    fitting = [end for end in ends if end >= len(answer) * 0.4 and not _END.search(answer[:end])]
    return answer[: draw.choice(fitting)] if fitting else None


def _shuffle(answer: str, is_longer: bool, draw: random.Random) -> str | None:
    """The words of an answer in another order, white space in its place; one word is doubled or left out."""
    parts = re.split(r"(\s+)", answer)
    words, spaces = parts[::2], parts[1::2]
    if len(set(words)) < _MIN_WORDS:
        return None
    shuffled = words[:]
    while shuffled == words:
        draw.shuffle(shuffled)
    if is_longer:
        shuffled, spaces = [*shuffled, draw.choice(words)], [*spaces, " "]
    else:
        shuffled, spaces = shuffled[:-1], spaces[:-1]
    return "".join(word + space for word, space in zip(shuffled, [*spaces, ""], strict=True)).strip()


def _repeat(answer: str, draw: random.Random) -> str | None:
    """An answer in which a phrase stands several times in a row."""
    words = list(re.finditer(r"\S+", answer))
    if len(words) < _MIN_WORDS:
        return None
    size = draw.randint(2, min(4, len(words) - 1))
    start = draw.randrange(len(words) - size + 1)
    begin, end = words[start].start(), words[start + size - 1].end()
    phrase = answer[begin:end]
    return answer[:end] + f" {phrase}" * draw.randint(1, 3) + answer[end:]
