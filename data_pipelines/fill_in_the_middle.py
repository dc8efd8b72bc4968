"""Fill-in-the-middle: some documents are cut in three and reordered, so that a model learns to fill gaps.

    prefix-suffix-middle   <|fim_prefix|> prefix <|fim_suffix|> suffix <|fim_middle|> middle
    suffix-prefix-middle   <|fim_prefix|> <|fim_suffix|> suffix <|fim_middle|> prefix middle

Texts are cut between characters, before they are tokenized. Which documents, where, and into which of the two forms
depends on the document's id alone. In: a document. Out: its parts in order, texts and sentinel symbols.

Source:
    Bavarian et al. 2022, "Efficient Training of Language Models to Fill in the Middle", sections 3 and 4.
"""

import hashlib
from dataclasses import dataclass

from llmtrain.config.corpus import FillInTheMiddle
from llmtrain.tokenizer.special_tokens import FIM_MIDDLE, FIM_PREFIX, FIM_SUFFIX


@dataclass(frozen=True)
class Part:
    """A piece of a document, or a sentinel."""

    text: str
    is_sentinel: bool = False


PREFIX, MIDDLE, SUFFIX = (Part(symbol, is_sentinel=True) for symbol in (FIM_PREFIX, FIM_MIDDLE, FIM_SUFFIX))


def rearrange(document_id: str, text: str, config: FillInTheMiddle | None) -> list[Part]:
    """Parts of a document in the order in which they are tokenized.

    Args:
        document_id: decides everything that is drawn.
        text: of the document.
        config: null leaves every document as it is.

    Returns:
        The text alone, or three texts (two of them may stand together) and the sentinels.
    """
    if config is None:
        return [Part(text)]
    digest = hashlib.sha256(b"fill in the middle " + document_id.encode()).digest()
    chosen, form, first, second = (int.from_bytes(digest[i : i + 8], "big") for i in range(0, 32, 8))
    if chosen >= config.rate * 2**64:
        return [Part(text)]
    start, end = sorted(number * (len(text) + 1) >> 64 for number in (first, second))
    prefix, middle, suffix = Part(text[:start]), Part(text[start:end]), Part(text[end:])
    if form < config.spm_fraction * 2**64:
        return [PREFIX, SUFFIX, suffix, MIDDLE, prefix, middle]
    return [PREFIX, prefix, SUFFIX, suffix, MIDDLE, middle]


def restore(parts: list[Part]) -> str:
    """The document that `rearrange` took apart."""
    if PREFIX not in parts:
        return "".join(part.text for part in parts)
    suffix_at, middle_at = parts.index(SUFFIX), parts.index(MIDDLE)
    prefix, suffix, rest = parts[1:suffix_at], parts[suffix_at + 1 : middle_at], parts[middle_at + 1 :]
    return "".join(part.text for part in (*prefix, *rest, *suffix))
