import json
import math
from pathlib import Path
from typing import Any

import pytest

from llmtrain.tracking.planned import (
    Compared,
    keep_measured,
    list_plan_metrics,
    read_plan,
    render_plan,
    write_plan,
    write_rank_plans,
)

RECORD: dict[str, Any] = {
    "step": 20,
    "cluster": "two CPU cores",
    "step_seconds": Compared(0.9, 1.0).to_dict(),
    "peak_memory_gib": Compared(1.5, None).to_dict(),
    "checkpoint_gib": Compared(0.02, 0.02).to_dict(),
    "sent_gib": Compared(None, 0.0).to_dict(),
}


@pytest.mark.parametrize(
    ("planned", "measured", "error"), [(0.9, 1.0, -0.1), (None, 1.0, None), (1.0, None, None), (1.0, 0.0, None)]
)
def test_the_error_is_planned_over_measured_where_both_are_known(
    planned: float | None, measured: float | None, error: float | None
) -> None:
    found = Compared(planned, measured).error
    assert found == (None if error is None else pytest.approx(error))


def test_a_record_is_read_as_it_was_written_and_none_is_empty(tmp_path: Path) -> None:
    assert read_plan(tmp_path) == {}
    write_plan(tmp_path, RECORD)
    assert read_plan(tmp_path) == RECORD


def test_what_json_has_no_word_for_is_left_open() -> None:
    assert Compared(math.inf, 1.0).to_dict() == {"planned": None, "measured": 1.0, "error": None}


def test_every_rank_has_a_line(tmp_path: Path) -> None:
    rows = [{"rank": 0, "sent_gib": 0.5}, {"rank": 1, "sent_gib": 0.25}]
    write_rank_plans(tmp_path, rows)
    text = (tmp_path / "plan_ranks.json").read_text()
    assert json.loads(text) == rows
    assert len(text.splitlines()) == 4


def test_a_short_attempt_keeps_what_the_one_before_measured_of_the_same_plan() -> None:
    earlier = RECORD | {"peak_memory_gib": Compared(1.5, 1.4).to_dict(), "step_seconds": Compared(0.9, 7.0).to_dict()}
    kept = keep_measured(RECORD, earlier)
    assert kept["peak_memory_gib"]["measured"] == 1.4
    assert kept["step_seconds"] == RECORD["step_seconds"]
    other = keep_measured(RECORD, earlier | {"peak_memory_gib": Compared(3.0, 2.9).to_dict()})
    assert other["peak_memory_gib"]["measured"] is None
    assert keep_measured(RECORD, {}) == RECORD


def test_metrics_are_the_known_numbers() -> None:
    assert list_plan_metrics(RECORD) == {
        "plan/step_seconds_planned": 0.9,
        "plan/step_seconds_measured": 1.0,
        "plan/step_seconds_error": pytest.approx(-0.1),
        "plan/peak_memory_gib_planned": 1.5,
        "plan/checkpoint_gib_planned": 0.02,
        "plan/checkpoint_gib_measured": 0.02,
        "plan/checkpoint_gib_error": 0.0,
        "plan/sent_gib_measured": 0.0,
    }


def test_the_table_shows_what_was_measured() -> None:
    assert render_plan(RECORD) == [
        "| planned for two CPU cores, and measured | planned | measured | error |",
        "|---|---|---|---|",
        "| time of a step, s | 0.9 | 1 | -10.0% |",
        "| checkpoint, GiB | 0.02 | 0.02 | +0.0% |",
        "| sent by a rank in a step, GiB | not known | 0 |  |",
    ]
    assert render_plan(RECORD | {"cluster": None})[0].startswith("| planned, and measured |")
