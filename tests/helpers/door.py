"""The command line in this process, for commands that need no ranks."""

import sys
from typing import Any

import pytest

from llmtrain import __main__ as door


def call_door(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[Any, str]:
    """Exit code of `llmtrain ARGUMENTS` and everything printed."""
    monkeypatch.setattr(sys, "argv", ["llmtrain", *arguments])
    with pytest.raises(SystemExit) as caught:
        door.main()
    printed = capsys.readouterr()
    return caught.value.code, printed.out + printed.err
