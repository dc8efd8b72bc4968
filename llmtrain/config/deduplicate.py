"""Section `corpus.deduplicate`: what counts as a repeat, within and across sources."""

from typing import Annotated

from pydantic import Field

from llmtrain.config.section import PositiveInt, Section


class NearDuplicates(Section):
    """MinHash with bands. The defaults are those of FineWeb; they find 77 % of pairs of Jaccard similarity 0.75."""

    ngram_words: Annotated[int, Field(ge=1, le=64)] = 5
    """Words in a row that are compared."""
    bands: Annotated[int, Field(ge=1, le=256)] = 14
    """Chances to be found: documents with one equal band are near duplicates."""
    rows_per_band: Annotated[int, Field(ge=1, le=64)] = 8
    """Minima that must all agree for a band to be equal."""


class DuplicateParagraphs(Section):
    """Paragraphs (what blank lines separate) that stand in an earlier document that stays, or earlier in the same."""

    min_characters: PositiveInt = 100
    """Shorter paragraphs stay: headings, signatures, single sentences."""
    min_left_characters: PositiveInt = 100
    """Documents that lost paragraphs and whose others have fewer characters are dropped (`duplicate_paragraphs`)."""


class DeduplicateConfig(Section):
    """What is taken out of the documents of all sources, in the order of sources and units: the first one stays."""

    exact: bool = True
    """Whether documents with the text of an earlier one are dropped (`duplicate`)."""
    near: NearDuplicates | None = None
    """Null, or how documents much like an earlier one are found; they are dropped (`near_duplicate`)."""
    paragraphs: DuplicateParagraphs | None = None
    """Null, or which repeated paragraphs are taken out of the documents that stay."""
