from typing import Any

from data_pipelines.instructions.draft import Draft, Sample
from llmtrain.config.instructions import InstructionsConfig

DRAFTS = [Draft(f"Question {i}?", f"Answer {i}.", str(i)) for i in range(500)]


def take(drafts: list[Draft], seed: int = 0, **limits: Any) -> tuple[list[Draft], dict[str, int]]:
    sample = Sample(InstructionsConfig(**limits), seed)
    for draft in drafts:
        sample.add(draft)
    taken = sample.take()
    assert sample.seen == len(taken) + sum(sample.left_out.values())
    return taken, dict(sample.left_out)


def test_all_stay_where_there_is_room() -> None:
    assert take(DRAFTS) == (DRAFTS, {})


def test_a_sample_does_not_depend_on_the_order_and_keeps_it() -> None:
    taken, left_out = take(DRAFTS, max_records_per_kind=20)
    assert left_out == {"over_limit": 480}
    assert taken == sorted(taken, key=DRAFTS.index)
    assert set(take(DRAFTS[::-1], max_records_per_kind=20)[0]) == set(taken)
    assert set(take(DRAFTS, seed=1, max_records_per_kind=20)[0]) != set(taken)


def test_what_is_too_long_or_repeats_is_counted() -> None:
    drafts = [
        Draft("Q1", "A1", ""),
        Draft("Q2", "A1", ""),
        Draft("Q1", "A2", ""),
        Draft("Q" * 9, "A", ""),
        Draft("Q", "A" * 9, ""),
    ]
    taken, left_out = take(drafts, max_prompt_characters=8, max_response_characters=8)
    assert taken == drafts[:1]
    assert left_out == {"answer_too_long": 1, "duplicate_answer": 1, "duplicate_prompt": 1, "prompt_too_long": 1}
