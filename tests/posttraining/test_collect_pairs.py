"""Pairs of files and drawn ones, and the fine-tuned model's own answers that make the offset."""

from pathlib import Path

import pytest
import torch

from llmtrain.config.records import RecordsConfig
from llmtrain.config.reward import GenerationConfig, RewardConfig, SampledPairsConfig, ScoreFunction
from llmtrain.config.root import PosttrainingConfig
from llmtrain.config.run import RunConfig
from llmtrain.config.sft import SftConfig
from llmtrain.conversations.records import Message, Preference
from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.context import StageContext
from llmtrain.posttraining.models import start_reward_model
from llmtrain.posttraining.reward import collect_pairs
from llmtrain.posttraining.reward_offset import compute_offset, draw_own_answers
from llmtrain.posttraining.rewards import score_sequences
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


def test_the_offset_is_the_mean_score_of_own_answers_as_they_are_drawn(
    context: StageContext, chat: ChatTokenizer
) -> None:
    prompts = [(Message("user", f"Name {i}."),) for i in range(300)]
    pairs = [Preference(f"{i}{j}", "web", prompt, "Yes", "No") for i, prompt in enumerate(prompts) for j in range(2)]
    generation = GenerationConfig(max_new_tokens=4)
    own = draw_own_answers(context, chat, pairs, generation, 64)
    assert len(own) == 256
    asked = {tuple(chat.encode_prompt(prompt)) for prompt in prompts}
    starts = [next(start for start in asked if tuple(ids[: len(start)]) == start) for ids in own]
    assert len(set(starts)) == 256
    # As PPO is given them: most have no end after four tokens.
    assert all(1 <= len(ids) - len(start) <= 4 for ids, start in zip(own, starts, strict=True))
    assert sum(ids[-1] != chat.eos_id for ids in own) > 128
    reward = start_reward_model(context.parents["model"], chat.pad_id, seed=5)
    expected = float(score_sequences(reward.eval(), own, chat.pad_id, 16).mean())
    offset = compute_offset(reward.train(), own, chat.pad_id, 16, context)
    assert offset == pytest.approx(expected, abs=1e-9)
    assert reward.training


def test_answers_for_the_offset_fit_what_the_model_reads(context: StageContext, chat: ChatTokenizer) -> None:
    short = Preference("a", "web", (Message("user", "Hi"),), "Yes", "No")
    long = Preference("b", "web", (Message("user", "word " * 60),), "Yes", "No")
    own = draw_own_answers(context, chat, [short, long], GenerationConfig(max_new_tokens=1000), 2)
    assert len(own) == 1
    assert len(own[0]) <= len(chat.encode_prompt(short.prompt)) + 48
    assert draw_own_answers(context, chat, [long], GenerationConfig(), 2) == []
