import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmtrain.conversations.records import Conversation, Message, Preference, Prompt
from llmtrain.conversations.split import find_shared_prompts, normalize, split_held_out
from llmtrain.errors import DataError

COUNT = 4000
FRACTION = 0.1
STANDARD_ERRORS = 5  # a binomial sample strays further once in two million


def prompt(text: str, own: str = "x") -> Prompt:
    return Prompt(own, "mine", (Message("user", text),), None)


def test_about_the_asked_share_is_held_out() -> None:
    items = [prompt(f"Question {i}?") for i in range(COUNT)]
    train, held_out = split_held_out(items, FRACTION)
    deviation = (COUNT * FRACTION * (1 - FRACTION)) ** 0.5
    assert abs(len(held_out) - COUNT * FRACTION) < STANDARD_ERRORS * deviation
    assert set(train) | set(held_out) == set(items)
    assert len(train) + len(held_out) == COUNT


@given(st.lists(st.text(max_size=6), min_size=3, max_size=40), st.floats(0.05, 0.9))
def test_one_prompt_never_lies_on_both_sides(texts: list[str], fraction: float) -> None:
    items = [prompt(text, str(i)) for i, text in enumerate(texts)]
    try:
        train, held_out = split_held_out(items, fraction)
    except DataError:
        return
    assert train
    assert held_out
    assert find_shared_prompts(train, held_out) == []
    assert len(train) + len(held_out) == len(items)


def test_records_that_are_added_move_no_earlier_one() -> None:
    items = [prompt(f"Question {i}?") for i in range(COUNT)]
    early = set(items[: COUNT // 2])
    _, before = split_held_out(items[: COUNT // 2], FRACTION)
    _, after = split_held_out(items, FRACTION)
    assert before == [item for item in after if item in early]


def test_records_of_all_kinds_go_by_the_messages_before_the_last_answer() -> None:
    asked = (Message("system", "Be brief."), Message("user", "Hi"))
    conversations = [Conversation(str(i), "mine", (*asked, Message("assistant", str(i)))) for i in range(5)]
    preferences = [Preference(str(i), "mine", asked, "a", str(i)) for i in range(5)]
    assert find_shared_prompts(conversations, preferences) == ["Be brief.\nHi"]
    with pytest.raises(DataError):
        split_held_out(conversations, 0.5)


def test_at_least_the_minimum_is_held_out() -> None:
    items = [prompt(f"Question {i}?") for i in range(20)]
    assert len(split_held_out(items, 1e-9)[1]) == 1
    assert len(split_held_out(items, 1e-9, minimum=5)[1]) == 5


def test_nothing_is_held_out_of_nothing_or_with_a_share_of_zero() -> None:
    assert split_held_out([prompt("Hi")], 0) == ([prompt("Hi")], [])
    empty: list[Prompt] = []
    assert split_held_out(empty, 0.5) == ([], [])


def test_holding_out_everything_is_refused() -> None:
    with pytest.raises(DataError) as caught:
        split_held_out([prompt("Hi"), prompt("hi!", "y")], 0.1)
    assert str(caught.value) == (
        "2 records with 1 different prompts: nothing would be left to train on with a share of 0.1 and at least 1 "
        "held out. Add records, or hold out fewer."
    )


def test_shared_prompts_are_found_but_for_case_white_space_and_punctuation() -> None:
    train, held_out = (
        [prompt("What IS  a\ncat?")],
        [prompt("what is a cat"), prompt("what is a dog"), prompt("What is a cat!")],
    )
    assert find_shared_prompts(train, held_out) == ["what is a cat", "What is a cat!"]


def test_prompts_of_signs_alone_differ() -> None:
    assert normalize(prompt("?!").messages) != normalize(prompt("+").messages)
