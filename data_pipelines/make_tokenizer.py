"""The tokenizer of a data folder: trained once, kept while its settings and what it was trained on stay the same.

Sources that are added or taken out later leave it as it is, and with it the shards of all others. It is trained anew
when its settings change, when documents it was trained on change, or when its folder is removed.
"""

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from data_pipelines.documents_folder import DocumentsFolder
from data_pipelines.extract import fingerprint
from data_pipelines.progress import show_stage
from data_pipelines.splits import check_splits
from data_pipelines.stages import Stages
from data_pipelines.train_tokenizer import train_tokenizer
from llmtrain.config.corpus import TokenizerConfig
from llmtrain.errors import DataError
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer

_STAGE = "tokenizer"


def make_tokenizer(
    folder: Path,
    config: TokenizerConfig,
    sources: Sequence[str],
    validation_fraction: float,
    documents: DocumentsFolder,
    stages: Stages,
    console: Console,
) -> Tokenizer:
    """The tokenizer of section `corpus`: the one that is there, the one it names, or one that is trained now.

    Args:
        folder: where it is kept, `data.folder/tokenizer`.
        config: section `corpus.tokenizer`.
        sources: names of the sources, whose documents are finished.
        validation_fraction: share of documents that is held out.
        documents: of the sources.
        stages: of the data folder.
        console: told what is done.

    Raises:
        DataError: documents or the named tokenizer are damaged, or there is too little text, for a split of a source
            or in all.
    """
    if config.folder is not None:
        return _take(folder, config.folder, stages, console)
    own_print = fingerprint(_STAGE, config.model_dump(exclude={"accelerator", "folder"}))
    digests = {name: stages.result(f"documents/{name}")["documents_sha256"] for name in sources}
    trained_on = dict(stages.result(_STAGE)["documents"]) if stages.is_finished(_STAGE, own_print) else {}
    chosen = list(sources)
    if _is_same(trained_on, digests):
        try:
            tokenizer = Tokenizer.load_verified(folder)
        except DataError as error:
            console.print(f"{_STAGE:<22} done again: {error}", markup=False)
            if folder.is_dir() and trained_on.keys() <= digests.keys():
                chosen = list(trained_on)  # the same one again; a folder that was removed asks for another
        else:
            _tell_kept(trained_on, digests, folder, console)
            return tokenizer
    for name in sources:  # before work that would be for nothing
        check_splits(name, documents.read(name), validation_fraction)
    stages.start(_STAGE)
    with show_stage(console, "train tokenizer", config.vocab_size, "pieces") as advance:
        texts = {name: partial(documents.read_texts, name) for name in chosen}
        tokenizer = train_tokenizer(texts, config, folder)
        advance(tokenizer.vocab_size)
    told = {"sha256": tokenizer.sha256, "documents": {name: digests[name] for name in chosen}}
    stages.finish(_STAGE, own_print, told)
    return tokenizer


def _is_same(trained_on: dict[str, str], digests: dict[str, str]) -> bool:
    """Whether what it was trained on is still there, as far as it is among the sources; something must be."""
    left = trained_on.keys() & digests.keys()
    return bool(left) and all(trained_on[name] == digests[name] for name in left)


def _tell_kept(trained_on: dict[str, str], digests: dict[str, str], folder: Path, console: Console) -> None:
    if trained_on == digests:
        console.print(f"{_STAGE:<22} up to date", markup=False)
        return
    console.print(
        f"{_STAGE:<22} kept, trained on {', '.join(trained_on)}. To train one on {', '.join(digests)}, which writes "
        f"all shards again, remove {folder}",
        markup=False,
    )


def _take(folder: Path, given: Path, stages: Stages, console: Console) -> Tokenizer:
    """Copy a tokenizer that exists, unless it is there already."""
    tokenizer = Tokenizer.load_verified(given)
    own_print = fingerprint(_STAGE, tokenizer.sha256)
    if stages.is_finished(_STAGE, own_print) or given.resolve() == folder.resolve():
        try:
            tokenizer = Tokenizer.load_verified(folder)
        except DataError as error:
            console.print(f"{_STAGE:<22} done again: {error}", markup=False)
        else:
            console.print(f"{_STAGE:<22} up to date", markup=False)
            return tokenizer
    stages.start(_STAGE)
    staging = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(staging, ignore_errors=True)
    try:
        shutil.copytree(given, staging)
        shutil.rmtree(folder, ignore_errors=True)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    stages.finish(_STAGE, own_print, {"sha256": tokenizer.sha256, "documents": {}})
    console.print(f"{_STAGE:<22} taken from {given}", markup=False)
    return tokenizer
