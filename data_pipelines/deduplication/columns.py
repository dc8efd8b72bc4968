"""What deduplication has to know of the documents of a unit, as sorted columns on disk.

Written by the worker that cleans the unit; kept, so that a later source is deduplicated against it without its text.

    STEM.RUN.documents.npy    documents and paragraphs of the run
    STEM.RUN.ids.npy          [2, n] halves of the ids, by their first half        .order.npy   [1, n] whose they are
    STEM.RUN.bands.npy        [bands, n] band hashes, each band sorted             .order.npy   [bands, n]
    STEM.RUN.paragraphs.npy   [1, n] hashes of paragraphs                          .order.npy   [1, n]
    STEM.RUN.lengths.npy      [2, n] characters of each paragraph, and the document it stands in
    STEM.RUN.sizes.npy        [n] characters of all paragraphs of each document
    STEM.RUN.sha256.json      sha256 of each of these files; written last

A unit of many documents makes several runs, so that a worker's memory does not grow with it.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.deduplication.paragraphs import split_paragraphs
from data_pipelines.deduplication.signatures import compute_bands
from data_pipelines.document import Document, hash_file
from llmtrain.config.deduplicate import DeduplicateConfig
from llmtrain.errors import DataError
from llmtrain.shards.manifest import write_atomically

RUN_DOCUMENTS = 1 << 18
_BATCH_CHARACTERS = 1 << 20

Column = tuple[str, int]
"""Kind of file (`ids`, `bands`, `paragraphs`) and row of it."""


def list_columns(config: DeduplicateConfig) -> list[Column]:
    """Columns by which documents are compared."""
    exact: list[Column] = [("ids", 0)] if config.exact else []
    return exact + [("bands", band) for band in range(config.near.bands if config.near else 0)]


class Run:
    """Columns of up to `RUN_DOCUMENTS` documents that follow each other."""

    def __init__(self, stem: Path, number: int) -> None:
        self._stem = _run_stem(stem, number)
        self.documents, self.paragraphs = self.load("documents").tolist()

    def load(self, name: str) -> NDArray[Any]:
        """A file, mapped.

        Raises:
            DataError: it is missing or damaged.
        """
        path = self._stem.with_name(f"{self._stem.name}.{name}.npy")
        try:
            loaded: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path}: damaged or missing: {error}. Remove the folder around it and run `llmtrain data prepare` "
                "again."
            ) from error
        return loaded

    def read_slice(self, column: Column, low: int, high: int | None) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Entries of a column whose hash is at least `low` and less than `high`; None is the end of all hashes.

        Returns:
            Hashes of shape [n] (of ids [n, 2]: both halves), in rising order, and whose they are, within this run.
        """
        kind, row = column
        keys, order = self.load(kind), self.load(f"{kind}.order")
        first = int(np.searchsorted(keys[row], np.uint64(low)))
        last = keys.shape[1] if high is None else int(np.searchsorted(keys[row], np.uint64(high)))
        part = keys[:, first:last].T if kind == "ids" else keys[row, first:last]
        return np.asarray(part, np.uint64), np.asarray(order[row, first:last], np.int64)

    def verify(self) -> None:
        """Check every file against its sha256.

        Raises:
            DataError: one is missing or damaged.
        """
        try:
            expected = json.loads(_digests_path(self._stem).read_text())
            for name, digest in expected.items():
                path = self._stem.with_name(f"{self._stem.name}.{name}.npy")
                if hash_file(path) != digest:
                    raise DataError(
                        f"{path}: not what was written: damaged. Remove the folder around it and run `llmtrain data "
                        "prepare` again."
                    )
        except (OSError, ValueError, AttributeError) as error:
            raise DataError(
                f"{self._stem}: damaged or missing: {error}. Remove the folder around it and run `llmtrain data "
                "prepare` again."
            ) from error

    def find_id(self, document: int) -> str:
        """Id of a document by its number in this run."""
        place = int(np.flatnonzero(self.load("ids.order")[0] == document)[0])
        halves = self.load("ids")[:, place]
        return f"{int(halves[0]):016x}{int(halves[1]):016x}"


def read_runs(stem: Path) -> list[Run]:
    """Runs of a unit, in order.

    Raises:
        DataError: there is none, or one is damaged.
    """
    # No look at the whole folder, which holds the files of all units of a source.
    runs = [Run(stem, number) for number in itertools.takewhile(partial(has_run, stem), itertools.count())]
    if not runs:
        raise DataError(f"{stem}.*: missing. Remove the folder around it and run `llmtrain data prepare` again.")
    return runs


def has_run(stem: Path, number: int = 0) -> bool:
    """Whether the columns of a run of a unit are there; each unit has a first one."""
    return _digests_path(_run_stem(stem, number)).exists()


def _run_stem(stem: Path, number: int) -> Path:
    return stem.with_name(f"{stem.name}.{number:05d}")


def _digests_path(run_stem: Path) -> Path:
    return run_stem.with_name(f"{run_stem.name}.sha256.json")


def write_columns(documents: Iterable[Document], stem: Path, config: DeduplicateConfig) -> Iterator[Document]:
    """Pass documents on and write their columns.

    Args:
        documents: of one unit, in order.
        stem: of the files.
        config: says which columns are needed.

    Raises:
        OSError: the disk is full.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    number, run = 0, _RunInMemory(config)
    for document in documents:
        run.add(document)
        yield document
        if run.documents == RUN_DOCUMENTS:
            run.write(stem, number)
            number, run = number + 1, _RunInMemory(config)
    if run.documents or not number:
        run.write(stem, number)
        number += 1
    # Where an attempt that was killed had more runs, they end here.
    _digests_path(_run_stem(stem, number)).unlink(missing_ok=True)


class _RunInMemory:
    """Columns while documents come in."""

    def __init__(self, config: DeduplicateConfig) -> None:
        self._config = config
        self.documents = 0
        self._ids: list[bytes] = []
        self._texts: list[str] = []
        self._waiting = 0
        self._bands: list[NDArray[np.uint64]] = []
        self._signed: list[NDArray[np.bool_]] = []
        self._paragraphs: list[bytes] = []
        self._lengths: list[tuple[int, int]] = []
        self._sizes: list[int] = []

    def add(self, document: Document) -> None:
        self._ids.append(bytes.fromhex(document.id))
        if self._config.near:
            self._texts.append(document.text)
            self._waiting += len(document.text)
            if self._waiting >= _BATCH_CHARACTERS:
                self._sign()
        if self._config.paragraphs:
            paragraphs = split_paragraphs(document.text, 1)
            self._sizes.append(sum(map(len, paragraphs)))
            for paragraph in paragraphs:
                if len(paragraph) < self._config.paragraphs.min_characters:
                    continue
                self._paragraphs.append(hashlib.sha256(paragraph.encode()).digest()[:8])
                self._lengths.append((len(paragraph), self.documents))
        self.documents += 1

    def write(self, stem: Path, number: int) -> None:
        run_stem, digests = _run_stem(stem, number), dict[str, str]()

        def save(name: str, array: NDArray[np.generic]) -> None:
            path = run_stem.with_name(f"{run_stem.name}.{name}.npy")
            np.save(path, array)
            digests[name] = hash_file(path)

        save("documents", np.array([self.documents, len(self._paragraphs)]))
        halves = np.frombuffer(b"".join(self._ids), ">u8").astype(np.uint64).reshape(-1, 2)
        order = np.argsort(halves[:, 0], kind="stable")
        save("ids", np.ascontiguousarray(halves[order].T))
        save("ids.order", order.astype(np.uint32)[None])
        if self._config.near:
            self._sign()
            numbers = np.flatnonzero(np.concatenate(self._signed)) if self._signed else np.zeros(0, np.int64)
            bands = np.concatenate(self._bands, 1) if self._bands else np.zeros((self._config.near.bands, 0), np.uint64)
            bands = bands[:, numbers]
            orders = np.argsort(bands, axis=1, kind="stable")
            save("bands", np.take_along_axis(bands, orders, 1))
            save("bands.order", numbers[orders].astype(np.uint32))
        if self._config.paragraphs:
            hashes = np.frombuffer(b"".join(self._paragraphs), ">u8").astype(np.uint64)
            order = np.argsort(hashes, kind="stable")
            save("paragraphs", hashes[order][None])
            save("paragraphs.order", order.astype(np.uint32)[None])
            save("lengths", np.array(self._lengths, np.uint32).reshape(-1, 2).T.copy())
            save("sizes", np.array(self._sizes, np.uint32))
        write_atomically(_digests_path(run_stem), json.dumps(digests).encode())

    def _sign(self) -> None:
        if self._texts and self._config.near:
            bands, is_signed = compute_bands(self._texts, self._config.near)
            self._bands.append(bands)
            self._signed.append(is_signed)
        self._texts, self._waiting = [], 0
