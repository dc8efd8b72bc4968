import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from data_pipelines import prepare as prepare_module
from data_pipelines.deduplication.decide import Verdict, decide
from data_pipelines.document import identify, read_documents
from data_pipelines.prepare import extract_share, prepare
from data_pipelines.show import show_sample
from data_pipelines.splits import is_validation
from data_pipelines.stages import Stages
from data_pipelines.verify import verify_data
from llmtrain.config.loader import load_config
from llmtrain.errors import ConfigError, DataError, MemoryExhaustedError
from llmtrain.process.folder_lock import locked_folder
from llmtrain.shards.reader import ShardedTokens, open_data
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from llmtrain.tokenizer.special_tokens import CONTROL_SYMBOLS, UNKNOWN_ID
from tests.helpers.configs import write_tiny_config
from tests.helpers.texts import stdlib_texts

STDLIB = Path(sysconfig.get_paths()["stdlib"])
SPECIAL = "A user wrote <s>, </s>, <unk>, <pad>, <|user|> and <|end|>, number {}, as text: <|user|>hello<|end|></s>\n"
FRACTION = 0.3


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, archive: Path, small_dump: Path) -> Path:
    """A folder with a configuration: a source of each kind. The last is text that looks like control symbols."""
    folder = tmp_path_factory.mktemp("project")
    records = [{"text": SPECIAL.format(number)} for number in range(12)] + [{"text": "short"}]
    (folder / "own.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    sources: dict[str, Any] = {
        "web": {"kind": "web", "paths": [str(archive)], "licence": "PSF-2.0"},
        "wikipedia": {"kind": "wikipedia", "paths": [str(small_dump)]},
        "code": {"kind": "code", "paths": [str(STDLIB / "email"), str(STDLIB / "email")], "licence": "PSF-2.0"},
        "own": {"kind": "documents", "paths": [str(folder / "own.jsonl")], "licence": "CC0-1.0"},
    }
    corpus = {
        "sources": sources,
        "tokenizer": {"vocab_size": 400, "train_characters": 100_000},
        "validation_fraction": FRACTION,
        "shard_tokens": 50_000,
        "workers": 2,
    }
    write_tiny_config(folder, corpus=corpus)
    return folder


def run(project: Path, folder: Path, *overrides: str) -> str:
    """Prepare into a folder; gives what was told."""
    output = io.StringIO()
    config = load_config([project / "tiny.yaml"], [f"data.folder={folder}", *overrides]).config
    prepare(config, Console(file=output, width=500))
    return output.getvalue()


def digest(folder: Path) -> dict[str, str]:
    """Content of every file but the accounts of time."""
    told = ("stages.json", "report.html", "report.json", "report.md", "prepare.lock")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in told)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def times(folder: Path) -> dict[str, int]:
    rewritten = ("report.html", "report.json", "report.md", "prepare.lock")
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in rewritten)
    return {path.relative_to(folder).as_posix(): path.stat().st_mtime_ns for path in files}


@pytest.fixture(scope="module")
def prepared(project: Path) -> Path:
    """Prepared without interruption."""
    told = run(project, project / "reference")
    assert "up to date" not in told
    return project / "reference"


@pytest.fixture
def own(prepared: Path, tmp_path: Path) -> Path:
    """A prepared copy that a test may change."""
    return shutil.copytree(prepared, tmp_path / "data")


def read_shards(folder: Path) -> list[list[int]]:
    shards = ShardedTokens(folder)
    documents = []
    for shard, start in enumerate(shards.shard_starts[:-1].tolist()):
        ends = shards.document_ends(shard).tolist()
        for first, end in zip([0, *ends], ends, strict=False):
            documents.append(shards.read(start + first, end - first).tolist())
    return documents


def test_the_folder_holds_documents_tokenizer_shards_and_report_and_nothing_else(prepared: Path) -> None:
    assert sorted(path.name for path in prepared.iterdir()) == [
        "documents", "prepare.lock", "report.html", "report.json", "report.md", "shards", "signatures", "stages.json",
        "tokenizer",
    ]  # fmt: skip
    assert not list(prepared.rglob("*.tmp"))
    verify_data(prepared, Console(file=io.StringIO()))


def test_shards_hold_the_documents_and_the_text_gives_no_control_ids(prepared: Path) -> None:
    tokenizer = Tokenizer.load(prepared / "tokenizer")
    control = {tokenizer.processor.piece_to_id(symbol) for symbol in CONTROL_SYMBOLS}
    control |= {UNKNOWN_ID, tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id}
    assert len(control) == 4 + len(CONTROL_SYMBOLS)
    for name in ("web", "wikipedia", "code", "own"):
        texts = [document.text for document in read_documents(prepared / "documents" / f"{name}.jsonl.zst")]
        for split in ("train", "validation"):
            rows = read_shards(prepared / "shards" / name / split)
            assert {(row[0], row[-1]) for row in rows} == {(tokenizer.bos_id, tokenizer.eos_id)}
            assert not control & {token for row in rows for token in row[1:-1]}
            kept = [text for text in texts if is_validation(identify(text), FRACTION) == (split == "validation")]
            assert [tokenizer.decode(row[1:-1]) for row in rows] == kept
    own = [document.text for document in read_documents(prepared / "documents" / "own.jsonl.zst")]
    assert own == [SPECIAL.format(number) for number in range(12)]


def test_the_report_accounts_for_every_document(prepared: Path) -> None:
    report = json.loads((prepared / "report.json").read_text())
    assert list(report) == ["web", "wikipedia", "code", "own"]
    assert report["own"]["dropped"] == {"too_short": 1}
    assert report["own"]["documents"] == 12
    assert report["wikipedia"]["dropped"]["redirect"] > 0
    files = len(list((STDLIB / "email").rglob("*.py")))
    assert report["code"]["documents"] + sum(report["code"]["dropped"].values()) == files
    for name, row in report.items():
        documents = list(read_documents(prepared / "documents" / f"{name}.jsonl.zst"))
        assert row["documents"] == len(documents)
        assert row["characters"] == sum(len(document.text) for document in documents)
        for split in ("train", "validation"):
            assert row[f"{split}_tokens"] == ShardedTokens(prepared / "shards" / name / split).token_count
    assert report["code"]["licences"] == ["PSF-2.0"]
    assert "| own | CC0-1.0 | 1 |" in (prepared / "report.md").read_text()


def test_manifests_say_what_the_shards_were_made_of(prepared: Path) -> None:
    manifest = ShardedTokens(prepared / "shards" / "own" / "train").manifest
    assert (manifest.source, manifest.split, manifest.licence) == ("own", "train", "CC0-1.0")
    assert manifest.provenance["dropped"] == {"too_short": 1}
    assert manifest.provenance["paths"][0].endswith("own.jsonl")
    assert manifest.provenance["steps"][0]["min_characters"] == 100


def test_a_second_run_does_nothing(own: Path, project: Path) -> None:
    run(project, own)  # the copy is new to it: times of files are kept, so nothing is done
    before = times(own)
    told = run(project, own)
    assert times(own) == before
    assert [line.split()[0] for line in told.splitlines() if line.endswith("up to date")] == [
        "tokenizer", "shards/web", "shards/wikipedia", "shards/code", "shards/own",
    ]  # fmt: skip
    assert len(told.splitlines()) == 6  # and the report


def test_the_result_does_not_depend_on_the_number_of_workers(prepared: Path, project: Path, tmp_path: Path) -> None:
    run(project, tmp_path / "data", "corpus.workers=1")
    assert digest(tmp_path / "data") == digest(prepared)


def start_and_kill(project: Path, folder: Path, is_time: Callable[[], bool]) -> bool:
    """Start a preparation and kill it when it is time; tells whether it was still at work."""
    command = [sys.executable, "-m", "llmtrain", "data", "prepare", str(project / "tiny.yaml"), f"data.folder={folder}"]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not is_time() and process.poll() is None:
            time.sleep(0.002)
        was_running = process.poll() is None
        process.kill()
    return was_running


def test_a_preparation_killed_at_any_stage_continues_to_the_same_bytes(
    prepared: Path, project: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    appear = ("work", "documents/web.jsonl.zst", "tokenizer", "shards/web/train")
    moments: list[Callable[[], bool]] = [(folder / name).exists for name in appear]
    assert [start_and_kill(project, folder, moment) for moment in moments].count(True) >= 3
    run(project, folder)
    assert digest(folder) == digest(prepared)


def test_a_full_disk_at_any_stage_ends_with_a_message_and_a_rerun_continues(
    prepared: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"

    def fill_disk(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    places = [
        ("pathlib.Path.replace", "data"),
        ("data_pipelines.document._compress", r"documents/web\.jsonl\.zst"),
        ("data_pipelines.stages.write_atomically", "data"),
        ("data_pipelines.train_tokenizer.save_fast", "data"),
        ("llmtrain.shards.writer.ShardWriter._close_shard", "shards/web"),
        ("data_pipelines.report.write_atomically", "data"),
    ]
    for place, told in places:
        with monkeypatch.context() as patch:
            patch.setattr(place, fill_disk)
            with pytest.raises(DataError, match=rf"{told}: c.*No space left on device.* again"):
                run(project, folder)
        assert not list(folder.rglob("*.tmp"))
    assert not (folder / "report.json").exists()
    assert "shards/own             up to date" in run(project, folder)
    assert digest(folder) == digest(prepared)


def test_a_changed_source_redoes_what_depends_on_it_and_no_more(own: Path, project: Path, tmp_path: Path) -> None:
    records = [{"text": f"{SPECIAL.format(number)} {number * 7}"} for number in range(12)]
    records += [{"text": (STDLIB / "email" / "errors.py").read_text()}]  # which the source of code has as well
    (tmp_path / "other.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    before = times(own)
    told = run(project, own, f"corpus.sources.own.paths=[{tmp_path}/other.jsonl]")
    assert "deduplicate own" in told
    assert "train tokenizer" in told
    assert not [name for name in ("web", "wikipedia", "code") if f"deduplicate {name}" in told]
    assert json.loads((own / "report.json").read_text())["own"]["dropped"] == {"duplicate": 1}
    after = times(own)
    kept = [name for name in before if before[name] == after.get(name)]
    assert [name for name in kept if not name.startswith("signatures/")] == [
        f"documents/{name}.jsonl.zst" for name in ("code", "web", "wikipedia")
    ]
    assert {name for name in before if name.startswith("signatures/")} - set(kept) == {
        name for name in before if name.startswith("signatures/own/")
    }


def test_settings_of_the_shards_leave_documents_and_tokenizer(own: Path, project: Path) -> None:
    told = run(project, own, "corpus.shard_tokens=20000")
    assert "tokenizer              up to date" in told
    assert "deduplicate" not in told
    assert len(ShardedTokens(own / "shards" / "wikipedia" / "train").manifest.shards) > 5
    verify_data(own, Console(file=io.StringIO()))


def test_shares_done_by_tasks_are_gone_on_from(
    prepared: Path, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "data"
    config = load_config([project / "tiny.yaml"], [f"data.folder={folder}"]).config
    (folder / "downloads").mkdir(parents=True)
    for task in (2, 0, 1):
        extract_share(config, task, 3, Console(file=io.StringIO()))
    parts = sorted((folder / "work").rglob("*.jsonl.zst"))
    assert len(parts) == json.loads((prepared / "report.json").read_text())["code"]["units"] + 3
    made = {path: path.stat().st_mtime_ns for path in parts}

    def check_and_decide(*arguments: Any) -> dict[str, Verdict]:
        assert {path: path.stat().st_mtime_ns for path in made} == made  # nothing is extracted again
        return decide(*arguments)

    monkeypatch.setattr(prepare_module, "decide", check_and_decide)
    run(project, folder)
    (folder / "downloads").rmdir()
    assert digest(folder) == digest(prepared)


def test_tasks_share_the_folder_but_not_with_a_preparation_or_with_themselves(project: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    config = load_config([project / "tiny.yaml"], [f"data.folder={folder}"]).config
    quiet = Console(file=io.StringIO())
    with (
        locked_folder(folder, "prepare.lock", "a preparation", ""),
        pytest.raises(ConfigError, match="task 0 is using"),
    ):
        extract_share(config, 0, 2, quiet)
    with locked_folder(folder, "prepare.lock", "task 1", "", is_shared=True):
        with pytest.raises(ConfigError, match="a preparation is using this folder"):
            run(project, folder)
        with locked_folder(folder / "work", "task-0.lock", "task 0", ""), pytest.raises(ConfigError, match="task 0 is"):
            extract_share(config, 0, 2, quiet)
        extract_share(config, 1, 2, quiet)
    for task in (-1, 2):
        with pytest.raises(ConfigError, match=rf"--task {task} of --tasks 2: tasks are numbered from 0 to 1"):
            extract_share(config, task, 2, quiet)


def test_a_redone_stage_that_was_killed_does_not_count_for_its_old_settings(
    own: Path, prepared: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object) -> None:
        raise KeyboardInterrupt

    stricter = "corpus.steps={prose: [{name: bounds}], code: [{name: bounds, min_characters: 300}]}"
    for override, lost in ((stricter, "documents"), ("corpus.shard_tokens=9000", "shards")):
        with monkeypatch.context() as patch:
            patch.setattr(Stages, "finish", kill)  # the output is there, the note of it is not
            with pytest.raises(KeyboardInterrupt):
                run(project, own, override)
        assert digest(own) != digest(prepared)
        assert "web" in run(project, own), lost
        assert digest(own) == digest(prepared)


def test_an_accelerator_changes_nothing(project: Path, own: Path) -> None:
    before = digest(own)
    told = run(project, own, "corpus.tokenizer.accelerator=gigatoken")
    assert (
        told.count("up to date") == told.count("\n") - 1 == 5
    )  # the tokenizer and the shards of four sources; the report
    shutil.rmtree(own / "shards")
    assert "done again" in run(project, own, "corpus.tokenizer.accelerator=gigatoken", "corpus.workers=1")
    assert digest(own) == before


def test_damaged_output_is_made_again(own: Path, prepared: Path, project: Path) -> None:
    shard = own / "shards" / "code" / "train" / "shard-00000.tokens"
    shard.write_bytes(shard.read_bytes()[:-8])
    with (own / "tokenizer" / "tokenizer.model").open("ab") as file:
        file.write(b"x")
    told = run(project, own)
    assert "tokenizer              done again: tokenizer " in told
    assert "shards/code            done again: shard " in told
    assert "shards/web             up to date" in told
    assert digest(own) == digest(prepared)


def test_a_flipped_bit_is_mended_when_the_configuration_asks_for_every_byte(
    own: Path, prepared: Path, project: Path
) -> None:
    shard = own / "shards" / "web" / "validation" / "shard-00000.tokens"
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    assert "shards/web             up to date" in run(project, own)
    assert "shards/web             done again: shard " in run(project, own, "data.verify=full")
    assert digest(own) == digest(prepared)


def test_shards_of_a_source_taken_out_stay_and_are_named(own: Path, project: Path) -> None:
    shutil.copytree(own / "shards" / "own", own / "shards" / "old")
    assert "shards of old: not in corpus.sources any more; left as they are, but not part of" in run(project, own)
    assert (own / "shards" / "old" / "train" / "manifest.json").exists()


def test_data_of_which_a_source_was_taken_out_can_be_used(own: Path, project: Path, tmp_path: Path) -> None:
    config = yaml.safe_load((project / "tiny.yaml").read_text())
    del config["corpus"]["sources"]["code"]
    config["corpus"]["tokenizer"]["vocab_size"] = 410  # so what is left on disk was made with another one
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    told = run(tmp_path, own)
    assert "shards of code: not in corpus.sources any more" in told
    verify_data(own, Console(file=io.StringIO()))
    assert list(open_data(own, "train")) == ["own", "web", "wikipedia"]
    assert list(show_sample(own, "train", None, 1))
    with pytest.raises(DataError, match=r"shards/code/train: was made with tokenizer \w{12}, the folder holds"):
        list(show_sample(own, "train", "code", 1))


def test_what_verify_finds_is_mended_by_the_next_run(own: Path, prepared: Path, project: Path) -> None:
    def edit_licence() -> None:
        path = own / "shards" / "web" / "train" / "manifest.json"
        path.write_text(path.read_text().replace('"licence": "PSF-2.0"', '"licence": "MIT"'))

    damages: list[tuple[Callable[[], object], str]] = [
        ((own / "tokenizer" / "tokenizer.json").unlink, r"tokenizer\.json: missing"),
        (lambda: flip(own / "tokenizer" / "tokenizer.json", 999), r"tokenizer\.json: sha256 is"),
        (lambda: flip(own / "tokenizer" / "tokenizer_config.json", 99), r"tokenizer_config\.json: sha256 is"),
        (lambda: shutil.rmtree(own / "shards" / "code"), "no train shards of code"),
        (edit_licence, r"shards/web/train: the sha256 of its manifest is \w+, sources\.json says"),
        (lambda: (own / "shards" / "sources.json").write_text("{}"), r"sources\.json: damaged: Field required"),
    ]
    for damage, told in damages:
        damage()
        with pytest.raises(DataError, match=told):
            verify_data(own, Console(file=io.StringIO()))
        run(project, own)
        assert digest(own) == digest(prepared)


def test_a_damaged_account_of_stages_is_refused_and_removing_it_mends_it(
    own: Path, prepared: Path, project: Path
) -> None:
    (own / "stages.json").write_text("{ half")
    with pytest.raises(DataError, match=r"stages\.json: damaged: .* Remove it: stages are done again\."):
        run(project, own)
    (own / "stages.json").unlink()
    run(project, own)
    assert digest(own) == digest(prepared)


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    path.write_bytes(content)


def test_documents_that_are_cut_off_are_made_again(own: Path, prepared: Path, project: Path) -> None:
    path = own / "documents" / "web.jsonl.zst"
    path.write_bytes(path.read_bytes()[:-50])
    assert f"documents/web          done again: {path} has " in run(project, own)
    assert digest(own) == digest(prepared)


def test_damaged_documents_are_refused_with_a_remedy_that_works(own: Path, prepared: Path, project: Path) -> None:
    path = own / "documents" / "web.jsonl.zst"
    flip(path, 31)  # which a frame may set as it likes
    for setting in ("corpus.tokenizer.vocab_size=410", "corpus.shard_tokens=20000"):
        with pytest.raises(DataError, match=r"web\.jsonl\.zst: sha256 is .* damaged\. Remove the file and run"):
            run(project, own, setting)
    path.unlink()
    run(project, own)
    flip(path, 100_000)
    assert "documents/web          done again: " in run(project, own, "data.verify=full")
    assert digest(own) == digest(prepared)


def test_damaged_signatures_are_refused_with_a_remedy_that_works(own: Path, prepared: Path, project: Path) -> None:
    again = ["corpus.sources.own.licence=MIT", "corpus.tokenizer.vocab_size=405"]  # compares one source with the others
    for path in sorted((own / "signatures" / "web").iterdir()):
        whole = path.read_bytes()
        flip(path, 8 * len(whole) // 2)
        with pytest.raises(DataError, match=rf"{own}/signatures/web/.*damaged.* Remove the folder around it and run"):
            run(project, own, *again)
        path.write_bytes(whole)
    shutil.rmtree(own / "signatures" / "web")
    run(project, own)
    assert digest(own) == digest(prepared)


def test_without_a_corpus_there_is_nothing_to_prepare(tmp_path: Path) -> None:
    config = load_config([write_tiny_config(tmp_path)], [f"data.folder={tmp_path}/data"]).config
    with pytest.raises(ConfigError) as raised:
        prepare(config)
    assert str(raised.value) == (
        "corpus: the section is missing, so there is nothing to prepare. Add one, see docs/prepare-data.md."
    )
    assert Path("docs/prepare-data.md").exists()
    assert not (tmp_path / "data").exists()


def write_project(folder: Path, **sources: dict[str, Any]) -> Path:
    write_tiny_config(folder, corpus={"sources": sources, "tokenizer": {"vocab_size": 400}, "workers": 1})
    return folder


def test_what_steps_changed_and_noted_is_in_the_report(tmp_path: Path) -> None:
    texts = [f"{SPECIAL.format(number)} {STDLIB / 'email'} {number}".replace("\n", "  \r\n") for number in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    (tmp_path / "evaluation.txt").write_text(SPECIAL.format(7))
    project = write_project(tmp_path, own={"kind": "documents", "paths": [str(tmp_path / "a.jsonl")]})
    step = f"corpus.steps.prose=[{{name: decontaminate, against: [{tmp_path}/evaluation.txt], action: report}}]"
    run(project, tmp_path / "data", step, "corpus.validation_fraction=0.3")
    row = json.loads((tmp_path / "data" / "report.json").read_text())["own"]
    assert row["changed"] == {"mend": 40}
    assert row["noted"]["decontaminate: contaminated"] > 0
    assert "## own: noted\n\n* decontaminate: contaminated: " in (tmp_path / "data" / "report.md").read_text()


def test_a_source_of_which_nothing_is_left_says_why(tmp_path: Path) -> None:
    for name, content in {"a.py": "x = 1\n", "b.py": "y = 2\n", "c.py": "a\0b"}.items():
        (tmp_path / name).write_text(content)
    project = write_project(tmp_path, code={"kind": "code", "paths": [str(tmp_path)]})
    with pytest.raises(DataError) as raised:
        run(project, tmp_path / "data")
    assert str(raised.value) == (
        "corpus.sources.code: not one document is left; dropped: {'binary': 1, 'too_short': 2}. Look at its steps "
        "and at the paths."
    )
    assert not (tmp_path / "data" / "tokenizer").exists()


def test_a_folder_without_a_file_of_the_kind_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    project = write_project(tmp_path, web={"kind": "web", "paths": [str(tmp_path / "empty")]})
    with pytest.raises(DataError) as raised:
        run(project, tmp_path / "data")
    assert str(raised.value) == (
        "corpus.sources.web.paths: they hold no file that counts: those below a folder end in .html, .htm, .xhtml, "
        ".warc, .warc.gz, .wet, .wet.gz. Correct paths, or what counts."
    )
    assert not (tmp_path / "data" / "work").exists()


def test_an_archive_of_which_nothing_is_asked_for_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.go", "package a")
    project = write_project(tmp_path, code={"kind": "code", "paths": [str(tmp_path / "a.zip")]})
    with pytest.raises(DataError, match="not one document is left; dropped: nothing, for nothing was there to read"):
        run(project, tmp_path / "data")


def test_a_source_too_small_for_both_splits_is_refused_before_the_tokenizer_is_trained(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text((json.dumps({"text": SPECIAL.format(1)}) + "\n") * 50)
    project = write_project(tmp_path, own={"kind": "documents", "paths": [f"{tmp_path}/a.jsonl"]})
    with pytest.raises(DataError, match=r"corpus\.validation_fraction = 0\.01: source 'own' has 1 different documents"):
        run(project, tmp_path / "data")
    assert not (tmp_path / "data" / "tokenizer").exists()


def test_parts_without_a_record_are_ordinary_and_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": SPECIAL.format(n)}) + "\n" for n in range(40)))
    (tmp_path / "b.jsonl").touch()
    project = write_project(tmp_path, own={"kind": "documents", "paths": [f"{tmp_path}/*.jsonl"]})
    run(project, tmp_path / "data", "corpus.validation_fraction=0.3", "corpus.tokenizer.vocab_size=340")
    row = json.loads((tmp_path / "data" / "report.json").read_text())["own"]
    assert (row["documents"], row["dropped"]) == (40, {"empty_file": 1})
    assert row["samples"]["empty_file"] == [str(tmp_path / "b.jsonl")]


def test_a_damaged_input_ends_the_preparation_and_parts_of_others_are_kept(project: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("broken\n")
    with pytest.raises(DataError, match=r"bad\.jsonl: line 1 is not a record in JSON"):
        run(project, tmp_path / "data", f"corpus.sources.own.paths=[{tmp_path}/bad.jsonl]", "corpus.workers=1")
    work = tmp_path / "data" / "work"
    assert len(list(work.rglob("*.jsonl.zst"))) >= 3
    assert not list(work.rglob("*.tmp"))


def test_what_an_input_gains_after_it_was_read_waits_for_the_next_run(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps({"text": SPECIAL.format(number)}) + "\n" for number in range(12)))

    def append_and_decide(*arguments: Any) -> dict[str, Verdict]:
        with path.open("a") as file:
            file.write(json.dumps({"text": SPECIAL.format(path.stat().st_size)}) + "\n")
        return decide(*arguments)

    own_project = write_project(tmp_path, own={"kind": "documents", "paths": [str(path)]})
    monkeypatch.setattr(prepare_module, "decide", append_and_decide)
    for count in (12, 13):  # what was there when the preparation began
        run(own_project, tmp_path / "data", "corpus.validation_fraction=0.3", "corpus.tokenizer.vocab_size=320")
        assert json.loads((tmp_path / "data" / "report.json").read_text())["own"]["documents"] == count


def test_a_data_folder_inside_a_source_is_no_input_of_it(tmp_path: Path) -> None:
    (tmp_path / "own.jsonl").write_text("".join(json.dumps({"text": SPECIAL.format(i)}) + "\n" for i in range(12)))
    settings = ("corpus.validation_fraction=0.3", "corpus.tokenizer.vocab_size=320")
    project = write_project(tmp_path, own={"kind": "documents", "paths": [str(tmp_path)]})
    run(project, tmp_path / "data", *settings)
    assert "tokenizer              up to date" in run(project, tmp_path / "data", *settings)
    everything = f"corpus.sources.own.paths=[{tmp_path}/**/*.jsonl]"
    assert "tokenizer              up to date" in run(project, tmp_path / "data", *settings, everything)
    run(project, tmp_path / "data", *settings)
    (tmp_path / "data" / "more.jsonl").write_text('{"text": "more"}\n')
    with pytest.raises(DataError) as raised:
        run(project, tmp_path / "data", *settings, f"corpus.sources.own.paths=[{tmp_path}/data/*.jsonl]")
    assert str(raised.value) == (
        f"corpus.sources.own.paths: {tmp_path}/data/more.jsonl lies in data.folder, {tmp_path}/data, which this "
        "command writes. Choose a folder for the data that holds no input, or narrower paths."
    )


def test_a_missing_input_is_refused_before_any_work(project: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"corpus\.sources\.own\.paths: '.*gone\.jsonl' matches no file"):
        run(project, tmp_path / "data", f"corpus.sources.own.paths=[{tmp_path}/gone.jsonl]")
    assert not (tmp_path / "data" / "work").exists()


def test_a_data_folder_that_is_a_file_is_refused(project: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("in the way")
    with pytest.raises(DataError, match=r"data: cannot be read or written: .*File exists"):
        run(project, tmp_path / "data")


def test_a_worker_that_the_system_ends_is_told_as_lack_of_memory(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("data_pipelines.prepare.end_with_parent", os.abort)
    with pytest.raises(MemoryExhaustedError, match=r"corpus\.workers = 2: .*memory ran out\. Set fewer, then run"):
        run(project, tmp_path / "data")


def test_two_preparations_of_one_folder_do_not_meet(own: Path, project: Path) -> None:
    with (
        locked_folder(own, "prepare.lock", "a preparation", "Wait."),
        pytest.raises(ConfigError, match=r"a preparation is using this folder \(process \d+ on .*\)\. Wait for it, or"),
    ):
        run(project, own)
    assert "up to date" in run(project, own)


def test_repeats_within_and_across_sources_are_left_out_killed_or_not_with_any_number_of_workers(
    project: Path, tmp_path: Path
) -> None:
    modules = [(STDLIB / "email" / f"{name}.py").read_text() for name in ("charset", "errors", "policy", "utils")]
    near = [text.replace("the ", "this ", 2) for text in modules] + list(stdlib_texts())
    (tmp_path / "near.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in near))
    overrides = [
        f"corpus.sources.own.paths=[{tmp_path}/near.jsonl]",
        "corpus.deduplicate={near: {}, paragraphs: {}}",
        "corpus.tokenizer.vocab_size=500",
        "corpus.validation_fraction=0.45",
    ]
    told = run(project, tmp_path / "reference", *overrides)
    assert "find repeats" in told
    report = json.loads((tmp_path / "reference" / "report.json").read_text())
    assert report["own"]["dropped"]["near_duplicate"] == 4
    assert report["own"]["clusters"]["copies"] == {"0": 4}
    assert [row["source"] for row in report["own"]["clusters"]["largest"]] == ["code"] * 4
    assert "(like " + report["own"]["clusters"]["largest"][0]["origin"] in report["own"]["samples"]["near_duplicate"][0]
    assert report["code"]["changed"]["duplicate_paragraphs"] > 0
    folder = tmp_path / "killed"
    command = ["-m", "llmtrain", "data", "prepare", str(project / "tiny.yaml"), f"data.folder={folder}", *overrides]
    environment = os.environ | {"PYTHONPATH": str(Path.cwd())}
    for name in ("signatures/code", "work/repeats", "documents/wikipedia.jsonl.zst"):
        with subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.DEVNULL) as process:
            while not (folder / name).exists() and process.poll() is None:
                time.sleep(0.002)
            process.kill()
    run(project, folder, *overrides, "corpus.workers=1")
    assert digest(folder) == digest(tmp_path / "reference")
    assert json.loads((folder / "report.json").read_text())["own"]["samples"] == report["own"]["samples"]
