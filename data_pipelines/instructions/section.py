"""Kind `section`: the first sentences below a heading of an article.

# Astronaut ... ## Terminology: In 1959, ...     ->    Tell me about astronaut: terminology.
"""

import re
import zlib
from collections import Counter
from collections.abc import Iterator

from data_pipelines.document import Document
from data_pipelines.instructions.articles import Section, parse_article
from data_pipelines.instructions.draft import Draft
from data_pipelines.instructions.sentences import split_sentences, take_sentences, word_set
from llmtrain.config.instructions import InstructionsConfig

_LISTS = word_set(
    "see also|references|external links|notes|further reading|bibliography|sources|footnotes|gallery|citations|works|"
    "selected works|filmography|discography|list|lists|notes and references|other|media|publications|books",
    "|",
)
_PROMPTS = (
    "Tell me about {title}: {heading}.",
    "What can you tell me about {heading} ({title})?",
    'Write a few words on "{heading}" for an article about {title}.',
)
_POINTING = re.compile(r"(?:This|That|These|Those|Such|Thus|However|Therefore|Moreover|Also|See|Another|Below|Above)\b")


def find_sections(document: Document, config: InstructionsConfig) -> Iterator[Draft]:
    """Drafts of an article: one for its beginning and one for each section."""
    article = parse_article(document)
    if article is None:
        return
    names = Counter(section.heading for section in article.sections)
    for section in article.sections:
        answer = _begin(section, config.max_response_characters)
        if not answer:
            continue
        title = article.title
        if not section.heading:
            yield Draft(f"Tell me about {article.lower_first(title)}.", answer, title)
            continue
        heading = article.lower_first(section.heading)
        if names[section.heading] > 1 and section.parents:
            heading = f"{heading}, {article.lower_first(section.parents[-1])}"
        template = _PROMPTS[zlib.crc32(f"{title}/{heading}".encode()) % len(_PROMPTS)]
        yield Draft(template.format(title=title, heading=heading), answer, title)


def _begin(section: Section, max_characters: int) -> str:
    names = {name.lower() for name in (*section.parents, section.heading)}
    if names & _LISTS or not section.paragraphs:
        return ""
    first = section.paragraphs[0]
    if first.startswith(("- ", "* ", "|", "1.")) or _POINTING.match(first):
        return ""
    return take_sentences(split_sentences(first), max_characters)
