import math
from collections import Counter

import numpy as np
import pytest

from llmtrain.data.baselines import _bigram, compute_baselines
from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.data.rows import Rows
from tests.helpers.texts import stdlib_texts

VOCAB = 256
TRAIN = np.frombuffer(stdlib_texts()[0].encode(), np.uint8).astype(np.int64) % VOCAB
TEST = np.frombuffer(stdlib_texts()[1].encode(), np.uint8).astype(np.int64)[:4001] % VOCAB


def rows_of(tokens: np.ndarray) -> Rows:
    inputs, labels = tokens[:-1].reshape(-1, 100), tokens[1:].reshape(-1, 100)
    return Rows(inputs, labels, np.zeros_like(inputs))


def naive_kneser_ney(context: int, token: int) -> float:
    pairs = Counter(zip(TRAIN[:-1].tolist(), TRAIN[1:].tolist(), strict=True))
    once, twice = (sum(count == n for count in pairs.values()) for n in (1, 2))
    discount = once / (once + 2 * twice)
    types_ending = Counter(second for _, second in pairs)
    lower = (max(types_ending[token] - discount, 0) + discount * len(types_ending) / VOCAB) / len(pairs)
    total = sum(count for (first, _), count in pairs.items() if first == context)
    followers = sum(first == context for first, _ in pairs)
    if total == 0:
        return lower
    return float(max(pairs[(context, token)] - discount, 0) / total + discount * followers / total * lower)


def test_the_bigram_agrees_with_a_naive_count() -> None:
    contexts, targets = TEST[:40], TEST[1:41]
    expected = [naive_kneser_ney(int(a), int(b)) for a, b in zip(contexts, targets, strict=True)]
    assert _bigram(TRAIN, contexts, targets, VOCAB).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("context", [int(TRAIN[0]), int(TRAIN[500]), 7, 255])
def test_probabilities_after_any_context_add_up_to_one(context: int) -> None:
    targets = np.arange(VOCAB)
    probabilities = _bigram(TRAIN, np.full(VOCAB, context), targets, VOCAB)
    assert probabilities.min() > 0
    assert float(probabilities.sum()) == pytest.approx(1.0)


def test_the_unigram_agrees_with_a_naive_count() -> None:
    counts = Counter(TRAIN.tolist())
    expected = -sum(math.log((counts[t] + 1) / (len(TRAIN) + VOCAB)) for t in TEST[1:].tolist()) / 4000
    assert compute_baselines(TRAIN, rows_of(TEST), VOCAB).unigram == pytest.approx(expected)


def test_knowing_the_token_before_helps() -> None:
    result = compute_baselines(TRAIN, rows_of(TEST), VOCAB)
    assert 0 < result.bigram < result.unigram < math.log(VOCAB)
    assert (result.target_tokens, result.train_tokens) == (4000, len(TRAIN))


def test_only_real_targets_are_scored() -> None:
    rows = rows_of(TEST)
    rows.labels_NT[1:] = IGNORE_INDEX
    partial = compute_baselines(TRAIN, rows, VOCAB)
    alone = compute_baselines(TRAIN, Rows(rows.input_ids_NT[:1], rows.labels_NT[:1], rows.document_ids_NT[:1]), VOCAB)
    assert partial == alone
    assert partial.target_tokens == 100
