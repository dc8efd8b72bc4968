import subprocess
import zipfile
from pathlib import Path

import pytest

from data_pipelines.sources.packages import fetch_package, is_package_path, name_origin
from llmtrain.errors import DataError

CONTROL = (
    "Package: manual\nVersion: 1.0\nArchitecture: all\nMaintainer: Nobody <nobody@example.org>\nDescription: text\n"
)
METADATA = "Metadata-Version: 2.1\nName: manual\nVersion: 1.0\n"
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def put_on_path(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A client named apt-get that does what a script says."""
    folder.mkdir()
    client = folder / "apt-get"
    client.write_text(f"#!/bin/sh\n{script}\n")
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.fixture
def deb(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "DEBIAN" / "control").write_text(CONTROL)
    (tree / "usr/share/doc/manual").mkdir(parents=True)
    (tree / "usr/share/doc/manual/index.html").write_text("<p>text</p>")
    subprocess.run(["dpkg-deb", "--build", tree, tmp_path / "manual_1.0_all.deb"], check=True, capture_output=True)
    return tmp_path / "manual_1.0_all.deb"


def test_a_debian_package_is_fetched_once(deb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_on_path(tmp_path / "bin", monkeypatch, f'echo "$@" >> {tmp_path}/calls\ncp {deb} .')
    for _ in range(2):
        found = fetch_package("deb:manual/usr/share/doc/manual", tmp_path / "downloads")
        assert (found / "index.html").read_text() == "<p>text</p>"
    assert (tmp_path / "calls").read_text() == "download --quiet manual\n"
    assert [path.name for path in (tmp_path / "downloads/packages").iterdir()] == ["deb-manual"]
    assert not list((tmp_path / "downloads/packages/deb-manual").glob("*.deb"))


def test_a_package_that_another_task_fetched_meanwhile_is_kept(
    deb: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tmp_path / "downloads/packages/deb-manual"
    put_on_path(tmp_path / "bin", monkeypatch, f"cp {deb} .")
    rename = Path.rename

    def rename_late(staging: Path, folder: Path) -> Path:
        first.mkdir()
        (first / "told").write_text("first\n")
        return rename(staging, folder)

    monkeypatch.setattr(Path, "rename", rename_late)
    assert fetch_package("deb:manual/told", tmp_path / "downloads").read_text() == "first\n"
    assert [path.name for path in first.parent.iterdir()] == ["deb-manual"]


def test_a_wheel_is_fetched_and_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / "manual-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("manual/text.xml", "<text/>")
        wheel.writestr("manual-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("manual-1.0.dist-info/WHEEL", WHEEL)
        wheel.writestr("manual-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    found = fetch_package("pypi:manual==1.0/manual/*.xml", tmp_path / "downloads")
    assert found.name == "*.xml"
    assert [path.read_text() for path in found.parent.iterdir()] == ["<text/>"]


def test_a_package_that_cannot_be_fetched_says_what_its_client_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_path(tmp_path / "bin", monkeypatch, "echo 'E: Unable to locate package manual' >&2; touch half; exit 100")
    with pytest.raises(DataError) as caught:
        fetch_package("deb:manual/usr", tmp_path / "downloads")
    assert str(caught.value) == (
        "deb:manual: could not be fetched: E: Unable to locate package manual Run `apt-get update`, or install apt, or "
        "leave it out of paths."
    )
    assert list((tmp_path / "downloads/packages").iterdir()) == []


def test_a_missing_client_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        DataError, match=r"deb:manual: apt-get could not be run: .* Run `apt-get update`, or install apt"
    ):
        fetch_package("deb:manual/usr", tmp_path / "downloads")


def test_only_registries_are_packages() -> None:
    assert is_package_path("deb:manual/usr")
    assert is_package_path("pypi:gensim/gensim")
    assert not any(map(is_package_path, ("package:gensim/x", "stdlib:", "debs/x", "https://deb/x")))


def test_an_origin_inside_a_package_is_named_as_in_paths(tmp_path: Path) -> None:
    inside = tmp_path / "data" / "downloads" / "packages" / "deb-manual" / "usr/a.html"
    assert name_origin(str(inside)) == "deb:manual/usr/a.html"
    assert name_origin("https://example.org/downloads/x") == "https://example.org/downloads/x"
