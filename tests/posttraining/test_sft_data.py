"""Conversations as tokens with labels; nothing is left out in silence."""

import pytest

from llmtrain.conversations.records import Conversation, Message
from llmtrain.data.labels import IGNORE_INDEX
from llmtrain.errors import DataError
from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.sft_data import encode_conversations


def make(name: str, *texts: str) -> Conversation:
    roles = ("user", "assistant")
    messages = tuple(Message(roles[i % 2], text) for i, text in enumerate(texts))  # type: ignore[arg-type]
    return Conversation(name, "web", messages)


SHORT, TURNS = make("a", "Hi", "Yes."), make("b", "Hi", "Yes.", "Why?", "So.")
LONG, SPELLS = make("c", "Hi", "word " * 100), make("d", "Hi", "the end </s>")


def test_only_what_the_assistant_says_is_learned(chat: ChatTokenizer) -> None:
    examples = encode_conversations(chat, [SHORT, TURNS], 50, "refuse", "assistant")
    for record, ids, labels in zip((SHORT, TURNS), examples.input_ids, examples.labels, strict=True):
        encoded = chat.encode(record.messages)
        assert ids == encoded.input_ids
        assert labels == [token if flag else IGNORE_INDEX for token, flag in zip(ids, encoded.is_said, strict=True)]
        learned = [label for label in labels if label != IGNORE_INDEX]
        words = "".join(message.content for message in record.messages if message.role == "assistant")
        assert chat.decode(learned) == words
        assert learned.count(chat.eos_id) == len(record.messages) // 2
    assert examples.sources == ["web", "web"]


def test_all_tokens_but_the_first_are_learned_if_so_wanted(chat: ChatTokenizer) -> None:
    examples = encode_conversations(chat, [SHORT], 50, "refuse", "all")
    assert examples.labels == [[IGNORE_INDEX, *examples.input_ids[0][1:]]]


def test_long_examples_are_left_out_and_counted(chat: ChatTokenizer) -> None:
    examples = encode_conversations(chat, [SHORT, LONG, LONG, TURNS], 50, "leave_out", "assistant")
    assert len(examples.input_ids) == 2
    assert examples.left_out == {"longer than 50 tokens": 2}
    assert examples.longest_tokens == len(chat.encode(LONG.messages).input_ids) > 50


def test_long_examples_are_cut_and_counted(chat: ChatTokenizer) -> None:
    examples = encode_conversations(chat, [SHORT, LONG], 50, "cut", "assistant")
    assert examples.input_ids[1] == chat.encode(LONG.messages).input_ids[:50]
    assert len(examples.labels[1]) == 50
    assert examples.left_out == {"cut at 50 tokens (kept)": 1}
    assert chat.eos_id not in examples.labels[1]


def test_an_example_of_the_very_limit_is_whole(chat: ChatTokenizer) -> None:
    limit = len(chat.encode(LONG.messages).input_ids)
    assert encode_conversations(chat, [LONG], limit, "refuse", "assistant").left_out == {}


def test_a_long_example_is_refused_by_its_name(chat: ChatTokenizer) -> None:
    tokens = len(chat.encode(LONG.messages).input_ids)
    with pytest.raises(DataError) as caught:
        encode_conversations(chat, [SHORT, LONG], 50, "refuse", "assistant")
    assert str(caught.value) == (
        f"web: record c has {tokens} tokens, more than 50. Raise sft.max_length, or set sft.long_examples to leave_out "
        "or cut."
    )


def test_a_record_that_spells_a_special_token_is_left_out_and_counted(chat: ChatTokenizer) -> None:
    examples = encode_conversations(chat, [SPELLS, SHORT], 50, "refuse", "assistant")
    assert len(examples.input_ids) == 1
    assert examples.left_out == {"spells the special token </s>": 1}


def test_a_cut_that_leaves_nothing_of_the_assistant_is_counted(chat: ChatTokenizer) -> None:
    asks = make("e", "word " * 100, "Yes.")
    examples = encode_conversations(chat, [asks, SHORT], 50, "cut", "assistant")
    assert len(examples.input_ids) == 1
    assert examples.left_out == {"nothing to learn within the limit": 1}


def test_when_nothing_is_left_the_reasons_are_told(chat: ChatTokenizer) -> None:
    with pytest.raises(DataError) as caught:
        encode_conversations(chat, [SPELLS, LONG, LONG], 50, "leave_out", "assistant")
    assert str(caught.value) == (
        "sft.data: no example is left of 3 records (spells the special token </s>: 1, longer than 50 tokens: 2). "
        "Mend them, name others in sft.data, or raise sft.max_length if they are too long."
    )
    with pytest.raises(DataError) as caught:
        encode_conversations(chat, [], 50, "leave_out", "assistant")
    assert str(caught.value) == (
        "sft.data: no example is left of 0 records (there were none). Mend them, name others in sft.data, or raise "
        "sft.max_length if they are too long."
    )


def test_when_no_held_out_example_is_left_it_is_told_how_many_there_are_to_train_on(chat: ChatTokenizer) -> None:
    with pytest.raises(DataError) as caught:
        encode_conversations(chat, [SPELLS], 50, "leave_out", "assistant", training=7)
    assert str(caught.value) == (
        "sft.data: no held-out example is left of 1 held-out records (spells the special token </s>: 1); 7 are left to "
        "train on. Raise sft.validation_fraction, or mend the records."
    )


def test_the_summary_counts_examples_and_tokens(chat: ChatTokenizer) -> None:
    examples = encode_conversations(chat, [SHORT, TURNS, SPELLS], 50, "refuse", "assistant")
    assert examples.describe() == {
        "examples": 2,
        "tokens": sum(map(len, examples.input_ids)),
        "learned_tokens": sum(label != IGNORE_INDEX for row in examples.labels for label in row),
        "longest_tokens": max(map(len, examples.input_ids)),
        "left_out": {"spells the special token </s>": 1},
    }
