"""Texts that tokenizers stumble over, drawn with a fixed seed. No U+2581 and no NUL: the pipelines take them out."""

import random
import string

from llmtrain.tokenizer.special_tokens import CONTROL_SYMBOLS
from tests.helpers.texts import stdlib_texts

_PIECES = [
    " ",
    "  ",
    "\n",
    "\t",
    "\r\n",
    "    ",
    "the",
    "def",
    "é",
    "e\u0301",
    "日本",
    "🙂",
    "👩‍👩‍👧",
    "\u200b",
    "\ufeff",
    "\u00a0",
]
_PIECES += ["<s>", "</s>", "<pad>", "<unk>", "<0x41>", *CONTROL_SYMBOLS]
_FORBIDDEN = {0x2581, 0}


def fuzz_texts(count: int) -> list[str]:
    """So many texts, the same ones every time."""
    draw = random.Random(0)
    words = " ".join(stdlib_texts()).split(" ")
    return [_draw_text(draw, words) for _ in range(count)]


def _draw_text(draw: random.Random, words: list[str]) -> str:
    kind = draw.randrange(4)
    if kind == 0:
        return " ".join(draw.choices(words, k=draw.randint(1, 40)))
    if kind == 1:
        return "".join(draw.choices(_PIECES, k=draw.randint(0, 25)))
    if kind == 2:
        return "".join(draw.choices(string.printable, k=draw.randint(0, 60)))
    points = [draw.randrange(1, 0x11000) for _ in range(draw.randint(0, 30))]
    return "".join(chr(p) for p in points if p not in _FORBIDDEN and not 0xD800 <= p < 0xE000)
