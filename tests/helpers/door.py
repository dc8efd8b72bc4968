"""The command line in this process, for commands that need no ranks."""

import sys
from typing import Any

import pytest

from llmtrain import __main__ as door
from llmtrain.process import logs


def call_door(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[Any, str]:
    """Exit code of `llmtrain ARGUMENTS` and everything printed."""
    monkeypatch.setattr(sys, "argv", ["llmtrain", *arguments])
    # It would bind the process's logging to a stream that is closed when the test is over.
    for module in (door, logs):
        monkeypatch.setattr(module, "configure_logging", lambda world: None)
    with pytest.raises(SystemExit) as caught:
        door.main()
    printed = capsys.readouterr()
    return caught.value.code, printed.out + printed.err
