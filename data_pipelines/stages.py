"""Which stages of a data folder are finished, and with what: `stages.json`.

A stage is named, has a fingerprint of everything its result depends on, and keeps what it wants to tell. It is finished
when its fingerprint stands in the file: taken out before its output changes, written when all of it is there. So a
killed run leaves it unfinished.
"""

import json
from pathlib import Path
from typing import Any

from llmtrain.errors import DataError
from llmtrain.shards.manifest import write_atomically


class Stages:
    """The finished stages of one data folder."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "stages.json"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            self._finished: dict[str, dict[str, Any]] = (
                json.loads(self._path.read_text(encoding="utf-8")) if self._path.exists() else {}
            )
            if not all("fingerprint" in stage and "result" in stage for stage in self._finished.values()):
                raise ValueError("a stage lacks its fingerprint or its result")
        except (OSError, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"{self._path}: damaged: {error}. Remove it: stages are done again.") from error

    def is_finished(self, name: str, fingerprint: str) -> bool:
        """Whether a stage was finished with these inputs."""
        return self._finished.get(name, {}).get("fingerprint") == fingerprint

    def result(self, name: str) -> Any:
        """What a finished stage told."""
        return self._finished[name]["result"]

    def start(self, name: str) -> None:
        """Note that the output of a stage is about to change."""
        if self._finished.pop(name, None) is not None:
            self._write()

    def finish(self, name: str, fingerprint: str, result: Any) -> None:
        """Note a stage as finished."""
        self._finished[name] = {"fingerprint": fingerprint, "result": result}
        self._write()

    def _write(self) -> None:
        content = json.dumps(self._finished, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self._path, content.encode())
