import json

from hypothesis import given
from hypothesis import strategies as st

from llmtrain.conversations.records import Conversation, Message, Preference, Prompt, identify

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
MESSAGES = st.lists(st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXTS), max_size=4).map(tuple)


@given(
    st.one_of(
        st.builds(Conversation, TEXTS, TEXTS, MESSAGES),
        st.builds(Preference, TEXTS, TEXTS, MESSAGES, TEXTS, TEXTS),
        st.builds(Prompt, TEXTS, TEXTS, MESSAGES, st.none() | TEXTS),
    )
)
def test_a_record_comes_back_from_its_line(record: Conversation | Preference | Prompt) -> None:
    assert type(record).from_dict(json.loads(json.dumps(record.to_dict()))) == record


@given(MESSAGES, MESSAGES)
def test_ids_are_equal_for_equal_content_alone(first: tuple[Message, ...], second: tuple[Message, ...]) -> None:
    assert (identify(first) == identify(second)) == (first == second)
    assert len(identify(first)) == 16


def test_parts_of_a_record_do_not_run_into_each_other() -> None:
    assert identify("ab", "c") != identify("a", "bc") != identify("a", "b", "c")
    assert identify("a", None) != identify("a", "null")
