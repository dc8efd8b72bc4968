"""Section `corpus.steps`: what cleaning does to each document, step by step.

Defaults are the values of the papers; docs/cleaning.md tells which paper and what each rule drops on good text.
"""

from typing import Annotated, Literal

from pydantic import Field

from llmtrain.config.section import Fraction, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Section


class BoundsStep(Section):
    """Drops documents that are too short, too long, have an endless line, or are no text."""

    name: Literal["bounds"]
    """Which step."""
    min_characters: NonNegativeInt = 100
    """Shorter documents are dropped (`too_short`)."""
    max_characters: PositiveInt = 2_000_000
    """Longer documents are dropped (`too_long`)."""
    max_line_characters: PositiveInt = 5_000
    """Documents with a longer line are dropped (`long_line`): minified code, encoded data."""
    min_printable_fraction: Fraction = 0.98
    """Documents with a smaller share of printable characters are dropped (`binary`)."""


class RepairUnicodeStep(Section):
    """Repairs text that was decoded with the wrong encoding. Drops nothing and leaves ASCII and clean text alone."""

    name: Literal["repair_unicode"]
    """Which step."""


class IdentifyLanguageStep(Section):
    """Notes the language of each document and keeps the wanted ones."""

    name: Literal["identify_language"]
    """Which step."""
    keep: list[str] = []
    """ISO 639 codes of the languages to keep (`en`, `de`, ...); empty keeps all and only notes the language."""
    min_score: Fraction = 0.65
    """Certainty below which a language counts as unknown: dropped if `keep` is given, else noted as no language."""


class GopherQualityStep(Section):
    """Quality rules of Gopher. Words are what white space separates: not for Chinese, Japanese, Thai and their like."""

    name: Literal["gopher_quality"]
    """Which step."""
    min_words: NonNegativeInt = 50
    """Words in a document, at least."""
    max_words: PositiveInt = 100_000
    """Words in a document, at most."""
    min_mean_word_characters: NonNegativeFloat = 3.0
    """Mean length of a word in characters, at least."""
    max_mean_word_characters: PositiveFloat = 10.0
    """Mean length of a word in characters, at most."""
    max_hashes_per_word: NonNegativeFloat = 0.1
    """Hash signs per word, at most."""
    max_ellipses_per_word: NonNegativeFloat = 0.1
    """Ellipses per word, at most."""
    max_bullet_lines_fraction: Fraction = 0.9
    """Share of lines that begin with a bullet point, at most."""
    max_ellipsis_lines_fraction: Fraction = 0.3
    """Share of lines that end with an ellipsis, at most."""
    min_alphabetic_words_fraction: Fraction = 0.8
    """Share of words with at least one letter, at least."""
    stop_words: list[str] = ["the", "be", "to", "of", "and", "that", "have", "with"]
    """Frequent words of the language, in lower case."""
    min_stop_words: NonNegativeInt = 2
    """Different ones of `stop_words` in a document, at least; 0 for text that is not English, or set `stop_words`."""


class GopherRepetitionStep(Section):
    """Rules against repetition of Gopher, Table A1. Shares are of characters that are no white space."""

    name: Literal["gopher_repetition"]
    """Which step."""
    max_duplicate_line_fraction: Fraction = 0.30
    """Share of lines that stood before in the document, at most."""
    max_duplicate_paragraph_fraction: Fraction = 0.30
    """Share of paragraphs that stood before, at most."""
    max_duplicate_line_character_fraction: Fraction = 0.20
    """Share of characters in lines that stood before, at most."""
    max_duplicate_paragraph_character_fraction: Fraction = 0.20
    """Share of characters in paragraphs that stood before, at most."""
    max_top_ngram_character_fractions: list[Fraction] = Field(default=[0.20, 0.18, 0.16], min_length=3, max_length=3)
    """Share of characters in the most frequent n-gram of words, at most; for n = 2, 3, 4."""
    max_duplicate_ngram_character_fractions: list[Fraction] = Field(
        default=[0.15, 0.14, 0.13, 0.12, 0.11, 0.10], min_length=6, max_length=6
    )
    """Share of characters in n-grams of words that stood before, each character counted once, at most; for n = 5 to
    10."""


class C4QualityStep(Section):
    """Rules of C4 that look at lines and pages. Lines that fail are taken out, which changes the text."""

    name: Literal["c4_quality"]
    """Which step."""
    require_terminal_punctuation: bool = True
    """Take out lines that do not end with a full stop, exclamation mark, question mark or quotation mark, or end with
    an ellipsis. FineWeb does without, since it costs 30 % of the text and all headings and lists."""
    min_line_words: NonNegativeInt = 5
    """Lines with fewer words are taken out."""
    max_word_characters: PositiveInt = 1_000
    """Lines with a longer word are taken out."""
    remove_javascript_lines: bool = True
    """Take out lines that speak of JavaScript: they ask to switch it on."""
    remove_policy_lines: bool = True
    """Take out lines about terms of use, privacy and cookies."""
    remove_citations: bool = True
    """Take out marks such as `[3]`, `[edit]` and `[citation needed]`."""
    min_sentences: NonNegativeInt = 3
    """Documents with fewer sentences in the lines that are left are dropped."""
    drop_lorem_ipsum: bool = True
    """Drop documents with the placeholder text `lorem ipsum`."""
    drop_curly_brackets: bool = True
    """Drop documents with a `{`: code, or pages that are about code."""


class FinewebQualityStep(Section):
    """Rules of FineWeb."""

    name: Literal["fineweb_quality"]
    """Which step."""
    min_punctuated_lines_fraction: Fraction = 0.12
    """Share of lines that end with punctuation; as many or fewer are dropped."""
    max_duplicate_line_character_fraction: Fraction = 0.1
    """Share of characters in lines that stood before; as many or more are dropped."""
    max_short_lines_fraction: Fraction = 0.67
    """Share of short lines; as many or more are dropped."""
    short_line_characters: PositiveInt = 30
    """Lines with fewer characters are short."""
    max_lines_per_word: NonNegativeFloat = 0.3
    """Line ends per word, at most. In FineWeb's code, not in the paper."""


class CodeQualityStep(Section):
    """Rules of Codex and StarCoder for source code."""

    name: Literal["code_quality"]
    """Which step."""
    max_lines: PositiveInt = 100_000
    """Lines in a file, at most."""
    max_mean_line_characters: PositiveFloat = 100.0
    """Mean length of a line in characters, at most."""
    max_line_characters: PositiveInt = 1_000
    """Length of the longest line in characters, at most."""
    min_alphanumeric_fraction: Fraction = 0.25
    """Share of characters that are letters or digits, at least."""
    min_alphabetic_fraction: Fraction = 0.25
    """Share of characters that are letters, at least: tables of numbers have fewer."""
    max_encoded_fraction: Fraction = 0.5
    """Share of characters in encoded data (base64, hexadecimal bytes, Unicode escapes), at most."""
    max_encoded_run_characters: PositiveInt = 1_024
    """Length of the longest run of encoded data in characters, at most."""


class MaskPersonalDataStep(Section):
    """Puts placeholders for e-mail addresses, public IP addresses and secrets; drops nothing."""

    name: Literal["mask_personal_data"]
    """Which step."""
    emails: bool = True
    """E-mail addresses become `<EMAIL>`, but those of example domains and of logins to code hosts."""
    ip_addresses: bool = True
    """Public addresses become `<IP_ADDRESS>`; private and example ones and version numbers stay."""
    secrets: bool = True
    """Keys, tokens, passwords with a high entropy and private keys become `<SECRET>`."""


class DecontaminateStep(Section):
    """Finds documents that share n-grams of words with evaluation sets."""

    name: Literal["decontaminate"]
    """Which step."""
    against: list[str] = Field(min_length=1)
    """Files or globs of evaluation sets: JSON lines (`.jsonl`, each record an item) or text (each paragraph an item);
    also `.gz` and `.zst`."""
    text_fields: list[str] = Field(default=["text"], min_length=1)
    """Fields of a record that hold text or a list of texts; each record needs one of them."""
    ngram_words: Annotated[int, Field(ge=2, le=100)] = 13
    """Words of an n-gram. Shared n-grams make a document contaminated."""
    min_item_words: Annotated[int, Field(ge=1, le=100)] = 8
    """Items shorter than `ngram_words` are looked for as a whole when they have at least this many words."""
    action: Literal["drop", "report"] = "drop"
    """Drop contaminated documents, or keep and count them."""


StepConfig = Annotated[
    BoundsStep
    | RepairUnicodeStep
    | IdentifyLanguageStep
    | GopherQualityStep
    | GopherRepetitionStep
    | C4QualityStep
    | FinewebQualityStep
    | CodeQualityStep
    | MaskPersonalDataStep
    | DecontaminateStep,
    Field(discriminator="name"),
]
