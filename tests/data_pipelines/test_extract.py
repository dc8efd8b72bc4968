import errno
import os
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from data_pipelines.account import MAX_SAMPLES, Account
from data_pipelines.document import identify, read_documents
from data_pipelines.extract import extract_unit, fingerprint, fingerprint_unit
from data_pipelines.sources.unit import CodeRules, Unit, look_at
from llmtrain.config.cleaning import BoundsStep
from llmtrain.config.deduplicate import DeduplicateConfig
from llmtrain.errors import DataError

STEPS = [BoundsStep(name="bounds", min_characters=10)]
DEDUPLICATE = DeduplicateConfig()


def write_unit(folder: Path, **files: bytes) -> Unit:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}.py").write_bytes(content)
    names = tuple(str(folder / f"{name}.py") for name in files)
    return Unit("code", str(folder), names, "MIT", listed=tuple(look_at(Path(name)) for name in names))


def test_documents_are_mended_judged_and_accounted_for(tmp_path: Path) -> None:
    short = {f"short{number}": b"x = %d\n" % number for number in range(5)}
    unit = write_unit(tmp_path / "src", good=b"print('a long line')  \r\n", nul=b"\0", **short)
    part = tmp_path / "part.jsonl.zst"
    account = extract_unit(unit, STEPS, part, tmp_path / "columns", DEDUPLICATE)
    (document,) = read_documents(part)
    assert (document.text, document.origin, document.licence) == ("print('a long line')\n", "src/good.py", "MIT")
    assert document.id == identify(document.text)
    assert (account.documents, account.characters) == (1, len(document.text))
    assert account.dropped == {"too_short": 5, "binary": 1}
    assert account.samples == {
        "too_short": [f"src/short{number}.py: 'x = {number}\\n'" for number in range(MAX_SAMPLES)],
        "binary": ["src/nul.py"],
        "mend": ["src/good.py: \"print('a long line')  \\r\\n\" -> \"print('a long line')\\n\""],
    }
    assert account.changed == {"mend": 1}
    assert account.seconds > 0


def test_what_readers_leave_out_is_named(tmp_path: Path) -> None:
    names = [os.fsdecode(b"caf\xe9.py"), "minified.py", "package_pb2.py"]
    for name, content in zip(names, [b"a\0b", b"x" * 500, b"a = 1"], strict=True):
        (tmp_path / name).write_bytes(content)
    files = tuple(str(tmp_path / name) for name in names)
    unit = Unit("code", str(tmp_path), files, "MIT")
    part = tmp_path / "part.jsonl.zst"
    account = extract_unit(unit, STEPS, part, tmp_path / "columns", DEDUPLICATE)
    assert account.samples == {
        "binary": [f"{tmp_path.name}/caf\\udce9.py"],
        "minified": [f"{tmp_path.name}/minified.py"],
        "generated": [f"{tmp_path.name}/package_pb2.py"],
    }


def test_a_text_that_lacks_its_last_line_end_only_is_not_mended(tmp_path: Path) -> None:
    unit = write_unit(tmp_path / "src", one=b"print('a long line')", two=b"print('another line')\n\n")
    account = extract_unit(unit, STEPS, tmp_path / "part.jsonl.zst", tmp_path / "columns", DEDUPLICATE)
    assert (account.documents, account.changed) == (2, {})


def test_a_finished_part_is_not_made_again(tmp_path: Path) -> None:
    unit = write_unit(tmp_path / "src", a=b"print('a long line')\n")
    part = tmp_path / "part.jsonl.zst"
    first = extract_unit(unit, STEPS, part, tmp_path / "columns", DEDUPLICATE)
    before = part.stat()
    Path(unit.files[0]).unlink()
    assert extract_unit(unit, STEPS, part, tmp_path / "columns", DEDUPLICATE) == first
    assert part.stat() == before


@pytest.mark.parametrize("missing", ["part.jsonl.zst", "part.jsonl.json"])
def test_a_part_without_its_account_or_an_account_without_its_part_is_made_again(tmp_path: Path, missing: str) -> None:
    unit = write_unit(tmp_path / "src", a=b"print('a long line')\n")
    part = tmp_path / "part.jsonl.zst"
    first = extract_unit(unit, STEPS, part, tmp_path / "columns", DEDUPLICATE)
    (tmp_path / missing).unlink()
    again = extract_unit(unit, STEPS, part, tmp_path / "columns", DEDUPLICATE)
    assert (again.documents, again.characters, again.dropped) == (first.documents, first.characters, first.dropped)
    assert (tmp_path / missing).exists()


@pytest.mark.parametrize("records", ["documents", "code_records"])
def test_a_licence_that_is_no_utf_8_is_written_readably(tmp_path: Path, records: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(r'{"text": "print(1) # long enough\n", "path": "a.py", "licenses": ["MIT \ud800"]}')
    unit = Unit(records, "", (str(path),), "", "text", licence_field="licenses", rules=CodeRules((".py",)))
    part = tmp_path / "part.jsonl.zst"
    account = extract_unit(unit, STEPS, part, tmp_path / "columns", DEDUPLICATE)
    assert [document.licence for document in read_documents(part)] == ["MIT \\ud800"]
    assert account.licences == {"MIT \\ud800": 1}


def test_a_file_name_that_is_no_utf_8_is_written_readably(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.py")
    (tmp_path / name).write_bytes(b"print('a long line')\n")
    (tmp_path / os.fsdecode(b"\xff.py")).write_bytes(b"short\n")
    files = (str(tmp_path / name), str(tmp_path / os.fsdecode(b"\xff.py")))
    part = tmp_path / "part.jsonl.zst"
    account = extract_unit(Unit("code", str(tmp_path), files, "MIT"), STEPS, part, tmp_path / "columns", DEDUPLICATE)
    assert [document.origin for document in read_documents(part)] == [f"{tmp_path.name}/caf\\udce9.py"]
    assert account.samples == {"too_short": [f"{tmp_path.name}/\\udcff.py: 'short\\n'"]}


def test_an_archive_is_extracted_under_the_licences_of_its_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.py", "print('a long line')\n")
        archive.writestr("b.py", "# SPDX-License-Identifier: MIT\nprint('a long line')\n")
        archive.writestr("c/LICENSE", "Apache License, Version 2.0")
        archive.writestr("c/c.py", "print('another long line')\n")
        archive.writestr("c/short.py", "short\n")
        archive.writestr("vendor/d.py", "print('a line of others')\n")
    rules = CodeRules(extensions=(".py",))
    account = Account()
    for number in range(2):
        unit = Unit("code_archive", "", (str(tmp_path / "a.zip"),), "unknown", rules=rules, share=(number, 2))
        account.add(extract_unit(unit, STEPS, tmp_path / f"{number}.jsonl.zst", tmp_path / f"{number}", DEDUPLICATE))
    assert account.licences == {"unknown": 1, "MIT": 1, "Apache-2.0": 1}
    assert account.dropped == {"too_short": 1, "vendored": 1}
    assert account.languages == {"python": 3}


def test_a_damaged_input_leaves_no_part(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a long enough text"}\nbroken\n')
    unit = Unit("documents", "", (str(tmp_path / "a.jsonl"),), "MIT", "text", "train")
    with pytest.raises(DataError, match=r"a\.jsonl: line 2 is not a record in JSON"):
        extract_unit(unit, STEPS, tmp_path / "work" / "part.jsonl.zst", tmp_path / "columns", DEDUPLICATE)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_full_disk_leaves_no_part_and_the_next_try_succeeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unit = write_unit(tmp_path / "src", a=b"print('a long line')\n")
    part = tmp_path / "work" / "part.jsonl.zst"

    def fill_disk(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fill_disk)
        with pytest.raises(DataError, match=r"part\.jsonl\.zst: could not be written: .*No space left"):
            extract_unit(unit, STEPS, part, tmp_path / "columns", DEDUPLICATE)
    assert list(part.parent.iterdir()) == []
    assert extract_unit(unit, STEPS, part, tmp_path / "columns", DEDUPLICATE).documents == 1


def test_the_fingerprint_follows_the_input_and_the_rules(tmp_path: Path) -> None:
    unit = write_unit(tmp_path / "src", a=b"print('a long line')\n")
    before = fingerprint_unit(unit, STEPS, DEDUPLICATE)
    assert fingerprint_unit(unit, STEPS, DEDUPLICATE) == before
    assert fingerprint_unit(unit, [BoundsStep(name="bounds", min_characters=11)], DEDUPLICATE) != before
    assert fingerprint_unit(replace(unit, licence="GPL-3.0"), STEPS, DEDUPLICATE) != before
    changed = write_unit(tmp_path / "src", a=b"print('another line')\n")
    assert fingerprint_unit(changed, STEPS, DEDUPLICATE) != before


def test_an_input_that_changed_since_it_was_listed_is_refused_and_makes_no_part(tmp_path: Path) -> None:
    unit = write_unit(tmp_path / "src", a=b"print('a long line')\n", b=b"print('another long line')\n")
    with Path(unit.files[1]).open("ab") as file:
        file.write(b"print('more')\n")
    part = tmp_path / "work" / "part.jsonl.zst"
    with pytest.raises(DataError, match=r"src/b\.py: changed while it was read"):
        extract_unit(unit, STEPS, part, tmp_path / "columns", DEDUPLICATE)
    assert not part.with_suffix(".json").exists()
    (tmp_path / "a.jsonl").write_text('{"text": "a long enough text"}\n')
    listed = look_at(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text('{"text": "a long enough text"}\n{"te')
    unit = Unit("documents", "", (listed.name,), "MIT", "text", listed=(listed,))
    with pytest.raises(DataError, match=r"a\.jsonl: changed while it was read"):
        extract_unit(unit, STEPS, part, tmp_path / "columns", DEDUPLICATE)


def test_equal_values_have_equal_fingerprints_and_others_others() -> None:
    assert fingerprint("a", {"x": 1, "y": [2]}) == fingerprint("a", {"y": [2], "x": 1})
    assert len({fingerprint("a", "b"), fingerprint("ab"), fingerprint(["a", "b"]), fingerprint("b", "a")}) == 4


PARENT = """
import concurrent.futures, multiprocessing, os, time
from data_pipelines.worker_process import end_with_parent

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, context, end_with_parent) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        pool.submit(time.sleep, 600).result()
"""


def test_a_worker_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "parent.py").write_text(PARENT)
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, env=environment
    ) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)  # it lives
        parent.send_signal(signal.SIGKILL)
        # The worker holds the other end of this pipe: it closes when the worker is gone.
        assert parent.stdout.read() == b""
    with pytest.raises(ProcessLookupError):
        wait_until_gone(worker)


def wait_until_gone(process: int) -> None:
    """Ask for a process until it is reaped; pytest's time limit ends this when it never is."""
    while True:
        if Path(f"/proc/{process}/stat").exists() and " Z " in Path(f"/proc/{process}/stat").read_text():
            raise ProcessLookupError
        os.kill(process, 0)
