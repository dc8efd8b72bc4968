import io
import json
import tracemalloc
from typing import Any

import pytest

from data_pipelines.sources import json_array
from data_pipelines.sources.json_array import read_array

RECORDS: list[dict[str, Any]] = [
    {"text": f'{number} "quoted" [x] {{y}} \\ é \U0001f600 \ud800', "more": [{"a": [number]}, None, 1.5]}
    for number in range(40)
]


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("indent", [None, 3])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_elements_are_those_of_the_whole(
    size: int, indent: int | None, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(RECORDS, indent=indent, ensure_ascii=False) + " \n"
    content = text.encode(encoding, "surrogatepass")
    monkeypatch.setattr(json_array, "_READ_BYTES", max(size, 4))
    assert list(read_array(io.BytesIO(content))) == RECORDS
    assert list(read_array(io.BytesIO(" [ ] ".encode(encoding)))) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('[{"a": 1} {"a": 2}]', "Expecting ',' or ']', not '{'"),
        ('[{"a": 1}, ]', "Expecting value"),
        ('[{"a": 1}, {"a"', "Expecting ':' delimiter"),
        ('[{"a": 1}', "Expecting ',' or ']', not ''"),
        ('[{"a": 1}] [', r"extra data after its end: '\['"),
        ('{"a": 1}', r"Expecting '\[', not '{'"),
    ],
)
def test_what_is_no_array_is_refused(content: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        list(read_array(io.BytesIO(content.encode())))


def test_an_element_beyond_reason_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "MAX_RECORD_BYTES", 1000)
    monkeypatch.setattr(json_array, "_READ_BYTES", 100)
    content = json.dumps([{"text": "x"}, {"text": "y" * 5000}]).encode()
    with pytest.raises(ValueError, match="element 1 is longer than 1,000 characters, or no JSON"):
        list(read_array(io.BytesIO(content)))


def test_memory_does_not_grow_with_the_array() -> None:
    content = b"[" + b'{"a":[]},' * 200_000 + b"{}]"  # as a whole 60 MB of objects
    tracemalloc.start()
    count = sum(isinstance(record, dict) for record in read_array(io.BytesIO(content)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 200_001
    assert peak < 5_000_000
