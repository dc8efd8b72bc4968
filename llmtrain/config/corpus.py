"""Section `corpus`: raw text -> clean documents -> tokenizer -> token shards, before any training."""

from typing import Annotated, Literal

from pydantic import Field

from llmtrain.config.cleaning import BoundsStep, StepConfig
from llmtrain.config.section import Name, PositiveInt, Section


class WebSource(Section):
    """Web pages: HTML files and WARC archives."""

    kind: Literal["web"]
    """What `paths` hold."""
    steps: Name = "prose"
    """Which list of `corpus.steps` cleans its documents."""
    paths: list[str] = Field(min_length=1)
    """Files, folders or globs (`*.html`, `*.warc`, `*.warc.gz`). `pydoc:` crawls the documentation site that
    Python serves about itself, over loopback, into a WARC file."""
    optional_paths: list[str] = []
    """As `paths`, but nothing is wrong when one matches no file (packages a machine may lack)."""
    licence: str = "unknown"
    """Licence of the text, carried into every manifest (SPDX where there is one)."""


class WikipediaSource(Section):
    """MediaWiki XML dumps, plain, bz2 (also of many streams), gz or zst."""

    kind: Literal["wikipedia"]
    """What `paths` hold."""
    steps: Name = "prose"
    """Which list of `corpus.steps` cleans its documents."""
    paths: list[str] = Field(min_length=1)
    """Files or globs. `package:NAME/FILE` is a file shipped inside an installed Python package."""
    disambiguation: bool = False
    """Whether to keep disambiguation pages, which are lists of links."""
    licence: str = "CC-BY-SA-4.0"
    """Licence of the text, carried into every manifest."""


class CodeSource(Section):
    """Source trees."""

    kind: Literal["code"]
    """What `paths` hold."""
    steps: Name = "code"
    """Which list of `corpus.steps` cleans its documents."""
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
    steps: Name = "prose"
    """Which list of `corpus.steps` cleans its documents."""
    paths: list[str] = Field(min_length=1)
    """Files or globs (`*.jsonl`, `*.jsonl.gz`, `*.jsonl.zst`, `*.parquet`), or `hub:NAME` of the Hugging Face hub."""
    text_field: str = "text"
    """Key of the text in each record."""
    split: str = "train"
    """Split of a hub dataset."""
    licence: str = "unknown"
    """Licence of the text, carried into every manifest."""


SourceConfig = Annotated[WebSource | WikipediaSource | CodeSource | DocumentsSource, Field(discriminator="kind")]


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
    steps: dict[Name, list[StepConfig]] = {"prose": [BoundsStep(name="bounds")], "code": [BoundsStep(name="bounds")]}
    """Cleaning of each class of text: a list of steps, done in this order; `steps` of a source names the list."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Tokenizer training."""
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Share of the documents of each source held out for validation, chosen by hash of the text."""
    shard_tokens: PositiveInt = 100_000_000
    """Tokens per shard file."""
    workers: PositiveInt | None = None
    """Processes for cleaning and threads for tokenizing; null = all cores. The output does not depend on it."""
