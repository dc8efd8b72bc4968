"""`data.folder/documents`: the documents of each source, and whether they are still what was written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_pipelines.document import Document, hash_file, read_documents
from data_pipelines.stages import Stages
from llmtrain.errors import DataError


class DocumentsFolder:
    """Files of documents, compared with the size and the sha256 that their stages told before they are read."""

    def __init__(self, folder: Path, stages: Stages, *, checks_bytes: bool) -> None:
        """Begin.

        Args:
            folder: `data.folder`.
            stages: of this folder.
            checks_bytes: whether `find_damage` looks at every byte; `read` always does.
        """
        self._folder, self._stages, self._checks_bytes = folder / "documents", stages, checks_bytes
        self._checked: set[str] = set()

    def path(self, name: str) -> Path:
        """The file of a source."""
        return self._folder / f"{name}.jsonl.zst"

    def describe(self, name: str) -> dict[str, Any]:
        """Size and sha256 of a file that was just written, for the result of its stage."""
        path = self.path(name)
        digest = hash_file(path)
        self._checked.add(name)
        return {"documents_bytes": path.stat().st_size, "documents_sha256": digest}

    def find_damage(self, name: str) -> str | None:
        """What is wrong with the file of a finished stage; None if nothing is."""
        path, told = self.path(name), self._stages.result(f"documents/{name}")
        if not path.exists():
            return f"{path} is missing"
        if path.stat().st_size != told["documents_bytes"]:
            return f"{path} has {path.stat().st_size:,} bytes, {told['documents_bytes']:,} were written"
        return self._compare(name) if self._checks_bytes else None

    def read(self, name: str) -> Iterator[Document]:
        """Documents of a source, after a look at all bytes of their file.

        Raises:
            DataError: it is not what was written.
        """
        damage = self._compare(name)
        if damage is not None:
            raise DataError(
                f"{damage}: damaged. Remove the file and run `llmtrain data prepare` again: it is made anew."
            )
        return read_documents(self.path(name))

    def read_texts(self, name: str) -> Iterator[str]:
        """Texts of the documents of a source; raises as `read`."""
        return (document.text for document in self.read(name))

    def _compare(self, name: str) -> str | None:
        if name in self._checked:
            return None
        expected, found = self._stages.result(f"documents/{name}")["documents_sha256"], hash_file(self.path(name))
        if found != expected:
            return f"{self.path(name)}: sha256 is {found}, stages.json says {expected}"
        self._checked.add(name)
        return None
