import logging
import os
from pathlib import Path

import pytest

from data_pipelines.account import Account
from data_pipelines.sources.unit import (
    Unit,
    expand_path,
    expand_paths,
    find_files,
    group_files,
    list_files,
    look_at,
    read_file,
)
from llmtrain.errors import DataError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """a/one.txt, a/b/two.txt, a/b/two.md and a/.hidden/three.txt."""
    for name in ("a/one.txt", "a/b/two.txt", "a/b/two.md", "a/.hidden/three.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path


def names(paths: list[Path], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_globs_match_like_a_shell_with_two_stars(tree: Path) -> None:
    assert names(expand_path(f"{tree}/**/*.txt"), tree) == ["a/b/two.txt", "a/one.txt"]
    assert names(expand_path(f"{tree}/a/*.txt"), tree) == ["a/one.txt"]
    assert names(expand_path(f"{tree}/**/b/**/*.md"), tree) == ["a/b/two.md"]
    assert names(expand_path(f"{tree}/a/**"), tree) == ["a", "a/b"]
    assert expand_path(f"{tree}/**/*.rst") == []


def test_a_name_that_is_there_is_no_glob(tree: Path) -> None:
    for name in ("b[1].txt", "b1.txt", "c?*.txt", "c12.txt"):
        (tree / name).touch()
    assert names(expand_path(f"{tree}/b[1].txt"), tree) == ["b[1].txt"]
    assert names(expand_path(f"{tree}/b[12].txt"), tree) == ["b1.txt"]
    assert names(expand_path(f"{tree}/c?*.txt"), tree) == ["c?*.txt"]


def test_a_pipe_is_refused_by_name_and_left_out_below_a_folder(tree: Path) -> None:
    os.mkfifo(tree / "pipe.txt")
    with pytest.raises(DataError, match=r"corpus\.sources\.own\.paths: '.*pipe\.txt' is neither a file nor a folder"):
        find_files("own", [str(tree / "pipe.txt")], (".txt",))
    found = find_files("own", [str(tree)], (".txt",))
    assert [Path(file.name).name for file in found] == ["three.txt", "two.txt", "one.txt"]


def test_relative_globs_start_at_the_working_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    assert sorted(map(str, expand_path("**/*.txt"))) == ["a/b/two.txt", "a/one.txt"]
    assert list(map(str, expand_path("a/b"))) == ["a/b"]


def test_links_that_lead_back_up_do_not_multiply_or_hang(tree: Path) -> None:
    for number in range(8):
        (tree / "a" / "b" / f"up{number}").symlink_to(tree / "a")
    (tree / "a" / "itself").symlink_to(tree / "a" / "itself")
    (tree / "a" / "broken").symlink_to(tree / "nowhere")
    assert names(expand_path(f"{tree}/**/*.txt"), tree) == ["a/b/two.txt", "a/one.txt"]
    assert names(list_files([tree], (".txt",)), tree) == ["a/.hidden/three.txt", "a/b/two.txt", "a/one.txt"]
    assert expand_path(str(tree / "a" / "itself")) == []


def test_linked_folders_are_followed_and_their_files_listed_once(tree: Path) -> None:
    (tree / "c").mkdir()
    (tree / "c" / "link").symlink_to(tree / "a" / "b")
    assert names(expand_path(f"{tree}/c/**/*.txt"), tree) == ["c/link/two.txt"]
    assert names(list_files([tree / "c", tree / "a" / "b"], (".txt",)), tree) == ["a/b/two.txt"]


def test_a_given_file_counts_whatever_its_ending(tree: Path) -> None:
    given = [tree / "a" / "b" / "two.md", tree / "a" / "b", tree / "a" / "b" / "two.md"]
    assert names(list_files(given, (".txt",)), tree) == ["a/b/two.md", "a/b/two.txt"]


def test_what_may_not_be_listed_is_left_out_with_a_warning(
    tree: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    list_folder, ask = Path.iterdir, Path.is_file

    def refuse_folder(self: Path) -> object:
        if self.name == "b":
            raise PermissionError(13, "Permission denied", str(self))
        return list_folder(self)

    def refuse_file(self: Path) -> bool:
        if self.name == "three.txt":
            raise PermissionError(13, "Permission denied", str(self))
        return ask(self)

    monkeypatch.setattr(Path, "iterdir", refuse_folder)
    monkeypatch.setattr(Path, "is_file", refuse_file)
    with caplog.at_level(logging.WARNING):
        assert names(list_files([tree], (".txt",)), tree) == ["a/one.txt"]
    assert sorted(record.getMessage() for record in caplog.records) == [
        f"left out: [Errno 13] Permission denied: '{tree}/a/.hidden/three.txt'",
        f"left out: [Errno 13] Permission denied: '{tree}/a/b'",
    ]


def test_an_unreadable_file_is_counted(tree: Path) -> None:
    account = Account()
    assert read_file(tree / "a" / "one.txt", account) == b"a/one.txt"
    assert read_file(tree / "a", account) is None
    assert read_file(tree / "gone.txt", account) is None
    assert account.dropped == {"unreadable": 2}


def test_a_path_that_matches_nothing_is_refused_by_name(tree: Path) -> None:
    for path in (f"{tree}/none.txt", f"{tree}/*.rst", "package:yaml/none.txt"):
        with pytest.raises(DataError) as raised:
            expand_paths("web", [str(tree / "a"), path])
        assert str(raised.value) == (
            f"corpus.sources.web.paths: '{path}' matches no file. Correct the path, or leave it out."
        )


@pytest.mark.parametrize("package", ["not_installed_here", "not_installed_here.inner", "sys"])
def test_a_package_that_is_not_installed_says_how_to_install_it(package: str) -> None:
    with pytest.raises(DataError) as raised:
        expand_paths("wikipedia", [f"package:{package}/dump.xml"])
    assert f"corpus.sources.wikipedia.paths: 'package:{package}/dump.xml': the Python package '{package}'" in str(
        raised.value
    )
    assert f"pip install {package}" in str(raised.value)
    assert expand_path(f"package:{package}/dump.xml") == []


def test_packages_and_the_standard_library_are_found() -> None:
    assert expand_path("package:yaml/__init__.py")[0].name == "__init__.py"
    assert (expand_path("stdlib:")[0] / "argparse.py").is_file()


def test_units_are_bounded_and_keep_the_order(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.txt" for number in range(7)]
    for number, file in enumerate(files):
        file.write_bytes(b"x" * (10 * number))
    units = group_files("html", "", files, "MIT", max_bytes=60, max_files=3)
    assert [[Path(name).stem for name in unit.files] for unit in units] == [["0", "1", "2"], ["3"], ["4"], ["5"], ["6"]]
    assert group_files("html", "", [], "MIT") == []


def test_a_unit_knows_when_its_files_changed(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("one")
    unit = Unit("documents", "", (str(file), "hub:name"), "MIT", listed=(look_at(file),))
    before = unit.describe_inputs()
    assert [(name, size) for name, size, _ in before] == [(str(file), 3)]
    unit.refuse_changed()
    for change in (lambda: file.write_text("other"), lambda: os.utime(file, ns=(1, 1)), file.unlink):
        listed = Unit("documents", "", (str(file),), "MIT", listed=(look_at(file),))
        change()
        assert listed.describe_inputs() == [(str(file), listed.listed[0].size, listed.listed[0].version)]
        with pytest.raises(DataError, match=r"a\.txt: changed while it was read\. Let nothing write to it, then run"):
            listed.refuse_changed()
