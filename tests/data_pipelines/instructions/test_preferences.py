from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from data_pipelines.instructions.draft import Draft
from data_pipelines.instructions.preferences import CORRUPTIONS, describe_balance, make_preferences

ANSWERS = st.text(st.sampled_from("ab c.\n"), min_size=1, max_size=60).filter(str.strip)
BALANCE = (0.45, 0.55)


def sample(count: int) -> list[Draft]:
    """Answers of 4 to 22 different words."""
    return [
        Draft(f"Question {i}?", " ".join(f"word{i * 7 + j}" for j in range(4 + i * 5 % 19)) + ".", str(i % 9))
        for i in range(count)
    ]


def test_ways_go_by_turns_and_length_tells_nothing() -> None:
    made, left_out = make_preferences("definition", sample(400), seed=0)
    assert not left_out
    balance = describe_balance(made)
    assert balance["corruptions"] == dict.fromkeys(sorted(CORRUPTIONS), 100)
    assert BALANCE[0] <= balance["chosen_longer_fraction"] <= BALANCE[1]
    assert balance["equal_length_fraction"] == 0


def test_each_way_does_what_its_name_says() -> None:
    drafts = sample(80)
    answers = {draft.answer: draft for draft in drafts}
    made, _ = make_preferences("definition", drafts, seed=0)
    for draft, pair in zip(drafts, made, strict=True):
        assert (pair.prompt[0].content, pair.chosen, pair.source) == (draft.prompt, draft.answer, "definition")
        words, worse = Counter(pair.chosen.split()), pair.rejected.split()
        match pair.id.rpartition("-")[2]:
            case "off_topic":
                assert answers[pair.rejected].topic != draft.topic
            case "cut":
                assert pair.chosen.startswith(pair.rejected)
                assert not pair.rejected.endswith(".")
            case "shuffled":
                assert set(worse) <= set(words)
                assert abs(len(worse) - words.total()) == 1
            case "repeated":
                assert set(worse) == set(words)
                assert len(worse) >= words.total() + 2
            case other:
                raise AssertionError(other)


@given(st.lists(st.builds(Draft, st.text(max_size=3), ANSWERS, st.sampled_from("xyz")), max_size=12), st.integers(0, 9))
def test_the_worse_answer_always_differs(drafts: list[Draft], seed: int) -> None:
    made, left_out = make_preferences("manual", drafts, seed)
    assert len(made) + sum(left_out.values()) == len(drafts)
    assert all(pair.chosen.strip() != pair.rejected.strip() and pair.rejected.strip() for pair in made)
    assert make_preferences("manual", drafts, seed) == (made, left_out)


def test_code_stays_in_its_lines_when_words_are_shuffled() -> None:
    code = "def f(a):\n    b = a + 1\n    return b"
    made, _ = make_preferences("docstring", [Draft(f"Q{i}", code, "t") for i in range(4)], seed=0)
    shuffled = [pair for pair in made if pair.id.endswith("-shuffled")]
    assert shuffled
    assert all(pair.rejected.count("\n") == 2 for pair in shuffled)


def test_an_answer_of_one_word_without_others_gets_no_worse_one() -> None:
    made, left_out = make_preferences("manual", [Draft("Q", "Yes.", "t")], seed=0)
    assert (made, left_out) == ([], {"no_worse_answer": 1})
