from importlib.metadata import version
from pathlib import Path

import pytest

from data_pipelines.provenance import MAX_LISTED_INPUTS, describe_inputs, describe_versions
from data_pipelines.sources.unit import Unit, look_at


def make_units(folder: Path, count: int) -> list[Unit]:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.html").write_text("x" * number)
    files = tuple(str(folder / f"{number}.html") for number in range(count))
    return [Unit("html", str(folder), files, "CC0-1.0", listed=tuple(look_at(Path(file)) for file in files))]


def test_a_copy_of_the_inputs_is_the_same_input(tmp_path: Path) -> None:
    first, copy = describe_inputs(make_units(tmp_path / "a", 3)), describe_inputs(make_units(tmp_path / "b", 3))
    assert first == copy
    assert (first["count"], first["bytes"]) == (3, 3)
    assert first["files"][2] == {"path": "2.html", "bytes": 2}
    assert describe_inputs(make_units(tmp_path / "c", 4))["list_sha256"] != first["list_sha256"]


def test_many_inputs_are_a_count_and_a_digest(tmp_path: Path) -> None:
    told = describe_inputs(make_units(tmp_path / "a", MAX_LISTED_INPUTS + 1))
    assert told["count"] == MAX_LISTED_INPUTS + 1
    assert "files" not in told


def test_a_dataset_of_the_hub_is_named(tmp_path: Path) -> None:
    told = describe_inputs([Unit("documents", "", ("hub:some/set",), "MIT")])
    assert told["files"] == [{"path": "hub:some/set"}]


@pytest.mark.parametrize(
    ("kind", "library"), [("web", "lxml"), ("wikipedia", "mwparserfromhell"), ("documents", "datasets")]
)
def test_versions_of_what_changes_the_text_are_told(kind: str, library: str) -> None:
    versions = describe_versions(kind)
    assert versions[library] == version(library)
    assert versions["sentencepiece"] == version("sentencepiece")
    assert "unicode" in versions
    assert library not in describe_versions("code")
