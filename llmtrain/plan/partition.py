"""Which layers each pipeline stage holds: consecutive ones, with the costliest stage as cheap as can be.

Units are numbered as the network runs: 0 is the embedding, 1 ... num_layers are blocks, the last one is the final norm
with the output projection and the loss.
"""

from collections.abc import Sequence

from llmtrain.plan.model_shape import ModelShape

# A lookup and an addition: memory traffic of about this many multiply-adds per element of the hidden state.
_EMBEDDING_COST_PER_ELEMENT = 16


def compute_unit_costs(shape: ModelShape, sequence_length: int) -> list[float]:
    """Multiply-adds of the forward pass per token of each unit.

    Args:
        shape: of the model.
        sequence_length: tokens per sequence.
    """
    head = shape.hidden_size * shape.padded_vocab_size
    block = (shape.compute_flops_per_token(sequence_length) / 6 - shape.hidden_size * shape.vocab_size) / (
        shape.num_layers
    )
    return [_EMBEDDING_COST_PER_ELEMENT * shape.hidden_size, *[block] * shape.num_layers, head]


def count_unit_parameters(shape: ModelShape) -> list[int]:
    """Trained parameters of each unit, without rows that pad the vocabulary; a tied weight belongs to the embedding."""
    table = shape.vocab_size * shape.hidden_size
    positions = shape.max_sequence_length * shape.hidden_size if shape.family == "gpt2" else 0
    final_norm = (2 if shape.family == "gpt2" else 1) * shape.hidden_size
    head = 0 if shape.tie_word_embeddings else table
    blocks = (shape.num_parameters - table - positions - final_norm - head) // shape.num_layers
    return [table + positions, *[blocks] * shape.num_layers, final_norm + head]


def partition_units(costs: Sequence[float], stages: int) -> list[int]:
    """Cut a sequence into consecutive, non-empty stages.

    Args:
        costs: of each unit.
        stages: at most `len(costs)`.

    Returns:
        `stages + 1` borders: stage s holds units [borders[s], borders[s + 1]). The largest cost of a stage is minimal,
        and among those cuts the sum of squared costs.
    """
    sums = [0.0]
    for cost in costs:
        sums.append(sums[-1] + cost)
    count = len(costs)
    # best[n]: (largest cost, squared costs, borders) of the first n units in the stages so far
    best: list[tuple[float, float, list[int]] | None] = [(0.0, 0.0, [0])] + [None] * count
    for stage in range(1, stages + 1):
        following: list[tuple[float, float, list[int]] | None] = [None] * (count + 1)
        for stop in range(stage, count - (stages - stage) + 1):
            candidates = [
                (max(found[0], sums[stop] - sums[start]), found[1] + (sums[stop] - sums[start]) ** 2, found[2])
                for start in range(stage - 1, stop)
                if (found := best[start]) is not None
            ]
            largest, squares, borders = min(candidates, key=lambda candidate: candidate[:2])
            following[stop] = (largest, squares, [*borders, stop])
        best = following
    result = best[count]
    assert result is not None  # stages <= units
    return result[2]


def describe_stage(borders: Sequence[int], stage: int, num_layers: int) -> str:
    """What a stage holds, in words: `embedding, blocks 0-3`."""
    start, stop = borders[stage], borders[stage + 1]
    parts = ["embedding"] if start == 0 else []
    first, last = max(start - 1, 0), min(stop - 2, num_layers - 1)
    if first <= last and stop > 1:
        parts.append(f"block {first}" if first == last else f"blocks {first}-{last}")
    if stop == num_layers + 2:
        parts.append("output")
    return ", ".join(parts)
