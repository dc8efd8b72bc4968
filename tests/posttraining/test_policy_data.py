"""The prompts of reinforcement learning: which are held out, which are left out, and why."""

from pathlib import Path
from typing import Any

import pytest

from llmtrain.config.ppo import PpoConfig
from llmtrain.config.records import RecordsConfig
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
