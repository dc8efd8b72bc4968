"""Pairs of answers as tokens, and pairs that the model itself answers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from llmtrain.config.reward import GenerationConfig, SampledPairsConfig, ScoreFunction
from llmtrain.config.root import PosttrainingConfig
from llmtrain.config.run import RunConfig
from llmtrain.conversations.records import Message, Preference, Prompt
from llmtrain.errors import ConfigError, DataError
from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.context import StageContext
from llmtrain.posttraining.pairs import SAMPLED, EncodedPairs, SampledPreference, encode_pairs, sample_pairs
from llmtrain.process.signals import StopRequest
from llmtrain.process.world import World


def make(name: str, chosen: str, rejected: str, prompt: str = "Name one.") -> Preference:
    return Preference(name, "web", (Message("user", prompt),), chosen, rejected)


GOOD, LONG, SPELLS = make("a", "It is 1.", "No"), make("b", "Yes", "word " * 100), make("c", "Yes</s>", "No")


def test_a_pair_is_its_two_whole_conversations(chat: ChatTokenizer) -> None:
    pairs = encode_pairs(chat, [GOOD], 50, "refuse")
    for ids, text in ((pairs.chosen[0], GOOD.chosen), (pairs.rejected[0], GOOD.rejected)):
        assert ids == chat.encode((*GOOD.prompt, Message("assistant", text))).input_ids
        assert ids[-1] == chat.eos_id
        assert chat.decode(ids[pairs.prompt_tokens[0] :]) == text
    assert pairs.chosen[0][: pairs.prompt_tokens[0]] == pairs.rejected[0][: pairs.prompt_tokens[0]]


def test_what_is_left_out_is_counted_by_reason(chat: ChatTokenizer) -> None:
    same = make("d", "Yes", "Yes")
    pairs = encode_pairs(chat, [GOOD, LONG, SPELLS, same, make("e", "No", "It is 1.")], 50, "leave_out")
    assert pairs.describe() == {
        "pairs": 2,
        "by_source": {"web": 2},
        "left_out": {"longer than 50 tokens": 1, "spells the special token </s>": 1, "the same tokens": 1},
        "chosen_longer_fraction": 0.5,
    }


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt"), [("<pad>", "No", "Hi"), ("No", "<|end|>", "Hi"), ("Yes", "No", "<|user|>")]
)
def test_a_special_token_is_found_in_every_part(chosen: str, rejected: str, prompt: str, chat: ChatTokenizer) -> None:
    pairs = encode_pairs(chat, [GOOD, make("d", chosen, rejected, prompt)], 50, "refuse")
    assert len(pairs.chosen) == 1
    assert sum(pairs.left_out.values()) == 1


def test_a_long_pair_is_refused_by_its_name(chat: ChatTokenizer) -> None:
    tokens = len(chat.encode((*LONG.prompt, Message("assistant", LONG.rejected))).input_ids)
    with pytest.raises(DataError) as caught:
        encode_pairs(chat, [GOOD, LONG], 50, "refuse")
    assert str(caught.value) == (
        f"web: pair b has {tokens} tokens, more than 50. Raise reward.max_length, or set reward.long_examples to "
        "leave_out."
    )


def test_when_no_pair_is_left_the_reasons_are_told(chat: ChatTokenizer) -> None:
    with pytest.raises(DataError) as caught:
        encode_pairs(chat, [LONG, SPELLS], 50, "leave_out")
    assert str(caught.value) == (
        "reward.data: no pair is left of 2 records (longer than 50 tokens: 1, spells the special token </s>: 1). "
        "Mend them, name others in reward.data, or raise reward.max_length if they are too long."
    )
    with pytest.raises(DataError) as caught:
        encode_pairs(chat, [], 50, "leave_out")
    assert str(caught.value) == (
        "reward.data: no pair is left of 0 records (there were none). Mend them, name others in reward.data, or raise "
        "reward.max_length if they are too long."
    )


def test_when_no_held_out_pair_is_left_it_is_told_how_many_there_are_to_train_on(chat: ChatTokenizer) -> None:
    with pytest.raises(DataError) as caught:
        encode_pairs(chat, [SPELLS], 50, "leave_out", training=7)
    assert str(caught.value) == (
        "reward.data: no held-out pair is left of 1 held-out records (spells the special token </s>: 1); 7 are left to "
        "train on. Raise reward.validation_fraction, or mend the records."
    )


def test_nothing_encoded_is_described_without_a_division_by_zero() -> None:
    assert EncodedPairs().describe()["chosen_longer_fraction"] == 0.0


@pytest.fixture
def context(tmp_path: Path) -> StageContext:
    config = PosttrainingConfig(run=RunConfig(name="r", root=tmp_path, seed=3))
    return StageContext("reward", config, tmp_path, {}, World(), torch.device("cpu"), StopRequest())


@pytest.fixture
def sample(
    tmp_path: Path, models: dict[str, Any], chat: ChatTokenizer, context: StageContext
) -> Callable[..., tuple[list[Preference], Any]]:
    """Draws pairs for three prompts, labelled by a function of the response."""

    def draw(
        label: str,
        count: int = 12,
        batch_size: int = 5,
        noise: float = 0.0,
        prompts: int = 3,
        tokens: int = 8,
        others: Sequence[str] = (),
    ) -> tuple[list[Preference], Any]:
        file = tmp_path / "label.py"
        file.write_text(f"def score(prompts, responses):\n    return [{label} for r in responses]\n")
        config = SampledPairsConfig(
            label=ScoreFunction(file=file), label_noise=noise, generation=GenerationConfig(max_new_tokens=tokens)
        )
        texts = [Prompt(str(i), "web", (Message("user", f"Name {i}."),), None) for i in range(prompts)]
        texts += [Prompt("x", "web", (Message("user", text),), None) for text in others]
        return sample_pairs(models["llama"], chat, texts, config, count, context, batch_size)

    return draw


def test_the_better_of_two_drawn_answers_is_chosen(sample: Callable[..., tuple[list[Preference], Any]]) -> None:
    pairs, left_out = sample("len(r)")
    assert len(pairs) + sum(left_out.values()) == 12
    assert len(pairs) > 6
    asked: dict[int, set[tuple[Message, ...]]] = {}
    for pair in pairs:
        assert len(pair.chosen) > len(pair.rejected)
        assert pair.source == SAMPLED
        place = int(pair.id.removeprefix("sampled-"))
        asked.setdefault(place % 3, set()).add(pair.prompt)
    assert sorted(asked.values(), key=str) == [{(Message("user", f"Name {i}."),)} for i in range(3)]
    assert len({(pair.chosen, pair.rejected) for pair in pairs}) == len(pairs)


def test_drawn_pairs_do_not_depend_on_the_batch(sample: Callable[..., tuple[list[Preference], Any]]) -> None:
    assert sample("len(r)", batch_size=1) == sample("len(r)", batch_size=12)
    few, _ = sample("len(r)", count=4)
    assert few == sample("len(r)")[0][: len(few)]


def test_noise_turns_as_many_labels_as_it_says(sample: Callable[..., tuple[list[Preference], Any]]) -> None:
    right, _ = sample("len(r)", count=200, batch_size=100)
    turned, _ = sample("len(r)", count=200, batch_size=100, noise=0.25)
    changed = sum(one.chosen == other.rejected for one, other in zip(right, turned, strict=True))
    # A quarter of two hundred, give or take three standard deviations.
    assert abs(changed / len(right) - 0.25) < 3 * (0.25 * 0.75 / len(right)) ** 0.5
    wrong, _ = sample("len(r)", noise=1.0)
    assert all(len(pair.chosen) < len(pair.rejected) for pair in wrong)


def test_equal_labels_are_no_pair_and_counted(sample: Callable[..., tuple[list[Preference], Any]]) -> None:
    pairs, left_out = sample("1")
    assert (pairs, dict(left_out)) == ([], {"equal labels": 12})


def test_an_answer_without_words_is_no_answer(sample: Callable[..., tuple[list[Preference], Any]]) -> None:
    pairs, left_out = sample("sum(map(ord, r))", count=300, batch_size=100, tokens=1)
    assert left_out["an answer without words"] > 0
    assert len(pairs) + sum(left_out.values()) == 300
    assert all(pair.chosen.strip() and pair.rejected.strip() for pair in pairs)


def test_without_a_prompt_that_fits_nothing_is_drawn(sample: Callable[..., tuple[list[Preference], Any]]) -> None:
    with pytest.raises(DataError) as caught:
        sample("1", prompts=0)
    assert str(caught.value) == (
        "reward.sampled: no prompt of sft.data is left to answer (none was read). A prompt may have 88 tokens: the "
        "model reads 96, and reward.sampled.generation.max_new_tokens is 8."
    )


def test_fewer_pairs_than_prompts_are_of_all_of_the_files(sample: Callable[..., tuple[list[Preference], Any]]) -> None:
    pairs, _ = sample("len(r)", count=12, prompts=60)
    numbers = [int(pair.prompt[0].content.removeprefix("Name ").removesuffix(".")) for pair in pairs]
    assert min(numbers) < 20
    assert max(numbers) >= 40


def test_prompts_that_were_not_asked_are_counted_with_the_pairs(
    sample: Callable[..., tuple[list[Preference], Any]],
) -> None:
    _, left_out = sample("1", others=("word " * 100, "a</s>", "b</s>"))
    assert left_out == {
        "equal labels": 12,
        "prompt: longer than 88 tokens": 1,
        "prompt: spells the special token </s>": 2,
    }


def test_answers_that_fill_the_model_are_refused_by_their_key(
    sample: Callable[..., tuple[list[Preference], Any]],
) -> None:
    with pytest.raises(ConfigError) as caught:
        sample("1", tokens=96)
    assert str(caught.value) == (
        "reward.sampled.generation.max_new_tokens = 96: the model reads 96 tokens, prompt and response together. "
        "Choose fewer than 96, less the tokens of a prompt."
    )


def test_a_drawn_answer_that_did_not_end_is_not_shown_as_if_it_had(chat: ChatTokenizer) -> None:
    prompt = (Message("user", "What is 1?"),)
    ids = chat.encode_prompt(prompt)
    open_answer, ended = (*ids, 40, 41), (*ids, 42, chat.eos_id)
    pair = SampledPreference("sampled-0", "sampled", prompt, "a", "b", ended, open_answer)
    encoded = encode_pairs(chat, [pair], 90, "refuse")
    assert (encoded.chosen, encoded.rejected) == ([list(ended)], [list(open_answer)])
    assert encoded.prompt_tokens == [len(ids)]
