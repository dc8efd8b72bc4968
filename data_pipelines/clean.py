r"""Cleaning: which documents stay, and what is mended in those that do.

Mended: line ends become \n, control characters go, U+2581 becomes a space (SentencePiece writes spaces with it and
could not tell them apart), memory addresses lose their digits, trailing white space goes. Dropped: see `find_fault`.
"""

import re
import unicodedata

from llmtrain.config.corpus import CleanConfig

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,16}\b")
_TRAILING_SPACE = re.compile(r"[ \t]+$", re.MULTILINE)


def mend(text: str) -> str:
    """The text with what no document should hold taken out."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\u2581", " ")
    text = _CONTROL.sub("", _SURROGATE.sub("\ufffd", text))
    text = _ADDRESS.sub("at 0x...", text)
    return unicodedata.normalize("NFC", _TRAILING_SPACE.sub("", text)).strip("\n") + "\n"


def find_fault(text: str, config: CleanConfig) -> str | None:
    """Why a mended document is dropped; None when it stays.

    Args:
        text: the document.
        config: section `corpus.clean`.
    """
    if len(text) < config.min_characters:
        return "too_short"
    if len(text) > config.max_characters:
        return "too_long"
    if max(map(len, text.splitlines()), default=0) > config.max_line_characters:
        return "long_line"
    printable = sum(character.isprintable() or character in "\n\t" for character in text)
    if printable < config.min_printable_fraction * len(text):
        return "binary"
    return None
