"""The prompts of reinforcement learning: which are held out, which are left out, and why."""

from pathlib import Path
from typing import Any

import pytest

from llmtrain.config.ppo import PpoConfig
from llmtrain.config.records import RecordsConfig
from llmtrain.config.reward import GenerationConfig
from llmtrain.errors import CheckpointError, ConfigError, DataError
from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.ppo import encode_policy_data
from tests.posttraining.conftest import write_rows


@pytest.fixture
def section(tmp_path: Path) -> PpoConfig:
    """Two sources of forty prompts, half held out, and twelve to evaluate on."""
    prompts = {}
    for source in ("web", "books"):
        rows = [{"messages": [{"role": "user", "content": f"Name {source} {i}."}]} for i in range(40)]
        file = write_rows(tmp_path / f"{source}.jsonl", rows)
        prompts[source] = RecordsConfig(paths=(str(file),))
    values: dict[str, Any] = {"learning_rate": 1e-3, "micro_batch_size": 1, "global_batch_size": 2, "train_steps": 1}
    return PpoConfig(prompts=prompts, validation_fraction=0.5, evaluation_prompts=12, **values)


def test_prompts_to_evaluate_on_are_of_all_sources(
    section: PpoConfig, models: dict[str, Any], chat: ChatTokenizer
) -> None:
    data = encode_policy_data(section, chat, models["llama"], 3)
    assert len(data.held_out) == len(data.held_out_rows) == 12
    assert {prompt.source for prompt in data.held_out} == {"web", "books"}
    assert [chat.encode_prompt(prompt.messages) for prompt in data.held_out] == data.held_out_rows


def test_prompts_left_out_of_both_parts_are_counted(
    section: PpoConfig, models: dict[str, Any], chat: ChatTokenizer, tmp_path: Path
) -> None:
    rows = [{"messages": [{"role": "user", "content": f"{i} </s>"}]} for i in range(40)]
    other = RecordsConfig(paths=(str(write_rows(tmp_path / "other.jsonl", rows)),))
    more = section.model_copy(update={"prompts": {**section.prompts, "other": other}})
    data = encode_policy_data(more, chat, models["llama"], 3)
    assert data.left_out == {"spells the special token </s>": 40}
    with pytest.raises(DataError) as caught:
        encode_policy_data(section.model_copy(update={"prompts": {"other": other}}), chat, models["llama"], 3)
    assert "no prompt is left to train on (spells the special token </s>: 40). A prompt may have" in str(caught.value)


def test_responses_that_fill_the_model_are_refused_by_their_key(
    section: PpoConfig, models: dict[str, Any], chat: ChatTokenizer
) -> None:
    long = section.model_copy(update={"generation": GenerationConfig(max_new_tokens=100)})
    with pytest.raises(ConfigError, match=r"^ppo.generation.max_new_tokens = 100: the model reads 96 tokens"):
        encode_policy_data(long, chat, models["llama"], 3)


def test_a_model_that_does_not_say_how_much_it_reads_is_refused(section: PpoConfig, chat: ChatTokenizer) -> None:
    from transformers import BloomConfig, BloomForCausalLM

    model = BloomForCausalLM(BloomConfig(vocab_size=400, hidden_size=16, n_layer=1, n_head=2))
    with pytest.raises(CheckpointError, match="does not say how many tokens it reads"):
        encode_policy_data(section, chat, model, 3)
