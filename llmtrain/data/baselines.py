"""What counting alone achieves: unigram and bigram cross-entropy on the very targets the model is validated on.

The bigram is interpolated Kneser-Ney, one model per source, counted on that source's training tokens: an opponent that
knows the source. A model that does not beat it has learned little.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.data.rows import Rows

MAX_TRAIN_TOKENS = 20_000_000

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Baselines:
    """Mean cross-entropy in nats per token."""

    unigram: float
    bigram: float
    target_tokens: int
    train_tokens: int
    """Training tokens counted, at most MAX_TRAIN_TOKENS."""


def compute_baselines(train_tokens: Ids, validation: Rows, vocab_size: int) -> Baselines:
    """Count on training tokens, score validation targets.

    Args:
        train_tokens: a stream of token ids.
        validation: windows; targets that are IGNORE_INDEX are left out.
        vocab_size: ids.

    Source:
        Ney, Essen and Kneser 1994; Chen and Goodman 1999, section 2.8 (interpolated Kneser-Ney, one discount).
    """
    train_tokens = train_tokens[:MAX_TRAIN_TOKENS]
    scored = validation.labels_NT != IGNORE_INDEX
    contexts, targets = validation.input_ids_NT[scored], validation.labels_NT[scored]
    return Baselines(
        unigram=-float(np.log(_unigram(train_tokens, vocab_size)[targets]).mean()),
        bigram=-float(np.log(_bigram(train_tokens, contexts, targets, vocab_size)).mean()),
        target_tokens=len(targets),
        train_tokens=len(train_tokens),
    )


def _unigram(tokens: Ids, vocab_size: int) -> NDArray[np.float64]:
    counts = np.bincount(tokens, minlength=vocab_size) + 1.0
    probabilities: NDArray[np.float64] = counts / counts.sum()
    return probabilities


def _bigram(tokens: Ids, contexts: Ids, targets: Ids, vocab_size: int) -> NDArray[np.float64]:
    pairs, counts = np.unique(tokens[:-1] * vocab_size + tokens[1:], return_counts=True)
    discount = _discount(counts)
    firsts, seconds = pairs // vocab_size, pairs % vocab_size
    context_counts = np.bincount(firsts, counts, vocab_size)
    followers = np.bincount(firsts, minlength=vocab_size)
    # The lower order counts in how many contexts a token occurs, itself smoothed with the uniform distribution.
    occurrences = np.bincount(seconds, minlength=vocab_size).astype(np.float64)
    seen = np.count_nonzero(occurrences)
    lower = (np.maximum(occurrences - discount, 0) + discount * seen / vocab_size) / occurrences.sum()
    wanted = contexts * vocab_size + targets
    places = np.minimum(np.searchsorted(pairs, wanted), len(pairs) - 1)
    pair_counts = np.where(pairs[places] == wanted, counts[places], 0)
    known = context_counts[contexts] > 0
    denominators = np.where(known, context_counts[contexts], 1)
    direct = np.maximum(pair_counts - discount, 0) / denominators
    backoff = np.where(known, discount * followers[contexts] / denominators, 1.0)
    probabilities: NDArray[np.float64] = direct + backoff * lower[targets]
    return probabilities


def _discount(counts: NDArray[np.int64]) -> float:
    once, twice = np.count_nonzero(counts == 1), np.count_nonzero(counts == 2)
    return once / (once + 2 * twice) if once and twice else 0.5
