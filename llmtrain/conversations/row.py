"""One row of a file: its values, and the refusal that names file, row and key."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmtrain.errors import DataError

COLUMNS = "columns"
"""Reason of an error that leaving the row out would not mend."""
_SHOWN_CHARACTERS = 60


class RowError(DataError):
    """One row is wrong; `reason` counts it where wrong rows are left out."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Row:
    """A row and where it stands."""

    file: str
    number: int
    """From 1 on; in a file of lines, the number of the line."""
    values: dict[str, Any]

    def refuse(self, key: str, problem: str, remedy: str, reason: str) -> RowError:
        """The error to raise for a key; `problem` begins with the value where there is one: `= 3: not text`."""
        separator = " " if problem.startswith("=") else ": "
        return RowError(f"{self.file}: row {self.number:,}: key '{key}'{separator}{problem}. {remedy}", reason)

    def refuse_columns(self, problem: str, remedy: str) -> RowError:
        """The error to raise where the columns are wrong as a whole; it stops the reading of any file."""
        found = ", ".join(sorted(self.values)) or "none"
        return RowError(f"{self.file}: row {self.number:,}: columns {found}: {problem}. {remedy}", COLUMNS)

    @property
    def identity(self) -> str:
        """The row's own id: column `id`; "" if there is none."""
        own = self.values.get("id")
        return str(own) if isinstance(own, str | int) and not isinstance(own, bool) else ""

    def find(self, key: str) -> Any:
        """The value of a column.

        Raises:
            RowError: there is none.
        """
        if self.values.get(key) is None:
            found = ", ".join(sorted(self.values)) or "none"
            raise self.refuse(key, "missing", f"The row has {found}: add it, or set another format.", "missing")
        return self.values[key]

    def text(self, key: str, *, is_optional: bool = False) -> str:
        """The text of a column, not empty; "" if it is optional and not there.

        Raises:
            RowError: it is missing, of another type, or white space alone.
        """
        if is_optional and self.values.get(key) in (None, ""):
            return ""
        return self.check_text(key, self.find(key))

    def check_text(self, key: str, value: object) -> str:
        """A value that must be text, not white space alone.

        Raises:
            RowError: it is something else.
        """
        if not isinstance(value, str):
            raise self.refuse(key, f"= {show(value)}: {name_type(value)}, not text", "Write a string.", "wrong_type")
        if not value.strip():
            raise self.refuse(key, f"= {show(value)}: empty", "Write its text, or remove the row.", "empty")
        return value

    def check_list(self, key: str, value: object) -> list[Any]:
        """A value that must be a list with something in it.

        Raises:
            RowError: it is something else.
        """
        if not isinstance(value, list):
            problem = f"= {show(value)}: {name_type(value)}, not a list"
            raise self.refuse(key, problem, "Write a list of messages.", "wrong_type")
        if not value:
            raise self.refuse(key, "= []: empty", "Write at least one message, or remove the row.", "empty")
        return value

    def check_object(self, key: str, value: object, needs: Sequence[str]) -> dict[str, Any]:
        """A value that must be an object with some keys.

        Raises:
            RowError: it is something else, or lacks one.
        """
        if not isinstance(value, dict):
            problem, remedy = f"= {show(value)}: {name_type(value)}, not an object", f"Write {' and '.join(needs)}."
            raise self.refuse(key, problem, remedy, "wrong_type")
        for need in needs:
            if value.get(need) is None:
                found = ", ".join(sorted(value)) or "none"
                raise self.refuse(
                    f"{key}.{need}", "missing", f"There is {found}. Write {' and '.join(needs)}.", "missing"
                )
        return value


def show(value: object) -> str:
    """A value as it is shown in a message."""
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def name_type(value: object) -> str:
    """The name of a value's type as JSON calls it."""
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
