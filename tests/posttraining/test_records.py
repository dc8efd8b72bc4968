"""The records of a stage, read by source and split by prompt."""

from pathlib import Path
from typing import Any

import pytest

from llmtrain.config.records import RecordsConfig
from llmtrain.conversations.split import normalize
from llmtrain.errors import ConfigError
from llmtrain.posttraining.records import read_split_conversations, read_split_preferences, read_split_prompts
from tests.posttraining.conftest import write_rows


def sources(**files: Path) -> dict[str, RecordsConfig]:
    return {name: RecordsConfig(paths=(str(path),)) for name, path in files.items()}


def test_a_share_of_the_prompts_is_held_out_the_same_in_every_stage(
    conversations_file: Path, preferences_file: Path
) -> None:
    chats = read_split_conversations(sources(web=conversations_file), 0.3)
    prompts = read_split_prompts(sources(web=conversations_file), 0.3)
    assert len(chats.train) + len(chats.held_out) == 20
    assert 0 < len(chats.held_out) < 15
    held = {normalize(item.prompt) for item in chats.held_out}
    assert held.isdisjoint(normalize(item.prompt) for item in chats.train)
    assert {normalize(item.prompt) for item in prompts.held_out} == held
    pairs = read_split_preferences(sources(web=preferences_file), 0.3)
    assert len(pairs.train) + len(pairs.held_out) == 20


def test_nothing_is_held_out_where_no_share_is_wanted(conversations_file: Path) -> None:
    chats = read_split_conversations(sources(web=conversations_file), 0.0)
    assert (len(chats.train), len(chats.held_out)) == (20, 0)


def test_a_prompt_of_two_sources_never_lies_on_both_sides(tmp_path: Path) -> None:
    def rows(answer: str) -> list[dict[str, Any]]:
        return [{"prompt": f"What is {i}?", "completion": f"{answer} {i}"} for i in range(40)]

    data = sources(
        a=write_rows(tmp_path / "a.jsonl", rows("It is")), b=write_rows(tmp_path / "b.jsonl", rows("This is"))
    )
    chats = read_split_conversations(data, 0.2)
    held = {normalize(item.prompt) for item in chats.held_out}
    assert held
    assert held.isdisjoint(normalize(item.prompt) for item in chats.train)
    prompts = read_split_prompts(data, 0.2)
    texts = [normalize(item.prompt) for item in (*prompts.train, *prompts.held_out)]
    assert len(texts) == len(set(texts)) == 40


def test_the_summary_names_files_and_counts_by_source(conversations_file: Path) -> None:
    found = read_split_conversations(sources(web=conversations_file, again=conversations_file), 0.3).describe()
    assert sum(found["train"].values()) + sum(found["held_out"].values()) == 40
    assert [row["source"] for row in found["files"]] == ["web", "again"]
    assert found["files"][0]["sha256"] == found["files"][1]["sha256"]


@pytest.mark.parametrize(
    ("read", "key"),
    [
        (read_split_conversations, "sft.data"),
        (read_split_preferences, "reward.data"),
        (read_split_prompts, "ppo.prompts"),
    ],
)
def test_a_stage_without_records_is_refused_by_its_key(read: Any, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read({}, 0.1)
    assert str(caught.value) == (f"{key}: no source. Name files there, or add section `instructions` to make some.")
