"""Validation windows: the same ones every time, whatever the ranks, shared so that every rank does equal work."""

from collections.abc import Mapping

import numpy as np

from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.data.loader import Batch, make_batch, split_batch
from llmtrain.data.permutation import Permutation
from llmtrain.data.rows import Rows
from llmtrain.errors import DataError
from llmtrain.shards.reader import ShardedTokens

_KEY = 0x7661_6C69_6461_7465  # of no run: validation windows never change


def read_validation_rows(shards: Mapping[str, ShardedTokens], sequence_length: int, per_source: int) -> dict[str, Rows]:
    """Up to `per_source` windows of each source's validation stream.

    The last window of a stream may be shorter: it is padded with eos and has no targets there.

    Args:
        shards: validation shards by source.
        sequence_length: T, tokens of a window.
        per_source: windows.

    Raises:
        DataError: a source has not two tokens to validate on.
    """
    rows = {}
    for name, opened in shards.items():
        total = -(-(opened.token_count - 1) // sequence_length)
        if total < 1:
            raise DataError(
                f"{opened.folder}: {opened.token_count} tokens are too few to validate on. Raise "
                "corpus.validation_fraction and prepare the data again, or leave the source out of data.sources."
            )
        windows = np.sort(Permutation(total, _KEY)(np.arange(min(total, per_source))))
        rows[name] = _read_windows(opened, windows, sequence_length)
    return rows


def share_validation(
    rows: Mapping[str, Rows], micro_batch_size: int, data_parallel_size: int, data_parallel_rank: int
) -> list[Batch]:
    """This rank's share of all windows; every window is in the share of exactly one rank.

    Every rank gets equally many batches of equal size: shares are filled up with windows without targets.

    Args:
        rows: windows by source; the position of a source is its index.
        micro_batch_size: sequences per batch.
        data_parallel_size: ranks that share.
        data_parallel_rank: this one.
    """
    inputs = np.concatenate([source.input_ids_NT for source in rows.values()])
    labels = np.concatenate([source.labels_NT for source in rows.values()])
    sources = np.repeat(np.arange(len(rows)), [len(source.input_ids_NT) for source in rows.values()])
    per_round = micro_batch_size * data_parallel_size
    filler = -len(sources) % per_round
    inputs = np.concatenate([inputs, np.repeat(inputs[:1], filler, axis=0)])
    labels = np.concatenate([labels, np.full((filler, labels.shape[1]), IGNORE_INDEX)])
    sources = np.concatenate([sources, np.zeros(filler, np.int64)])
    mine = slice(data_parallel_rank, None, data_parallel_size)
    chosen = Rows(inputs[mine].copy(), labels[mine].copy(), np.zeros_like(inputs[mine]))
    batch = make_batch(chosen, sources[mine].copy(), mask_across_documents=False, reset_position_ids=False)
    return split_batch(batch, micro_batch_size)


def _read_windows(shards: ShardedTokens, windows: np.ndarray, length: int) -> Rows:
    rows = Rows.empty(len(windows), length)
    rows.document_ids_NT.fill(0)
    rows.input_ids_NT.fill(shards.manifest.eos_id)
    rows.labels_NT.fill(IGNORE_INDEX)
    for i, window in enumerate(windows.tolist()):
        tokens = shards.read(window * length, length + 1)
        rows.input_ids_NT[i, : len(tokens) - 1] = tokens[:-1]
        rows.labels_NT[i, : len(tokens) - 1] = tokens[1:]
    return rows
