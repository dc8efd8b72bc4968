"""The sample rows of docs/conversations.md are read as the format they stand under."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import get_args

from llmtrain.config.records import RecordFormat
from llmtrain.conversations.formats import parse_prompts, tell_format
from llmtrain.conversations.row import Row


def test_the_page_shows_a_row_of_every_format() -> None:
    page = Path("docs/conversations.md").read_text()
    samples = re.findall(r"^### (\w+)\n.*?^```json\n(.+?)\n```", page, re.MULTILINE | re.DOTALL)
    assert [name for name, _ in samples] == list(get_args(RecordFormat))
    for name, line in samples:
        row = Row("page", 1, json.loads(line))
        assert tell_format(row) == name
        assert next(parse_prompts(row, name, "page", Counter())).reference == "4."
