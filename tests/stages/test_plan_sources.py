"""What `llmtrain plan` tells of the data, before and after it is prepared."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import llmtrain
from tests.helpers.door import call_door

PLAN = ["plan", "tiny.yaml", "--cluster", "two_core_cpu"]
FOLDER = Path("data/tiny")


def test_prepared_sources_have_tokens_shares_and_epochs(
    own_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = call_door(PLAN, monkeypatch, capsys)
    assert code == 0
    assert "tokens drawn" in printed
    _, printed_json = call_door([*PLAN, "--json"], monkeypatch, capsys)
    found = json.loads(printed_json)
    for source in found["mixture"]["sources"]:
        assert f"{source['tokens']:,}" in printed
        assert f"{source['drawn_tokens']:,}" in printed
        assert source["tokens"] == count_tokens(source["name"])
    drawn = sum(source["drawn_tokens"] for source in found["mixture"]["sources"])
    assert drawn == found["layout"]["tokens_per_step"] * found["layout"]["train_steps"]


def count_tokens(source: str) -> int:
    manifest = json.loads((FOLDER / "shards" / source / "train" / "manifest.json").read_text())
    return sum(shard["token_count"] for shard in manifest["shards"])


def test_stages_and_rows_that_are_not_packed_are_said(
    own_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stages = "data.stages=[{from_step: 4, weights: {json: 1.0}}]"
    _, printed = call_door([*PLAN, stages, "data.packing=best_fit"], monkeypatch, capsys)
    assert "shares change at optimizer step 4" in printed
    assert "then 100.0%" in printed
    assert "rows are counted as if they were full: they are packed when training starts" in printed


def test_before_the_data_is_prepared_one_line_says_so(
    own_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "epochs of each source: not known before `llmtrain data prepare`: no shards in data/tiny"
    shutil.rmtree(FOLDER / "shards" / "json" / "train")
    code, printed = call_door([*PLAN, "data.sources={json: {}, email: {}}"], monkeypatch, capsys)
    assert code == 0
    assert told in printed
    shutil.rmtree(FOLDER / "shards")
    code, printed = call_door(PLAN, monkeypatch, capsys)
    assert code == 0
    assert told in printed
    _, printed = call_door([*PLAN, "--json"], monkeypatch, capsys)
    assert json.loads(printed)["mixture"] is None


def test_a_source_that_would_be_read_too_often_is_refused(
    own_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["data.sources={json: {max_epochs: 0.001}, email: {}}"]
    for search in ([], ["--search"], ["--search", "--write", "best.yaml"]):
        code, printed = call_door([*PLAN, *arguments, *search], monkeypatch, capsys)
        assert code == 4
        assert "data.sources.json" in printed
        assert "max_epochs is 0.001" in printed
        assert "the best" not in printed
    assert not Path("best.yaml").exists()


def test_epochs_are_told_without_torch(own_project: Path) -> None:
    code = f"""
import sys
sys.argv = ["llmtrain", *{PLAN!r}]
from llmtrain.__main__ import app
app(standalone_mode=False)
assert not {{"torch", "deepspeed", "transformers"}} & set(sys.modules)
"""
    environment = os.environ | {"PYTHONPATH": str(Path(str(llmtrain.__file__)).parents[1])}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert "tokens drawn" in result.stdout
