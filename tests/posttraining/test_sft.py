"""The held-out loss of fine-tuning: the same whatever is in a batch."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llmtrain.config.root import PosttrainingConfig
from llmtrain.config.run import RunConfig
from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.context import StageContext
from llmtrain.posttraining.sft import compute_held_out_loss
from llmtrain.posttraining.sft_data import Examples
from llmtrain.process.signals import StopRequest
from llmtrain.process.world import World

# float32 sums in another order.
ROUNDING = 1e-5


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    config = PosttrainingConfig(run=RunConfig(name="r", root=tmp_path, seed=3))
    return StageContext("sft", config, tmp_path, {}, World(), torch.device("cpu"), StopRequest())


def make_examples() -> Examples:
    examples = Examples()
    for i, length in enumerate((5, 30, 8, 3, 17)):
        ids = [1, *(20 + (7 * i + j) % 300 for j in range(length))]
        examples.input_ids.append(ids)
        examples.labels.append([IGNORE_INDEX] * 2 + ids[2:])
        examples.sources.append("web" if i % 2 else "made")
    return examples


def test_it_is_the_mean_over_learned_tokens_in_all_and_by_source(
    family: str, models: dict[str, Any], chat: ChatTokenizer, context: StageContext
) -> None:
    examples = make_examples()
    sums: dict[str, list[float]] = {"web": [], "made": []}
    for ids, labels, source in zip(examples.input_ids, examples.labels, examples.sources, strict=True):
        with torch.no_grad():
            logprobs = models[family](input_ids=torch.tensor([ids]), use_cache=False).logits[0].log_softmax(-1)
        sums[source] += [-float(logprobs[i - 1, label]) for i, label in enumerate(labels) if label != IGNORE_INDEX]
    every = sums["web"] + sums["made"]
    for batch_size in (1, 2, 5, 8):
        found = compute_held_out_loss(models[family], examples, batch_size, chat.pad_id, context)
        assert found == {
            "validation/loss": pytest.approx(sum(every) / len(every), abs=ROUNDING),
            "validation/loss_web": pytest.approx(sum(sums["web"]) / len(sums["web"]), abs=ROUNDING),
            "validation/loss_made": pytest.approx(sum(sums["made"]) / len(sums["made"]), abs=ROUNDING),
        }


def test_dropout_is_off_meanwhile_and_the_mode_is_given_back(
    models: dict[str, Any], chat: ChatTokenizer, context: StageContext
) -> None:
    model = models["gpt2"]
    expected = compute_held_out_loss(model, make_examples(), 2, chat.pad_id, context)
    try:
        model.train()
        assert compute_held_out_loss(model, make_examples(), 2, chat.pad_id, context) == expected
        assert model.training
    finally:
        model.eval()


def test_without_held_out_examples_there_is_no_loss(
    models: dict[str, Any], chat: ChatTokenizer, context: StageContext
) -> None:
    assert compute_held_out_loss(models["llama"], Examples(), 2, chat.pad_id, context) == {}
