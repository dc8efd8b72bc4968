"""Kind `manual`: what a name in a manual is, returns or does.

get_python_inc(plat_specific=0)
Return the directory containing ...               ->    What does `get_python_inc` of `distutils.sysconfig` do?
The process.stderr property returns ...           ->    What does the process.stderr property return?
"""

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from data_pipelines.document import Document
from data_pipelines.instructions.articles import is_prose
from data_pipelines.instructions.draft import Draft
from data_pipelines.instructions.sentences import is_clean, split_sentences, stands_alone, take_sentences, word_set
from llmtrain.config.instructions import InstructionsConfig

_ENTRY = re.compile(
    r"^[ |]*(?P<name>[A-Za-z_][\w.]*)\((?P<arguments>[^()\n]*(?:\([^()\n]*\)[^()\n]*)*)\)(?: -> [^\n]*)?$"
)
_VERB = re.compile(r"^[A-Z][a-z]+s? [a-z0-9'\"`*]")
_SENTENCE = re.compile(
    r"^(?P<article>The |An? )?(?P<name>[\w`'.()_-]+(?: [\w`'.()_-]+){0,3}) "
    r"(?P<verb>is|are|returns|contains|provides|specifies|determines|defines|represents|creates|prints|raises|enables|"
    r"describes|allows|supports|controls|converts) (?P<rest>.+)$"
)
_CODE = re.compile(r"[A-Z_.`'()\d-]")
_UNDERSCORE = re.compile(r"^(\w+)_\.\1$")
_PLAIN_VERB = {"is", "are"}
_NO_NAME = word_set(
    "following next other bottom top returned given added optional writes reads part parts word words value is are "
    "was were has have had that which who when where while and or but not there it this these they because if than "
    "as been being can could may might will would should must to function following method value default result "
    "same first second last only next example argument purpose above below latter former name reason option "
    "behavior behaviour output problem idea type code program"
)
_IS = re.compile(r"^(?:an?|the|used|one of|similar|equivalent|called|raised|returned) ")


def find_manual_entries(document: Document, config: InstructionsConfig) -> Iterator[Draft]:
    """Drafts of a page that is no article: described names, and sentences that tell what something is or does."""
    if not is_prose(document) or document.text.startswith("# "):
        return
    yield from _find_entries(document, config)
    for paragraph in re.split(r"\n\s*\n", document.text):
        if "\n   " not in paragraph and len(paragraph) > 40:
            for sentence in split_sentences(paragraph):
                draft = _make(document, sentence)
                if draft is not None:
                    yield draft


def _find_entries(document: Document, config: InstructionsConfig) -> Iterator[Draft]:
    """Names with arguments on a line of their own, and what the lines below tell of them."""
    page = _page(document)
    lines = document.text.split("\n")
    for number, line in enumerate(lines[:-1]):
        entry = _ENTRY.match(line)
        if entry is None or entry["name"].startswith("__"):
            continue
        told = []
        for below in lines[number + 1 : number + 6]:
            if not below.strip() or _ENTRY.match(below):
                break
            told.append(below.strip(" |"))
        text = " ".join(told)
        answer = take_sentences(split_sentences(text), config.max_response_characters)
        if answer and _VERB.match(answer) and stands_alone(answer):
            of = f" of `{page}`" if page else ""
            name = _UNDERSCORE.sub(r"_.\1", entry["name"])  # a heading and the name run together
            yield Draft(f"What does `{name}`{of} do?", answer, page or document.origin)


def _make(document: Document, sentence: str) -> Draft | None:
    match = _SENTENCE.match(sentence)
    if match is None or not is_clean(sentence) or not stands_alone(sentence):
        return None
    name, verb, determiner = match["name"], match["verb"], (match["article"] or "").lower()
    words = name.lower().split()
    if _NO_NAME & set(words) or words[0].endswith("ing") or len(match["rest"].split()) < 3 or _NO_VERB & set(words):
        return None
    if not _is_name(name, determiner):
        return None
    if verb in _PLAIN_VERB and not _IS.match(match["rest"]):
        return None
    if not determiner and name.isalpha() and name[0].isupper() and name[1:].islower():
        name = name[0].lower() + name[1:] if verb in _PLAIN_VERB else name
    asked = f"{determiner}{name}"
    question = f"What {verb} {asked}?" if verb in _PLAIN_VERB else f"What does {asked} {_infinitive(verb)}?"
    return Draft(question, sentence, _page(document) or document.origin)


def _is_name(name: str, determiner: str) -> bool:
    """Whether words in front of a verb name one thing, whatever was said before."""
    words = name.split()
    if any(word.endswith("ly") or word.lower() in _ADVERBS for word in words):
        return False
    return len(words) > 1 or (_CODE.search(name[1:] if not determiner else name) is not None)


_ADVERBS = word_set(
    "then also only now still usually never always often by in on at with to from after before currently first "
    "finally again of for fully default under until unless although since"
)
_NO_VERB = word_set("is are was were has have that which who when if it this these they can may will would should must")


def _infinitive(verb: str) -> str:
    return f"{verb[:-3]}y" if verb.endswith("ies") else verb.removesuffix("s")


def _page(document: Document) -> str:
    """The module that a page of pydoc is about; "" for other pages."""
    if not document.origin.startswith("http://pydoc.localhost/"):
        return ""  # other addresses may be none that can be parsed
    name = urlsplit(document.origin).path.rsplit("/", 1)[-1]
    return name.removesuffix(".html") if name.endswith(".html") else ""
