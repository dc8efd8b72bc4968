"""Section `corpus`: raw text -> clean documents -> tokenizer -> token shards, before any training."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from llmtrain.config.cleaning import BoundsStep, StepConfig
from llmtrain.config.deduplicate import DeduplicateConfig
from llmtrain.config.section import Name, NonEmptyString, PositiveInt, Section


class WebSource(Section):
    """Web pages: HTML files, WARC archives, and WET archives of text taken from pages."""

    kind: Literal["web"]
    """What `paths` hold."""
    steps: Name = "prose"
    """Which list of `corpus.steps` cleans its documents."""
    paths: list[NonEmptyString] = Field(min_length=1)
    """Files, folders, globs or addresses (`*.html`, `*.warc.gz`, `s3://bucket/*.warc.wet.gz`). `pydoc:` crawls the
    documentation site that Python serves about itself, over loopback, into a WARC file."""
    optional_paths: list[NonEmptyString] = []
    """As `paths`, but nothing is wrong when one matches no file (packages a machine may lack)."""
    extraction: Literal["main_text", "all_text"] = "main_text"
    """`main_text` leaves out menus, sidebars, footers and advertisements; `all_text` keeps all but scripts, forms and
    navigation: for sites that are all content, such as API references."""
    licence: str = "unknown"
    """Licence of the text, carried into every manifest (SPDX where there is one)."""


class WikipediaSource(Section):
    """MediaWiki XML dumps, plain, bz2 (also of many streams), gz or zst."""

    kind: Literal["wikipedia"]
    """What `paths` hold."""
    steps: Name = "prose"
    """Which list of `corpus.steps` cleans its documents."""
    paths: list[NonEmptyString] = Field(min_length=1)
    """Files, folders, globs or addresses (`s3://bucket/enwiki.xml.bz2`). `package:NAME/FILE` is a file shipped inside
    an installed Python package."""
    disambiguation: bool = False
    """Whether to keep disambiguation pages, which are lists of links."""
    licence: str = "CC-BY-SA-4.0"
    """Licence of the text, carried into every manifest."""


class FillInTheMiddle(Section):
    """Some training documents are cut in three and reordered, so that the model learns to fill gaps."""

    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the documents that are reordered, chosen by hash of their id."""
    spm_fraction: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Of these, the share that begins with the suffix (SPM); the rest begins with the prefix (PSM)."""


class CodeSource(Section):
    """Source trees, archives of them, single files, and records of code as The Stack's."""

    kind: Literal["code"]
    """What `paths` hold."""
    steps: Name = "code"
    """Which list of `corpus.steps` cleans its documents."""
    paths: list[NonEmptyString] = Field(min_length=1)
    """Folders, files, globs or addresses; archives (zip, whl, jar, tar, also compressed) and records (`*.parquet`,
    `*.jsonl.zst`, ...) are named themselves. `stdlib:` is the standard library of the running Python."""
    extensions: list[str] = [".py"]
    """File endings that count as code, where `languages` is empty."""
    languages: list[str] = []
    """Languages to keep, told by name, ending, `#!` line and content (`python`, `cpp`, ...). Empty: `extensions`."""
    exclude: list[str] = []
    """Globs, relative to each path, of files to leave out."""
    keep_vendored: bool = False
    """Whether to keep what lies in folders for code of others (`vendor`, `node_modules`, `third_party`, ...)."""
    licences: list[str] = []
    """SPDX names of the licences to keep, `unknown` among them; empty = all."""
    licence: str = "unknown"
    """Licence of files that state none and have no licence file in the folders above them."""
    fill_in_the_middle: FillInTheMiddle | None = None
    """Null leaves every document in its order. Documents held out for validation always stay in their order."""


class DocumentsSource(Section):
    """Text that already is text: records of JSONL, JSON, parquet or the Hugging Face hub, and plain text files."""

    kind: Literal["documents"]
    """What `paths` hold."""
    steps: Name = "prose"
    """Which list of `corpus.steps` cleans its documents."""
    paths: list[NonEmptyString] = Field(min_length=1)
    """Files, folders, globs or addresses (`*.jsonl.zst`, `*.parquet`, `*.txt`, `https://...`), or `hub:NAME` of the
    Hugging Face hub. A text file (`*.txt`, `*.txt.gz`, `*.txt.zst`, `*.md`) is one document."""
    text_field: str = "text"
    """Key of the text in each record."""
    origin_field: str | None = None
    """Key of the address or name of each record; null = file and number of the record."""
    licence_field: str | None = None
    """Key of the licence of each record; where a record has none, `licence` counts."""
    split: str = "train"
    """Split of a hub dataset."""
    licence: str = "unknown"
    """Licence of the text, carried into every manifest."""
    fill_in_the_middle: FillInTheMiddle | None = None
    """As for `code`."""


SourceConfig = Annotated[WebSource | WikipediaSource | CodeSource | DocumentsSource, Field(discriminator="kind")]


Accelerator = Literal["gigatoken"] | None


class TokenizerConfig(Section):
    """The SentencePiece tokenizer trained on the cleaned documents."""

    folder: Path | None = None
    """An existing tokenizer to take (the folder `tokenizer` of other prepared data); the settings of training below do
    not count then. Null: one is trained, and kept when sources are added or taken out."""
    algorithm: Literal["bpe", "unigram"] = "bpe"
    """SentencePiece model type."""
    vocab_size: Annotated[int, Field(ge=300, le=1_000_000)] = 32_768
    """Pieces in all, with the 256 byte pieces and the control symbols."""
    train_characters: PositiveInt = 50_000_000
    """Characters of text to train on, drawn evenly over the sources, deterministic in the content."""
    accelerator: Accelerator = None
    """Encoder in place of SentencePiece's own: `gigatoken` needs `bpe` and `pip install 'llmtrain[gigatoken]'`. It is
    compared with SentencePiece before and while it is used; the shards are the same."""


class CorpusConfig(Section):
    """Everything that `llmtrain data prepare` does. What it writes is read through section `data`."""

    sources: dict[Name, SourceConfig] = Field(min_length=1)
    """Raw text by source name; the names appear in the mixture and in the metrics (`data/loss_<source>`)."""
    steps: dict[Name, list[StepConfig]] = {"prose": [BoundsStep(name="bounds")], "code": [BoundsStep(name="bounds")]}
    """Cleaning of each class of text: a list of steps, done in this order; `steps` of a source names the list."""
    deduplicate: DeduplicateConfig = DeduplicateConfig()
    """Repeats that are taken out, within and across sources."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    """Tokenizer training."""
    validation_fraction: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    """Share of the documents of each source held out for validation, chosen by hash of the text."""
    shard_tokens: PositiveInt = 100_000_000
    """Tokens per shard file."""
    workers: PositiveInt | None = None
    """Processes for cleaning and for tokenizing; null = all cores. The output does not depend on it."""
