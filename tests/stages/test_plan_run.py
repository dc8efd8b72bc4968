"""Command `plan`: its tables, its JSON, its overlay, its messages; and that it starts without torch."""

import json
import math
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmtrain.config.cluster import CLUSTER_FOLDER, load_cluster
from llmtrain.config.loader import load_config
from llmtrain.plan.memory import GIB, RankMemory
from llmtrain.stages.plan_json import render_json
from llmtrain.stages.plan_tables import draw_memory_bar, list_memory_rows
from tests.helpers.door import call_door

GPT3 = "configs/pretrain/gpt3_175b.yaml"


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """Exit code and everything printed."""
    return call_door(["plan", *arguments], monkeypatch, capsys)


def test_the_tables_hold_parameters_memory_time_and_cost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = call([GPT3, "--cluster", "dgx_a100_80gb", "--world-size", "1536"], monkeypatch, capsys)
    assert code == 0
    assert "174,604,259,328" in printed
    assert "1,536 = data 12 x tensor 8 x pipeline 16, ZeRO 1" in printed
    assert "fits" in printed
    assert "MWh" in printed
    assert "save_every_steps=" in printed
    assert "a step, hidden by prefetching" in printed


def test_explain_names_formulas_and_sources(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, printed = call([GPT3, "--explain"], monkeypatch, capsys)
    assert "Daly 2006, equation 37" in printed
    assert "12 bytes per parameter" in printed


def test_json_holds_the_same_numbers(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = call([GPT3, "--json"], monkeypatch, capsys)
    found = json.loads(printed)
    assert code == 0
    assert found["model"]["parameters"] == 174_604_259_328
    assert all(re.fullmatch("[a-z_0-9]+", key) for key in found["model"])
    assert all(isinstance(value, int | float) for value in found["model"].values())
    assert found["layout"]["world_size"] == 128
    parts = [value for key, value in found["step"].items() if key.endswith("_seconds") and key != "step_seconds"]
    assert sum(parts) == pytest.approx(found["step"]["step_seconds"])
    assert len(found["memory"]["pipeline_ranks"]) == 16


def test_a_cluster_that_always_fails_ends_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "broken.yaml"
    text = (CLUSTER_FOLDER / "dgx_h100.yaml").read_text()
    for rate in (100.0, 1e6):
        path.write_text(text + f"reliability: {{failures_per_device_hour: {rate}}}\n")
        code, printed = call([GPT3, "--cluster", str(path), "--json"], monkeypatch, capsys)
        found = json.loads(printed, parse_constant=pytest.fail)["run"]
        assert (code, found["goodput"], found["train_seconds"]) == (0, 0.0, None)
        assert (found["device_hours"], found["energy_mwh"], found["price"]) == (None, None, 0.0)
        _, printed = call([GPT3, "--cluster", str(path)], monkeypatch, capsys)
        assert "never" in printed
        assert "not known" in printed
        assert not {"nan", "inf"} & set(printed.split())
    path.write_text(text + "reliability: {failures_per_device_hour: 1.0e+308}\n")
    code, printed = call([GPT3, "--cluster", str(path)], monkeypatch, capsys)
    assert code == 2
    assert "'reliability.failures_per_device_hour' = 1e+308: " in printed


def test_json_has_null_for_what_is_no_number() -> None:
    values = {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": (-math.inf, "text", 2, None, True)}}
    assert json.loads(render_json(values)) == {"a": None, "b": [None, 1.5], "c": {"d": [None, "text", 2, None, True]}}


def test_the_best_layout_is_written_as_an_overlay_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "best.yaml"
    code, printed = call(
        [GPT3, "--world-size", "1024", "--search", "--write", str(path), "--json"], monkeypatch, capsys
    )
    assert code == 0
    best = json.loads(printed)["proposals"][0]["overlay"]
    config = load_config([Path(GPT3), path]).config
    assert config.parallel.tensor_parallel_size == best["parallel"]["tensor_parallel_size"]
    assert config.batch.micro_batch_size == best["batch"]["micro_batch_size"]
    assert path.read_text().splitlines()[:3] == [
        f"# Overlay: NODES=128 RANKS_PER_NODE=8 bash launch/torchrun.sh configs/pretrain/gpt3_175b.yaml -c {path}",
        "# Run it on each machine, with its own NODE_RANK and the first one's name as MASTER_ADDR.",
        "# The fastest layout found for 1,024 ranks of DGX H100.",
    ]


def test_the_command_of_an_overlay_makes_the_layout_whatever_files_and_overrides_the_search_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    more, path = tmp_path / "more files.yaml", tmp_path / "best.yaml"
    more.write_text("training:\n  compile: false\n")
    overrides = ["batch.micro_batch_size=32", "parallel={zero_stage: 2, overlap_communication: false}"]
    overrides.append("run.name=mine")
    arguments = ["configs/pretrain/gpt3_125m.yaml", *overrides, "-c", str(more), "--world-size", "8", "--search"]
    code, printed = call([*arguments, "--write", str(path), "--json"], monkeypatch, capsys)
    assert code == 0
    head = path.read_text().splitlines()[0]
    words = shlex.split(head.removeprefix("# Overlay: "))
    assert words[:5] == ["llmtrain", "pretrain", "configs/pretrain/gpt3_125m.yaml", "--nproc", "8"]
    assert words[5:9] == ["-c", str(more), "-c", str(path)]
    run = load_config([Path(words[2]), more, path], words[9:]).config
    assert (run.run.name, run.parallel.overlap_communication, run.training.compile) == ("mine", False, False)
    best = json.loads(printed)["proposals"][0]["overlay"]
    for section, keys in best.items():
        found = getattr(run, section).model_dump()
        assert {key: found[key] for key in keys} == keys


def test_what_does_not_fit_says_what_to_change(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["configs/pretrain/gpt3_13b.yaml", "batch.micro_batch_size=32", "--cluster", "dgx_a100_80gb"]
    code, printed = call(arguments, monkeypatch, capsys)
    assert code == 0
    assert "does not fit. Try training.activation_recompute=full or batch.micro_batch_size=16" in printed


def test_where_no_single_key_helps_that_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = ["parallel.tensor_parallel_size=8", "parallel.pipeline_parallel_size=1"]
    _, printed = call(["configs/pretrain/llama_70b.yaml", *layout, "--world-size", "8"], monkeypatch, capsys)
    assert "does not fit. No one key lowers it. Try --search, or more ranks." in printed


def test_weights_that_are_shared_between_machines_are_warned_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["configs/pretrain/gpt3_6.7b.yaml", "parallel.tensor_parallel_size=16", "--world-size", "32"]
    _, printed = call(arguments, monkeypatch, capsys)
    assert "parallel.tensor_parallel_size = 16 with 8 ranks on a machine" in printed


def test_what_is_needed_at_the_start_is_told_where_it_is_the_most(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = ["parallel.tensor_parallel_size=1", "parallel.pipeline_parallel_size=1", "parallel.zero_stage=3"]
    arguments = ["configs/pretrain/llama_70b.yaml", *layout, "--world-size", "2048", "--cluster", "dgx_h200"]
    _, printed = call(arguments, monkeypatch, capsys)
    assert "most is needed at the start" in printed
    assert "does not fit. Try parallel.tensor_parallel_size=2; or --search." in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--world-size", "8192"], "DGX H100 has 4,096 devices = 512 machines x 8"),
        (["--world-size", "8192", "--search"], "Choose at most 4,096"),
        (["--world-size", "16", "--search"], "the smallest needs"),
        (["--write", "x.yaml"], "--write needs --search"),
        (["--seed", "3"], "--seed needs --simulate-failures: it decides them. Add --simulate-failures."),
        (["--explain", "--search"], "--explain writes formulas into the table of one layout, --search ranks many."),
        (["--explain", "--json"], "--json prints no table. Leave out one of them."),
        (["--cluster", ""], "--cluster is empty. Give a name of `llmtrain cluster list`, or a YAML file."),
        (["--cluster", "dgx_h20"], "Did you mean 'dgx_h200'?"),
        (["model.num_layers=0"], "'model.num_layers' = 0"),
    ],
)
def test_mistakes_are_told_without_a_traceback(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = call([GPT3, *arguments], monkeypatch, capsys)
    assert code == 2
    assert message in printed
    assert "Traceback" not in printed


def test_an_overlay_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = call([GPT3, "--search", "--write", str(tmp_path)], monkeypatch, capsys)
    assert code == 2
    assert "Give a file that can be written" in printed


def test_tight_layouts_are_proposed_and_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "large.yaml"
    path.write_text((CLUSTER_FOLDER / "dgx_h100.yaml").read_text().replace("memory_gib: 79.1 ", "memory_gib: 200 "))
    arguments = ["configs/pretrain/llama_70b.yaml", "--cluster", str(path), "--world-size", "8", "--search"]
    code, printed = call(arguments, monkeypatch, capsys)
    assert code == 0
    assert "GiB, tight" in printed
    assert "are tight and come last" in printed
    _, printed = call([*arguments, "--json"], monkeypatch, capsys)
    assert {found["verdict"] for found in json.loads(printed)["proposals"]} == {"tight"}


def test_the_schedule_of_a_proposal_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [GPT3, "--world-size", "1024", "--search"]
    _, printed = call([*arguments, "parallel.pipeline_schedule=dualpipev"], monkeypatch, capsys)
    assert "16 dualpipev" in printed
    _, printed = call(arguments, monkeypatch, capsys)
    assert "dualpipev" not in printed


def test_bars_show_shares_of_the_device() -> None:
    memory = RankMemory(25, 0, 25, 0, 25, 0, 0, 0)
    assert draw_memory_bar(memory, 100, 8) == "PPOOAA.."
    assert draw_memory_bar(memory, 50, 8) == "PPPPOOOO!"


def test_ranks_between_and_the_one_with_most_are_shown() -> None:
    cluster = load_cluster("dgx_h100")
    sizes = [10.0 + rank for rank in range(16)]
    sizes[9] = 80.0
    rows = list_memory_rows([RankMemory(size * GIB, 0, 0, 0, 0, 0, 0, 0) for size in sizes], cluster)
    assert [row[0] for row in rows] == ["0", "1", "2", "3", "4-8", "9", "10-12", "13", "14", "15"]
    assert rows[4][1:] == ("between", "14.00 GiB to 18.00 GiB", "fits")
    assert rows[5][2:] == ("80.00 GiB of 79.10 GiB", "does not fit")
    equal = list_memory_rows([RankMemory(GIB, 0, 0, 0, 0, 0, 0, 0)] * 12, cluster)
    assert [row[0] for row in equal] == ["0-11"]
    one_left = list_memory_rows([RankMemory(size * GIB, 0, 0, 0, 0, 0, 0, 0) for size in range(1, 9)], cluster)
    assert [row[0] for row in one_left] == [str(rank) for rank in range(8)]


def test_the_command_starts_without_torch() -> None:
    code = f"""
import sys
sys.argv = ["llmtrain", "plan", "{GPT3}"]
from llmtrain.__main__ import app
app(standalone_mode=False)
assert not {{"torch", "deepspeed", "numpy", "matplotlib", "transformers"}} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_cluster_is_that_of_the_option_or_of_the_configuration(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find(*arguments: str) -> str:
        command = ["plan", "configs/pretrain/gpt3_125m.yaml", "--json", *arguments]
        code, printed = call_door(command, monkeypatch, capsys)
        assert code == 0
        name: str = json.loads(printed)["layout"]["cluster"]
        return name

    assert find() == "DGX H100"
    assert find("tracking.cluster=dgx_h200") == "DGX H200"
    assert find("tracking.cluster=dgx_h200", "--cluster", "dgx_a100_80gb") == "DGX A100 80GB"
