"""Prompts in, answers out, and what is told about them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from llmtrain.config.reward import GenerationConfig
from llmtrain.config.root import PosttrainingConfig
from llmtrain.config.run import RunConfig
from llmtrain.conversations.records import Message, Prompt
from llmtrain.posttraining.answers import (
    Answer,
    answer_prompts,
    as_answered,
    describe_answers,
    encode_prompts,
    mix_prompts,
    show_prompt,
    to_answers,
)
from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.context import StageContext
from llmtrain.posttraining.generation import Rollout
from llmtrain.process.signals import StopRequest
from llmtrain.process.world import World


def make(name: str, *texts: str) -> Prompt:
    roles = ("user", "assistant")
    return Prompt(name, "web", tuple(Message(roles[i % 2], text) for i, text in enumerate(texts)), None)  # type: ignore[arg-type]


def test_prompts_that_are_too_long_or_spell_symbols_are_counted(chat: ChatTokenizer) -> None:
    prompts = [make("a", "Hi"), make("b", "word " * 50), make("c", "<|end|>"), make("d", "So", "Yes", "Why?")]
    kept, rows, left_out = encode_prompts(chat, prompts, 30)
    assert kept == [prompts[0], prompts[3]]
    assert rows == [chat.encode_prompt(prompt.messages) for prompt in kept]
    assert left_out == {"longer than 30 tokens": 1, "spells the special token <|end|>": 1}


def test_functions_are_given_all_messages_of_a_prompt() -> None:
    assert show_prompt(make("a", "Hi")) == "Hi"
    assert show_prompt(make("a", "So", "Yes", "Why?")) == "So\n\nYes\n\nWhy?"


def test_rows_of_a_rollout_become_text_without_padding(chat: ChatTokenizer) -> None:
    words = chat.encode([Message("user", "x"), Message("assistant", "Yes.")])
    said = [token for token, flag in zip(words.input_ids, words.is_said, strict=True) if flag]
    pad, length = chat.pad_id, len(said)
    ids = torch.tensor([[*said, pad], [*said[:-1], said[0], said[0]]])
    mask = torch.tensor([[True] * length + [False], [True] * (length + 1)])
    rollout = Rollout(torch.tensor([[1], [1]]), ids, torch.zeros(2, length + 1), mask)
    ended, open_ended = to_answers(chat, [4, 7], ["p", "q"], [[1], [1, 2]], rollout)
    assert ended == Answer(4, "p", "Yes.", (1, *said), length, has_ended=True)
    assert (open_ended.tokens, open_ended.has_ended, open_ended.place) == (length + 1, False, 7)
    assert open_ended.ids == (1, 2, *ids[1].tolist())
    assert as_answered([ended]).ids == [[1, *said]]


def test_answers_do_not_depend_on_the_batch_and_are_the_same_every_time(
    models: dict[str, Any], family: str, chat: ChatTokenizer, tmp_path: Path
) -> None:
    config = PosttrainingConfig(run=RunConfig(name="r", root=tmp_path, seed=3))
    context = StageContext("ppo", config, tmp_path, {}, World(), torch.device("cpu"), StopRequest())
    prompts = [make(str(i), "word " * (i % 4) + str(i)) for i in range(7)]
    kept, rows, _ = encode_prompts(chat, prompts, 50)
    generation = GenerationConfig(max_new_tokens=8)
    answers = [answer_prompts(models[family], chat, kept, rows, generation, context, size) for size in (1, 3, 7)]
    assert answers[0] == answers[1] == answers[2]
    assert [answer.place for answer in answers[0]] == list(range(7))
    assert [answer.prompt for answer in answers[0]] == [show_prompt(prompt) for prompt in prompts]


def test_answers_are_described_by_length_end_and_variety() -> None:
    texts = ["a b", "a b", "c", ""]
    answers = [
        Answer(i, "p", text, (1, 2), tokens, has_ended=tokens < 4)
        for i, (text, tokens) in enumerate(zip(texts, (3, 3, 2, 4), strict=True))
    ]
    found = describe_answers(answers, {"gold": [1.0, 0.0, 1.0, 0.0]})
    assert found["gold"]["mean"] == 0.5
    assert found["response_tokens"] == 3
    assert found["ended_fraction"] == 0.75
    assert found["distinct_1"] == pytest.approx(3 / 5)
    assert found["distinct_2"] == 0.5
    assert found["distinct_3"] == 0.0
    assert found["distinct_responses"] == 0.75


def test_the_first_prompts_are_of_all_sources_and_follow_from_the_seed() -> None:
    prompts = [Prompt(str(i), "web" if i < 100 else "books", (Message("user", str(i)),), None) for i in range(200)]
    rows = [[i] for i in range(200)]
    mixed, mixed_rows = mix_prompts(prompts, rows, 3)
    assert {prompt.source for prompt in mixed[:20]} == {"web", "books"}
    assert [[int(prompt.id)] for prompt in mixed] == mixed_rows
    assert sorted(mixed_rows) == rows
    assert mix_prompts(prompts, rows, 3) == (mixed, mixed_rows)
    assert mix_prompts(prompts, rows, 4)[1] != mixed_rows
