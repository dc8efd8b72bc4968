import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from llmtrain.config.instructions import InstructionsConfig
from llmtrain.config.records import RecordsConfig


def test_defaults_are_those_of_the_page() -> None:
    records = RecordsConfig.model_validate_json('{"paths": ["a.jsonl"]}', strict=True)
    assert (records.format, records.bad_rows, records.licence) == (None, "refuse", "unknown")
    made = InstructionsConfig.model_validate_json("{}", strict=True)
    assert made.kinds == ("definition", "section", "docstring", "explain", "manual")


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (RecordsConfig, {}),
        (RecordsConfig, {"paths": []}),
        (RecordsConfig, {"paths": "a.jsonl"}),
        (RecordsConfig, {"paths": ["a.jsonl"], "format": "openai"}),
        (RecordsConfig, {"paths": ["a.jsonl"], "bad_rows": "ignore"}),
        (InstructionsConfig, {"kinds": []}),
        (InstructionsConfig, {"kinds": ["poem"]}),
        (InstructionsConfig, {"max_response_characters": 0}),
    ],
)
def test_what_means_nothing_is_refused(section: type[BaseModel], values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        section.model_validate_json(json.dumps(values), strict=True)
