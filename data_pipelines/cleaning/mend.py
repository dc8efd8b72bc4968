r"""What is mended in every document before any step looks at it.

Line ends become \n, control characters go, U+2581 becomes a space (SentencePiece writes spaces with it and could not
tell them apart), memory addresses lose their digits, trailing white space goes.
"""

import re
import unicodedata

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
