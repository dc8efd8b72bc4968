"""Pairs of files and drawn ones, and the fine-tuned model's own answers that make the offset."""

from pathlib import Path

import pytest
import torch

from llmtrain.config.records import RecordsConfig
from llmtrain.config.reward import GenerationConfig, RewardConfig, SampledPairsConfig, ScoreFunction
from llmtrain.config.root import PosttrainingConfig
from llmtrain.config.run import RunConfig
from llmtrain.config.sft import SftConfig
from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.context import StageContext
from llmtrain.posttraining.reward import collect_pairs
from llmtrain.process.signals import StopRequest
from llmtrain.process.world import World
from tests.posttraining.conftest import write_rows


@pytest.fixture
def context(tmp_path: Path, model_folders: dict[str, Path]) -> StageContext:
    """Of a stage that draws pairs for the prompts of two sources and always turns their labels."""
    data = {}
    for source in ("web", "books"):
        rows = [
            {"messages": [{"role": "user", "content": f"{source} {i}?"}, {"role": "assistant", "content": "Yes."}]}
            for i in range(30)
        ]
        data[source] = RecordsConfig(paths=(str(write_rows(tmp_path / f"{source}.jsonl", rows)),))
    label = tmp_path / "label.py"
    label.write_text("def score(prompts, responses):\n    return [len(r) for r in responses]\n")
    generation = GenerationConfig(max_new_tokens=8)
    sampled = SampledPairsConfig(label=ScoreFunction(file=label), pairs=20, label_noise=1.0, generation=generation)
    config = PosttrainingConfig(
        run=RunConfig(name="r", root=tmp_path, seed=3),
        sft=SftConfig(data=data, learning_rate=1e-3, micro_batch_size=2, global_batch_size=2),
        reward=RewardConfig(
            sampled=sampled, learning_rate=1e-3, micro_batch_size=4, global_batch_size=4, validation_fraction=0.5
        ),
    )
    parents = {"model": model_folders["llama"]}
    return StageContext("reward", config, tmp_path, parents, World(), torch.device("cpu"), StopRequest())


def test_labels_are_turned_in_training_only_and_every_source_is_judged(
    context: StageContext, chat: ChatTokenizer
) -> None:
    assert context.config.reward is not None
    records, _, sources = collect_pairs(context, context.config.reward, chat)
    assert records.train
    assert all(len(pair.chosen) < len(pair.rejected) for pair in records.train)
    assert records.held_out
    assert all(len(pair.chosen) > len(pair.rejected) for pair in records.held_out)
    assert set(sources) == {"web", "books"}
    assert sources.total() == len({pair.prompt for pair in records.held_out})
