import errno
import json
from pathlib import Path
from typing import Any

import pytest

from data_pipelines import report
from data_pipelines.report import draw_report, write_report
from llmtrain.errors import DataError

RESULT: dict[str, Any] = {
    "licences": ["MIT", "PSF-2.0"],
    "units": 3,
    "input_bytes": 2_500_000,
    "documents": 1200,
    "characters": 30_000,
    "train_tokens": 9000,
    "validation_tokens": 1000,
    "seconds": 1.25,
    "dropped": {"too_short": 2, "binary": 7},
    "changed": {"mend": 3},
    "noted": {"decontaminate: contaminated": 1},
    "samples": {"too_short": ["a.py: 'x = 1\\n'"], "mend": ["b.py: 'a ' -> 'a\\n'"]},
}


@pytest.fixture(autouse=True)
def without_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page needs shards; tests/data_pipelines/test_report_page.py draws it."""
    monkeypatch.setattr(report, "render_page", lambda name, sources, folder: f"{name}: {list(sources)}")


def test_the_page_shows_a_row_for_each_source_and_why_documents_were_dropped(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    path = write_report(
        folder, {"code": RESULT, "web": RESULT | {"dropped": {}, "changed": {}, "noted": {}, "samples": {}}}
    )
    assert path == folder / "report.html"
    assert path.read_text() == "small: ['code', 'web']"
    lines = (folder / "report.md").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "# Data of small"
    assert lines[4] == "| code | MIT, PSF-2.0 | 3 | 2.5 | 1,200 | 30,000 | 9,000 | 1,000 | 3.00 | 1.2 |"
    assert lines[5].startswith("| web |")
    assert lines[6:] == [
        "",
        "## code: dropped",
        "",
        "* binary: 7",
        "* too_short: 2",
        "  * `a.py: 'x = 1\\n'`",
        "",
        "## code: changed",
        "",
        "* mend: 3",
        "  * `b.py: 'a ' -> 'a\\n'`",
        "",
        "## code: noted",
        "",
        "* decontaminate: contaminated: 1",
        "",
        "## web: dropped",
        "",
        "Nothing.",
        "",
        "## web: changed",
        "",
        "Nothing.",
        "",
        "## web: noted",
        "",
        "Nothing.",
    ]


def test_the_json_holds_everything_told(tmp_path: Path) -> None:
    write_report(tmp_path, {"code": RESULT})
    assert json.loads((tmp_path / "report.json").read_text()) == {"code": RESULT | {"characters_per_token": 3.0}}


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        write_report(tmp_path / "missing", {"code": RESULT})


@pytest.mark.parametrize("content", ['{"a": 1}', "[1]", '{"a": {"licences": []}}', '{"a": null}', "3"])
def test_numbers_of_something_else_are_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(content)
    with pytest.raises(DataError, match=r"report\.json: not what `llmtrain data prepare` writes: \w+Error: .*Run it"):
        draw_report(tmp_path)
    assert not (tmp_path / "report.md").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_report(tmp_path, {"code": RESULT})

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(report, "write_atomically", refuse)
    with pytest.raises(DataError, match=r": cannot be written: .*Read-only file system\. Free some space, or copy the"):
        draw_report(tmp_path)


@pytest.mark.parametrize("content", [None, "{"])
def test_a_page_without_its_numbers_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(DataError, match=r"report\.json: cannot be read: .* Run `llmtrain data prepare` again"):
        draw_report(tmp_path)
