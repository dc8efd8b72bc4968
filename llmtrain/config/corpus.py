"""Section `corpus`: raw text -> clean documents -> tokenizer -> token shards, before any training."""

from typing import Annotated, Literal

from pydantic import Field

from llmtrain.config.section import Fraction, Name, NonNegativeInt, PositiveInt, Section


class WebSource(Section):
    """Web pages: HTML files and WARC archives."""

    kind: Literal["web"]
    """What `paths` hold."""
    paths: list[str] = Field(min_length=1)
    """Files, folders or globs (`*.html`, `*.warc`, `*.warc.gz`). `pydoc:` crawls the documentation site that
    Python serves about itself, over loopback, into a WARC file."""
    optional_paths: list[str] = []
    """As `paths`, but nothing is wrong when one matches no file (packages a machine may lack)."""
    licence: str = "unknown"
    """Licence of the text, carried into every manifest (SPDX where there is one)."""


class WikipediaSource(Section):
    """MediaWiki XML dumps, plain or bz2."""

    kind: Literal["wikipedia"]
    """What `paths` hold."""
    paths: list[str] = Field(min_length=1)
    """Files or globs. `package:NAME/FILE` is a file shipped inside an installed Python package."""
    licence: str = "CC-BY-SA-4.0"
    """Licence of the text, carried into every manifest."""


class CodeSource(Section):
    """Source trees."""

    kind: Literal["code"]
    """What `paths` hold."""
    paths: list[str] = Field(min_length=1)
    """Folders or globs. `stdlib:` is the standard library of the running Python."""
    extensions: list[str] = [".py"]
    """File endings that count as code."""
    exclude: list[str] = []
    """Globs, relative to each path, of files to leave out."""
    licence: str = "unknown"
    """Licence of trees in which no licence file is found."""


class DocumentsSource(Section):
    """Text that already is in records: JSONL, JSON, parquet, or a dataset of the Hugging Face hub."""

    kind: Literal["documents"]
    """What `paths` hold."""
    paths: list[str] = Field(min_length=1)
    """Files or globs (`*.jsonl`, `*.jsonl.gz`, `*.jsonl.zst`, `*.parquet`), or `hub:NAME` of the Hugging Face hub."""
    text_field: str = "text"
    """Key of the text in each record."""
    split: str = "train"
    """Split of a hub dataset."""
    licence: str = "unknown"
    """Licence of the text, carried into every manifest."""


SourceConfig = Annotated[WebSource | WikipediaSource | CodeSource | DocumentsSource, Field(discriminator="kind")]


class CleanConfig(Section):
    """Which documents are kept. Every drop is counted by reason in the report."""

    min_characters: NonNegativeInt = 100
    """Shorter documents are dropped (`too_short`)."""
    max_characters: PositiveInt = 2_000_000
    """Longer documents are dropped (`too_long`)."""
    max_line_characters: PositiveInt = 5_000
    """Documents with a longer line are dropped (`long_line`): minified code, encoded data."""
    min_printable_fraction: Fraction = 0.98
    """Documents with a smaller share of printable characters are dropped (`binary`)."""


class TokenizerConfig(Section):
    """The SentencePiece tokenizer trained on the cleaned documents."""

    algorithm: Literal["bpe", "unigram"] = "bpe"
    """SentencePiece model type."""
    vocab_size: Annotated[int, Field(ge=300, le=1_000_000)] = 32_768
    """Pieces in all, with the 256 byte pieces and the control symbols."""
    train_characters: PositiveInt = 50_000_000
    """Characters of text to train on, drawn evenly over the sources, deterministic in the content."""


class CorpusConfig(Section):
    """Everything that `llmtrain data prepare` does. What it writes is read through section `data`."""

    sources: dict[Name, SourceConfig] = Field(min_length=1)
    """Raw text by source name; the names appear in the mixture and in the metrics (`data/loss_<source>`)."""
    clean: CleanConfig = CleanConfig()
    """Cleaning rules."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Tokenizer training."""
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Share of the documents of each source held out for validation, chosen by hash of the text."""
    shard_tokens: PositiveInt = 100_000_000
    """Tokens per shard file."""
    workers: PositiveInt | None = None
    """Processes for cleaning and threads for tokenizing; null = all cores. The output does not depend on it."""
