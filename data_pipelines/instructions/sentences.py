"""Text -> sentences, by rules that know abbreviations, initials and brackets."""

import re
from collections.abc import Iterator


def word_set(words: str, separator: str | None = None) -> frozenset[str]:
    """A set of words written one after the other."""
    return frozenset(words.split(separator))


_END = re.compile(r"[.!?][\"\u201d\u2019')\]]*\s+(?=[\"\u201c\u2018'(\[]?[A-Z0-9])")
_ABBREVIATIONS = word_set(
    "mr mrs ms dr prof rev st sr jr vs etc cf ca c e.g i.e al fig figs no nos vol pp p ed eds trans approx inc ltd "
    "co corp gen col lt capt sgt gov sen rep hon pres dept univ mt ft jan feb mar apr jun jul aug sep sept oct nov "
    "dec b d r fl lit esp incl op"
)
_DOTTED = re.compile(r"(?:^|[\s(\"\u201c])(?:[A-Za-z]\.)+$")
# Words that begin a sentence and no name: after "U.S." or an initial they tell its end.
_STARTERS = word_set(
    "The A An It In On At He She They We This That These Those There However Although While When Since After Before "
    "As If But And Its His Her Their By For From With During Many Most Some Such"
)
_WORD = re.compile(r"[A-Za-z]+")
_TABLE = re.compile(r" \| |\t| {3}")
_PAIRS = (("(", ")"), ("[", "]"), ("\u201c", "\u201d"), ("{", "}"))
_DEPENDENT = word_set(
    "this that these those such thus therefore hence however moreover furthermore additionally also then so but and "
    "or another both instead nevertheless nonetheless similarly likewise conversely consequently it they he she its "
    "their his her there here one others some many most several few each either neither what which who when where "
    "if note see for we you i my our your all other"
)
_MIN_WORDS = 4
_LIST_ITEM = re.compile(r"[.:;)] [-*] |[(;] ?[\u2013-] ")
_SLASHED = re.compile(" /(?=[^/\\n]*[\u02c8\u02cc\u0250-\u02af])[^/\\n]*/")
_ASIDE = re.compile(r" ?\(([^()]*)\)")
_PHONETIC = re.compile("[\u02c8\u02cc\u02d0\u0250-\u02af\u014b\u00f0\u03b8]|^/.*/$")


def split_sentences(paragraph: str) -> list[str]:
    """Sentences of a paragraph, with single spaces; the last one may lack its end."""
    text = " ".join(paragraph.split())
    return list(_split(text))


def take_sentences(sentences: list[str], max_characters: int) -> str:
    """As many sentences from the beginning as fit; "" if the first one does not."""
    taken = ""
    for sentence in sentences:
        longer = f"{taken} {sentence}".strip()
        if len(longer) > max_characters or not is_clean(sentence):
            break
        taken = longer
    return taken


def is_clean(sentence: str) -> bool:
    """Whether a sentence is whole prose: it begins and ends as one, its brackets close, it is no row of a table."""
    return (
        sentence.rstrip("\"\u201d\u2019')]")[-1:] in (".", "!", "?")
        and not sentence.endswith(("..", "etc.)"))
        and (sentence[0].isupper() or sentence[0] in '"\u201c')
        and len(sentence.split()) >= _MIN_WORDS
        and all(sentence.count(first) == sentence.count(last) for first, last in _PAIRS)
        and sentence.count('"') % 2 == 0
        and not _TABLE.search(sentence)
        and not _LIST_ITEM.search(sentence)
        and "()" not in sentence
    )


def stands_alone(sentence: str) -> bool:
    """Whether a sentence begins with no word that points at what was said before."""
    word = _WORD.match(sentence)
    return word is not None and word[0].lower() not in _DEPENDENT


def drop_pronunciation(text: str) -> str:
    """A text without phonetic transcriptions in brackets, which are no help to who reads letters."""
    return _SLASHED.sub("", _ASIDE.sub(_drop_phonetic, text))


def _drop_phonetic(match: re.Match[str]) -> str:
    parts = [part.strip() for part in match[1].split(";")]
    kept = [part for part in parts if not _PHONETIC.search(part)]
    if len(kept) == len(parts):
        return match[0]
    space = " " if match[0].startswith(" ") else ""
    return f"{space}({'; '.join(kept)})" if kept else ""


def _split(text: str) -> Iterator[str]:
    start = 0
    for match in _END.finditer(text):
        if _is_end(text, start, match):
            yield text[start : match.end()].strip()
            start = match.end()
    if text[start:].strip():
        yield text[start:].strip()


def _is_end(text: str, start: int, match: re.Match[str]) -> bool:
    before = text[start : match.start()]
    if before.count("(") > before.count(")") + match[0].count(")"):
        return False
    if match[0][0] != ".":
        return True
    following = _WORD.match(text, match.end())
    if _DOTTED.search(before + "."):
        return following is not None and following[0] in _STARTERS
    last = before.rsplit(None, 1)[-1].lstrip("([\"\u201c'").lower() if before.split() else ""
    if last in ("no", "nos", "fig", "figs", "p", "pp", "vol", "c", "b", "d", "r", "op"):
        return not text[match.end()].isdigit() and len(last) > 1
    return last not in _ABBREVIATIONS
