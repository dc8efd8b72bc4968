"""Columns of all sources -> what becomes of each document. Reads no text.

    equal hashes    range by range, in parallel     work/deduplication/repeats/RANGE.npy    (first, later), kept
    clusters        source by source                forest.npy, fates.npy
    paragraphs      range by range, twice           removed.npy

A document is dropped when the documents up to the end of its own source connect it to an earlier one. Later sources
have no say in it, so appending a source leaves what was done; the first document of a cluster always stays.

No document held out for validation has a found duplicate in training: of two documents with an equal band (or id) the
later one is dropped, whatever else it is connected to, so no such pair is left for a split to part. Held-out documents
are chosen among those that stay, by the id they had before paragraphs were taken out. Of pairs that share no band,
(1 - J^r)^b of those of similarity J, nothing is known.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from io import BytesIO
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_pipelines.account import MAX_SAMPLES
from data_pipelines.deduplication.clusters import Clusters
from data_pipelines.deduplication.columns import Run, list_columns
from data_pipelines.deduplication.ranges import RANGE_ENTRIES, Range, Select, find_repeats, split_ranges
from llmtrain.config.deduplicate import DeduplicateConfig
from llmtrain.shards.manifest import write_atomically

Numbers = NDArray[np.int64]

KEPT, DUPLICATE, NEAR_DUPLICATE, PARAGRAPHS = range(4)
REASONS = {DUPLICATE: "duplicate", NEAR_DUPLICATE: "near_duplicate", PARAGRAPHS: "duplicate_paragraphs"}

_LARGEST = 10
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Place:
    """A document by its source and id."""

    source: str
    id: str


@dataclass
class Verdict:
    """What becomes of the documents of one source."""

    fates: NDArray[np.uint8]
    """Of each document in the order of units."""
    removed: NDArray[np.bool_] | None
    """Whether each paragraph that counts goes, document after document; None where paragraphs stay."""
    samples: dict[int, Place] = field(default_factory=dict)
    """Survivors of the first dropped documents of each reason, by number of the dropped one."""
    copies: dict[str, int] = field(default_factory=dict)
    """Survivors by how many documents of this source they stand for: key k counts 2^k to 2^(k+1) - 1 dropped ones."""
    largest: list[tuple[int, Place]] = field(default_factory=list)
    """Survivors that stand for most dropped documents of this source."""


def decide(
    sources: Mapping[str, Sequence[Run]],
    config: DeduplicateConfig,
    folder: Path,
    threads: int,
    map_ranges: Callable[[Iterable[None], int], Iterable[None]] = lambda done, count: done,
    range_entries: int = RANGE_ENTRIES,
) -> dict[str, Verdict]:
    """Decide about the documents of all sources.

    Args:
        sources: runs of each, in order.
        config: what counts as a repeat.
        folder: to work in; the repeats found in it are taken over, so it belongs to these very columns.
        threads: ranges under way at once.
        map_ranges: is handed the ranges as they get done, with their number; shows progress.
        range_entries: entries in a range: memory is some 60 bytes for each, times threads.

    Raises:
        DataError: a column is missing or damaged.
        OSError: the disk is full.
    """
    decision = _Decision(sources, config, folder, range_entries)
    with ThreadPoolExecutor(threads) as pool:
        ranges = decision.list_ranges()
        try:
            for _ in map_ranges(pool.map(decision.save_repeats, ranges), len(ranges)):
                pass
            verdicts = {name: decision.cluster(name) for name in sources}
            if config.paragraphs:
                decision.find_paragraphs(pool, config.paragraphs.min_left_characters)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    for name, verdict in verdicts.items():
        verdict.removed = decision.removed_paragraphs(name)
    return verdicts


class _Decision:
    def __init__(
        self, sources: Mapping[str, Sequence[Run]], config: DeduplicateConfig, folder: Path, range_entries: int
    ) -> None:
        self._config, self._folder, self._range_entries = config, folder, range_entries
        self._runs = [run for runs in sources.values() for run in runs]
        self._bases = [0, *accumulate(run.documents for run in self._runs)]
        self._paragraph_bases = [0, *accumulate(run.paragraphs for run in self._runs)]
        run_ends = list(accumulate(len(runs) for runs in sources.values()))
        self._own_runs = dict(zip(sources, zip([0, *run_ends], run_ends, strict=False), strict=True))
        (folder / "repeats").mkdir(parents=True, exist_ok=True)
        size = self._bases[-1]
        self._fates = _create(folder / "fates.npy", np.uint8, size)
        self._counts = _create(folder / "counts.npy", np.uint32, size)
        self._removed = _create(folder / "removed.npy", np.bool_, self._paragraph_bases[-1])

    def list_ranges(self) -> list[Range]:
        columns = list_columns(self._config)
        return [part for column in columns for part in split_ranges(column, self._bases[-1], self._range_entries)]

    def save_repeats(self, part: Range) -> None:
        """Find the repeats of one range, unless an earlier run of the program did."""
        path = self._repeats_path(part)
        if not path.exists():
            content = BytesIO()
            np.save(content, np.stack(find_repeats(part, self._runs, self._bases)))
            write_atomically(path, content.getvalue())

    @cached_property
    def _clusters(self) -> Clusters:
        return Clusters(self._folder / "forest.npy", self._bases[-1])

    def cluster(self, name: str) -> Verdict:
        """Drop all documents of a source but the first ones of clusters; sources before must be done."""
        start, end = self._span(name, self._bases)
        for part in self.list_ranges():
            repeats = np.load(self._repeats_path(part), mmap_mode="r")
            low, high = np.searchsorted(repeats[1], [start, end]).tolist()
            for place in range(low, high, _CHUNK):
                first, later = np.array(repeats[:, place : min(place + _CHUNK, high)])
                self._clusters.add(first, later)
                if part.column[0] == "ids":
                    self._fates[later] = DUPLICATE
        verdict = Verdict(self._fates[start:end], None)
        for place in range(start, end, _CHUNK):
            self._drop(verdict, start, np.arange(place, min(place + _CHUNK, end)))
        self._count_copies(verdict, end)
        return verdict

    def find_paragraphs(self, pool: ThreadPoolExecutor, min_left_characters: int) -> None:
        """Mark repeated paragraphs of documents that stay.

        Twice: the first time tells of which documents too little is left. Those are dropped, and what stood first in
        them must stay elsewhere; so the others lose no more the second time.
        """
        parts = split_ranges(("paragraphs", 0), self._paragraph_bases[-1], self._range_entries)
        for is_last in (False, True):
            self._removed[:] = False
            find = partial(find_repeats, runs=self._runs, bases=self._paragraph_bases, select=self._select_kept())
            for _, later in pool.map(find, parts):
                self._removed[later] = True
            if is_last or not self._drop_emptied(min_left_characters):
                return

    def removed_paragraphs(self, name: str) -> NDArray[np.bool_] | None:
        """Whether each paragraph of a source goes."""
        start, end = self._span(name, self._paragraph_bases)
        return self._removed[start:end] if self._config.paragraphs else None

    def _repeats_path(self, part: Range) -> Path:
        return self._folder / "repeats" / f"{part.name}.npy"

    def _span(self, name: str, bases: Sequence[int]) -> tuple[int, int]:
        first, last = self._own_runs[name]
        return bases[first], bases[last]

    def _drop(self, verdict: Verdict, start: int, documents: Numbers) -> None:
        roots = self._clusters.find(documents)
        is_dropped = roots != documents
        dropped, survivors = documents[is_dropped], roots[is_dropped]
        fates = self._fates[dropped]
        fates[fates == KEPT] = NEAR_DUPLICATE
        self._fates[dropped] = fates
        np.add.at(self._counts, survivors, 1)
        for fate in (DUPLICATE, NEAR_DUPLICATE):
            known = int(sum(self._fates[start + number] == fate for number in verdict.samples))
            for place in np.flatnonzero(fates == fate)[: MAX_SAMPLES - known].tolist():
                verdict.samples[int(dropped[place]) - start] = self._locate(int(survivors[place]))

    def _count_copies(self, verdict: Verdict, end: int) -> None:
        bins, largest = np.zeros(64, np.int64), []
        for place in range(0, end, _CHUNK):
            counts = self._counts[place : min(place + _CHUNK, end)]
            roots = np.flatnonzero(counts)
            sizes = counts[roots].astype(np.int64)
            bins += np.bincount(np.log2(sizes).astype(np.int64), minlength=64)
            first = np.argsort(-sizes, kind="stable")[:_LARGEST]
            largest += [(int(sizes[i]), int(roots[i]) + place) for i in first]
            largest = sorted(largest, key=lambda row: (-row[0], row[1]))[:_LARGEST]
            counts[roots] = 0
        verdict.copies = {str(key): count for key, count in enumerate(bins.tolist()) if count}
        verdict.largest = [(size, self._locate(root)) for size, root in largest]

    def _locate(self, document: int) -> Place:
        place = int(np.searchsorted(self._bases, document, side="right")) - 1
        source = next(name for name, (first, last) in self._own_runs.items() if first <= place < last)
        return Place(source, self._runs[place].find_id(document - self._bases[place]))

    def _select_kept(self) -> Select:
        def select(place: int, paragraphs: Numbers) -> NDArray[np.bool_]:
            owners = self._runs[place].load("lengths")[1][paragraphs].astype(np.int64)
            kept: NDArray[np.bool_] = self._fates[self._bases[place] + owners] == KEPT
            return kept

        return select

    def _drop_emptied(self, min_left_characters: int) -> bool:
        is_any = False
        for run, base, paragraph_base in zip(self._runs, self._bases, self._paragraph_bases, strict=False):
            lengths, owners = run.load("lengths")
            removed = self._removed[paragraph_base : paragraph_base + run.paragraphs]
            lost = np.bincount(owners[removed], weights=lengths[removed], minlength=run.documents)
            fates = self._fates[base : base + run.documents]
            is_dropped = (lost > 0) & (run.load("sizes") - lost < min_left_characters) & (fates == KEPT)
            fates[is_dropped] = PARAGRAPHS
            is_any |= bool(is_dropped.any())
        return is_any


def _create(path: Path, dtype: type[np.generic], size: int) -> NDArray[Any]:
    """An array of zeros in a file."""
    return np.lib.format.open_memmap(path, "w+", dtype, (max(size, 1),))
