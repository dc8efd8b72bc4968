"""From a token, a number or an id to the document and its origin, without reading more than the way there.

position in the stream -> shard -> document of the shard -> origin          two binary searches
id                     -> documents of each shard                           one binary search a shard
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from llmtrain.errors import DataError
from llmtrain.shards.format import map_document_ends, read_header
from llmtrain.shards.origins import Origin, Origins
from llmtrain.shards.reader import ShardedTokens


@dataclass(frozen=True)
class TracedDocument:
    """A document of a split: where its tokens are and where its text comes from."""

    source: str
    split: str
    number: int
    """Counted over the shards of the split, from 0."""
    start: int
    """Position of its first token in the stream of the split."""
    length: int
    """Tokens, with bos and eos."""
    origin: Origin


def escape_unprintable(text: str) -> str:
    """The text on one line, with an escape for what a terminal would act on: origins are written by others."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    number = ord(character)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


class Tracer:
    """Traces documents of one split of one source; shards are mapped when first touched and then kept open."""

    def __init__(self, shards: ShardedTokens) -> None:
        """Begin.

        Args:
            shards: the split.

        Raises:
            DataError: it was written without origins.
        """
        self.shards = shards
        if any(entry.origins is None for entry in shards.manifest.shards):
            raise DataError(
                f"{shards.folder}: manifest version {shards.manifest.format_version} without origins: these shards do "
                "not say which documents they hold. Remove the folder and write it again with `llmtrain data prepare`."
            )
        counts = [entry.document_count for entry in shards.manifest.shards]
        self._first_documents = np.concatenate(([0], np.cumsum(counts, dtype=np.int64)))
        self._opened: dict[int, tuple[np.ndarray, Origins]] = {}

    def trace_position(self, position: int) -> TracedDocument:
        """The document that a token belongs to.

        Args:
            position: of the token in the stream of the split, from 0.

        Raises:
            DataError: it is not a position of the stream.
        """
        if not 0 <= position < self.shards.token_count:
            raise DataError(
                f"token {position:,} of source '{self.shards.source}': its {self.shards.split} split has "
                f"{self.shards.token_count:,} tokens. Choose 0 to {self.shards.token_count - 1:,}."
            )
        starts = self.shards.shard_starts
        shard = int(np.searchsorted(starts, position, "right")) - 1
        ends, _ = self._open(shard)
        # uint64 beside uint64: any other number makes numpy convert the whole array.
        return self._describe(shard, int(np.searchsorted(ends, np.uint64(position - int(starts[shard])), "right")))

    def trace_range(self, start: int, stop: int) -> Iterator[TracedDocument]:
        """Documents that have tokens in [start, stop) of the stream, in order."""
        while start < stop:
            document = self.trace_position(start)
            yield document
            start = document.start + document.length

    def trace_number(self, number: int) -> TracedDocument:
        """The document with a number.

        Raises:
            DataError: there are not so many.
        """
        if not 0 <= number < self.shards.document_count:
            raise DataError(
                f"document {number:,} of source '{self.shards.source}': its {self.shards.split} split has "
                f"{self.shards.document_count:,}. Choose 0 to {self.shards.document_count - 1:,}."
            )
        shard = int(np.searchsorted(self._first_documents, number, "right")) - 1
        return self._describe(shard, number - int(self._first_documents[shard]))

    def trace_id(self, document_id: str) -> Iterator[TracedDocument]:
        """All documents with an id, 32 hexadecimal digits."""
        for shard in range(len(self.shards.manifest.shards)):
            for document in self._open(shard)[1].find(document_id):
                yield self._describe(shard, document)

    def _open(self, shard: int) -> tuple[np.ndarray, Origins]:
        if shard not in self._opened:
            entry, folder = self.shards.manifest.shards[shard], self.shards.folder
            assert entry.origins is not None
            path = folder / entry.file
            ends = map_document_ends(path, read_header(path))
            self._opened[shard] = ends, Origins(folder / entry.origins.file, len(ends))
        return self._opened[shard]

    def _describe(self, shard: int, document: int) -> TracedDocument:
        ends, origins = self._open(shard)
        start, end = int(ends[document - 1]) if document else 0, int(ends[document])
        return TracedDocument(
            source=self.shards.source,
            split=self.shards.split,
            number=int(self._first_documents[shard]) + document,
            start=int(self.shards.shard_starts[shard]) + start,
            length=end - start,
            origin=origins.read(document),
        )
