"""A prompt that a model was trained on is never called held out by a later stage."""

from pathlib import Path

import pytest

from llmtrain.conversations.records import Message, Prompt
from llmtrain.errors import DataError
from llmtrain.posttraining.records import SplitRecords
from llmtrain.posttraining.trained_prompts import FILE_NAME, REASON, leave_out_trained, read_trained, render_trained


def make_prompt(text: str) -> Prompt:
    return Prompt(text, "chat", (Message("user", text),), None)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    text = render_trained([make_prompt(text).messages for text in ("What is one?", "What is two?")], {"0" * 16})
    (tmp_path / FILE_NAME).write_text(text)
    return tmp_path


def test_prompts_of_models_before_are_taken_out_and_counted(model: Path) -> None:
    records = SplitRecords(held_out=[make_prompt("what is  ONE"), make_prompt("What is three?")])
    leave_out_trained(records, read_trained({"model": model, "reward": model / "elsewhere"}), "ppo.prompts")
    assert [prompt.id for prompt in records.held_out] == ["What is three?"]
    assert records.left_out == {REASON: 1}


def test_hashes_of_stages_before_are_kept(model: Path) -> None:
    assert "0" * 16 in read_trained({"model": model})
    assert len(read_trained({"model": model})) == 3


def test_when_none_is_left_the_message_says_why(model: Path) -> None:
    records = SplitRecords(held_out=[make_prompt("What is two?")])
    with pytest.raises(
        DataError, match=r"ppo\.prompts: all 1 held-out prompts were trained on by a model that this stage"
    ):
        leave_out_trained(records, read_trained({"model": model}), "ppo.prompts")
