"""Validation windows: the same ones every time, whatever the ranks, shared so that every rank does equal work."""

from collections.abc import Mapping

import numpy as np

from llmtrain.config.data import DataConfig
from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.data.loader import Batch, make_batch, split_batch
from llmtrain.data.permutation import Permutation
from llmtrain.data.rows import Ids, Rows
from llmtrain.errors import DataError
from llmtrain.shards.reader import ShardedTokens

_KEY = 0x7661_6C69_6461_7465  # of no run: validation windows never change


def read_validation_rows(
    shards: Mapping[str, ShardedTokens], config: DataConfig, sequence_length: int, per_source: int
) -> dict[str, Rows]:
    """Up to `per_source` windows of each source's validation stream.

    The last window of a stream may be shorter: it is padded with eos and has no targets there. Windows are cut from
    the stream whatever `data.packing` is; documents are masked from each other if they are in training.

    Args:
        shards: validation shards by source.
        config: section `data`.
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
        rows[name] = _read_windows(opened, windows, sequence_length, config.mask_across_documents)
    return rows


def share_validation(
    rows: Mapping[str, Rows],
    config: DataConfig,
    micro_batch_size: int,
    data_parallel_size: int,
    data_parallel_rank: int,
) -> list[Batch]:
    """This rank's share of all windows; every window is in the share of exactly one rank.

    Every rank gets equally many batches of equal size: shares are filled up with windows without targets.

    Args:
        rows: windows by source; the position of a source is its index.
        config: section `data`.
        micro_batch_size: sequences per batch.
        data_parallel_size: ranks that share.
        data_parallel_rank: this one.
    """
    whole = Rows(
        np.concatenate([source.input_ids_NT for source in rows.values()]),
        np.concatenate([source.labels_NT for source in rows.values()]),
        np.concatenate([source.document_ids_NT for source in rows.values()]),
    )
    sources = np.repeat(np.arange(len(rows)), [len(source.input_ids_NT) for source in rows.values()])
    count = len(sources)
    places = np.arange(count + -count % (micro_batch_size * data_parallel_size))
    mine = places[data_parallel_rank::data_parallel_size]
    taken = mine % count
    share = Rows(whole.input_ids_NT[taken], whole.labels_NT[taken], whole.document_ids_NT[taken])
    share.labels_NT[mine >= count] = IGNORE_INDEX
    return split_batch(make_batch(share, sources[taken], config), micro_batch_size)


def _read_windows(shards: ShardedTokens, windows: Ids, length: int, mask_across_documents: bool) -> Rows:
    rows = Rows.empty(len(windows), length)
    rows.input_ids_NT.fill(shards.manifest.eos_id)
    rows.labels_NT.fill(IGNORE_INDEX)
    for i, window in enumerate(windows.tolist()):
        tokens = shards.read(window * length, length + 1)
        rows.input_ids_NT[i, : len(tokens) - 1] = tokens[:-1]
        rows.labels_NT[i, : len(tokens) - 1] = tokens[1:]
    bos_id = shards.manifest.bos_id
    if mask_across_documents:
        rows.labels_NT[rows.labels_NT == bos_id] = IGNORE_INDEX
    np.cumsum(rows.input_ids_NT == bos_id, axis=1, out=rows.document_ids_NT)
    return rows
