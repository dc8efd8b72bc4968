from pathlib import Path

import pytest

from llmtrain.checkpoint.snapshot import TrainingState
from tests.checkpoint.worlds import CASES, PROGRESS, SAVED_BY_ONE, Facts, case_name

Worlds = tuple[Path, Facts, list[Facts]]

# Another layout sums the same float32 gradients in another order; measured differences are below 2e-7.
RELATIVE_LOSS_TOLERANCE = 1e-6


@pytest.mark.parametrize("case", [case_name(*case) for case in CASES])
def test_resumed_run_equals_the_uninterrupted_one_bit_for_bit(case: str, worlds: Worlds) -> None:
    for facts in worlds[2]:
        assert facts[case]["resumed losses"] == facts[case]["losses"]
        assert facts[case]["final states equal"]
        assert facts[case]["final parameters equal"]


@pytest.mark.parametrize("case", [case_name(*case) for case in CASES])
def test_loading_restores_states_parameters_and_counters(case: str, worlds: Worlds) -> None:
    for facts in worlds[2]:
        assert facts[case]["state"] == TrainingState(3, 24, 2.5, PROGRESS)
        assert facts[case]["loaded states equal"]
        assert facts[case]["loaded parameters equal"]
        assert facts[case]["counters"] == facts[case]["counters of the saved run"]


def test_two_ranks_load_what_one_saved_at_every_stage(worlds: Worlds) -> None:
    for facts in worlds[2]:
        loaded = facts["loaded"]
        assert loaded.keys() == {(case_name(*case), stage) for case in SAVED_BY_ONE for stage in range(4)}
        assert [key for key, equal in loaded.items() if not equal] == []


def test_one_rank_loads_what_two_saved_at_every_stage(worlds: Worlds) -> None:
    loaded = worlds[1]["loaded"]
    assert loaded.keys() == {(case_name(*case), stage) for case in CASES for stage in range(4)}
    assert [key for key, equal in loaded.items() if not equal] == []


def test_loss_goes_on_after_a_change_of_ranks_and_stage(worlds: Worlds) -> None:
    uninterrupted = worlds[2][0][case_name(2, "fp32")]["mean losses"]
    assert worlds[1]["continued"]["losses"] == pytest.approx(uninterrupted, rel=RELATIVE_LOSS_TOLERANCE)


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        ("other width", ["made with another model", "embedding.weight is (11, 7) there, (11, 8) here"]),
        ("other names", ["made with another model", "it lacks unused and has nothing besides"]),
        ("forged weights", ["the loaded weights have digest", "not the weights that were saved"]),
        ("missing file", ["rank00001.safetensors", "cannot read"]),
    ],
)
def test_what_does_not_fit_is_refused_by_name(attempt: str, words: list[str], worlds: Worlds) -> None:
    for word in words:
        assert word in worlds[1]["refused"][attempt]


@pytest.mark.parametrize("zero_stage", [0, 1, 3])
def test_loading_reads_what_the_rank_holds_and_no_more_than_a_tensor_at_a_time(zero_stage: int, worlds: Worlds) -> None:
    for facts in worlds[2]:
        reads = facts["reads"][zero_stage]
        assert reads["read"] == reads["held"] > 0
        assert reads["held"] == reads["all"] if zero_stage == 0 else reads["held"] < 0.6 * reads["all"]
        assert reads["largest read"] <= reads["largest tensor"]
        assert reads["reads that overlap"] == 0
