"""Kind `definition`: sentences of an encyclopedia that tell what or who something is.

Anarchism is a political philosophy that ...    ->    What is anarchism?
"""

import re
from collections.abc import Iterator

from data_pipelines.document import Document
from data_pipelines.instructions.articles import Article, parse_article
from data_pipelines.instructions.draft import Draft
from data_pipelines.instructions.sentences import is_clean, split_sentences, stands_alone, word_set
from llmtrain.config.instructions import InstructionsConfig

_SUBJECT = re.compile(
    r"^(?P<article>The |An? )?(?P<name>[^\s,;:(\"\u201c\u201d]+(?: [^\s,;:(\"\u201c\u201d]+){0,5}?)"
    r"(?P<aside>(?: \([^()]*\))?(?:, [^,]{2,60},)?) "
    r"(?P<verb>is|are|was|were) (?P<rest>(?:an?|the|one of|any|another) .+)$"
)
_NAME = re.compile(
    r"^(?!(?:In|On|At|Of|To|Among|Within|South of|North of|East of|West of) )"
    r"[^\W\d_][\w'\u2019.\u2013-]*(?: [\w'\u2019.\u2013-]+)*$"
)
# Words no name of a thing holds: the subject would be half a sentence.
_NO_NAME = word_set(
    "using perhaps given during despite according under both after before until since for at by with from is are "
    "was were has have had of-which that which who whom whose what when where while and or but not there it this "
    "these he she they his her its their because if than as been being can could may might will would should to"
)
_VAGUE = word_set(
    "of in for to on at from with example use focus positive way result reason problem case feature kind type form "
    "part number result exception possibility good fine second third final further"
)
_POINTING = re.compile(
    r"\b(?:[Tt]his|[Tt]hese|those|such|above|below|latter|former|on the other hand|also|thus|however|ones)\b"
)
_LIFE = re.compile(
    r"\b(?:born|b\.|d\.|died)\b|\b\d{1,2} [A-Z][a-z]+ \d{3,4}|[A-Z][a-z]+ \d{1,2}, \d{4}|"
    r"^ \(\d{4}[-\u2013]\d{4}\)(?:,|$)"
)
_NO_PERSON = word_set(
    "War Wars Revolution Movement Empire Republic Society Dynasty Period Age Battle Act Treaty Kingdom"
)
_PERSONS = word_set(
    "philosopher writer author poet novelist playwright dramatist actor actress director filmmaker producer "
    "composer musician singer songwriter pianist violinist conductor painter sculptor artist architect photographer "
    "scientist physicist chemist biologist mathematician astronomer engineer inventor economist historian "
    "theologian priest bishop archbishop saint monk nun pope king queen emperor empress pharaoh prince princess "
    "duke general admiral soldier commander politician statesman president chancellor minister lawyer jurist judge "
    "activist revolutionary anarchist journalist editor critic explorer navigator businessman industrialist "
    "entrepreneur physician surgeon psychologist psychiatrist philologist linguist logician scholar orator athlete "
    "footballer player golfer boxer cricketer god goddess hero heroine character nymph titan giant son daughter "
    "wife husband brother sister prophet patriarch astronaut cosmonaut programmer designer protagonist pharmacist "
    "woman man founder alchemist officer person influence humanist individual figure cartoonist animator comedian "
    "dancer choreographer leader theorist ruler"
)
_HEAD = re.compile(r"[,.;(]| (?:who|which|that|of|in|for|from|by|best|known|and|whose|with|at|on|during|to) ")


def find_definitions(document: Document, _: InstructionsConfig) -> Iterator[Draft]:
    """Drafts of an article: its first sentence, and others that begin with a name or `A` and a noun."""
    article = parse_article(document)
    if article is None:
        return
    is_life = _is_about_person(article)
    for number, section in enumerate(article.sections):
        for place, paragraph in enumerate(section.paragraphs):
            for index, sentence in enumerate(split_sentences(paragraph)):
                draft = _make(article, sentence, is_first=number == place == index == 0, is_life=is_life)
                if draft is not None:
                    yield draft


def _is_about_person(article: Article) -> bool:
    """Whether the first sentence tells of a life."""
    opening = article.sections[0].paragraphs[:1] if article.sections else ()
    sentence = split_sentences(opening[0])[0] if opening and opening[0].strip() else ""
    match = _SUBJECT.match(sentence)
    return match is not None and _is_person(match, match["name"])


def _make(article: Article, sentence: str, *, is_first: bool, is_life: bool) -> Draft | None:
    match = _SUBJECT.match(sentence)
    if match is None or not is_clean(sentence) or not stands_alone(sentence):
        return None
    name, determiner = match["name"], (match["article"] or "").lower()
    words = name.split()
    if not _NAME.match(name) or _NO_NAME & {word.lower() for word in words}:
        return None
    is_title = _is_title(name, article.title)
    if not is_first and _POINTING.search(sentence):
        return None
    if determiner == "the " and (not is_title or (match["verb"] in ("was", "were") and name != article.title)):
        return None  # what it means was said before
    if determiner in ("a ", "an ") and not is_title and (_VAGUE & set(words) or match["rest"].startswith("the ")):
        return None
    if determiner == "" and not is_title and not _is_proper(name):
        return None
    is_person = _is_person(match, name) or (is_life and name in article.title)
    verb = match["verb"]
    word = "Who" if is_person and verb in ("is", "was") else "What"
    asked = name if is_person else article.lower_first(name)
    return Draft(f"{word} {verb} {determiner}{asked}?", sentence, article.title)


def _is_title(name: str, title: str) -> bool:
    return name.casefold() in title.casefold() or title.casefold() in name.casefold()


def _is_proper(name: str) -> bool:
    """Whether every word but small ones begins with a capital; one word alone may be any noun, and is none."""
    words = [word for word in name.split() if word not in ("of", "the", "de", "von", "van", "and", "in", "for", "la")]
    return len(words) > 1 and all(word[0].isupper() for word in words)


def _is_person(match: re.Match[str], name: str) -> bool:
    if match["article"] or not all(word[0].isupper() or len(word) < 4 for word in name.split()):
        return False
    head = re.split(r"[\s-]", _HEAD.split(match["rest"], maxsplit=1)[0].lower())
    if _NO_PERSON & set(name.split()):
        return False
    return head[-1] in _PERSONS or _LIFE.search(match["aside"]) is not None
