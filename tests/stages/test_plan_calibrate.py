"""`llmtrain plan --calibrate`: shares of known runs are found again, errors told, files written, mistakes named."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from llmtrain.config.cluster import ClusterConfig, DeviceConfig, EfficiencyConfig, LinkConfig, load_cluster
from llmtrain.config.cluster_file import render_cluster
from llmtrain.plan.report import describe_seconds
from llmtrain.plan.step_time import compute_step_time
from tests.helpers.door import call_door
from tests.stages.finished_runs import load_run_workload, write_finished_run

CPUS = load_cluster("two_core_cpu")
ALL_ONE = EfficiencyConfig(matrix_products=1, fused_attention=1, memory=1, links=1, overlap=0)
DESCRIBED = CPUS.model_copy(
    update={
        "device": DeviceConfig(
            name="core",
            kind="cpu",
            memory_gib=8,
            bfloat16_teraflops=1.2,
            float32_teraflops=0.1,
            memory_gb_per_second=16,
        ),
        "link": LinkConfig(gb_per_second=0.9, latency_microseconds=110),
        "efficiency": ALL_ONE,
    }
)
"""Numbers that stay when this machine is measured anew."""
SIZES: tuple[list[str], ...] = (
    [],
    ["model.hidden_size=256"],
    ["model.num_layers=8"],
    ["batch.sequence_length=512"],
    ["model.hidden_size=512"],
)


def call(arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    """Exit code of `llmtrain plan ARGUMENTS` and everything printed."""
    return call_door(["plan", *arguments], monkeypatch, capsys)


def change(**shares: float) -> ClusterConfig:
    return CPUS.model_copy(update={"efficiency": CPUS.efficiency.model_copy(update=shares)})


def write_runs(folder: Path, cluster: ClusterConfig, count: int) -> list[str]:
    """Arguments for runs of several sizes that took what a cluster foretells."""
    arguments = []
    for number, sizes in enumerate(SIZES[:count]):
        seconds = compute_step_time(load_run_workload(folder, 2, *sizes), cluster).total
        run = write_finished_run(folder, f"run-{number}", 2, [seconds] * 3, *sizes)
        arguments += ["--calibrate", str(run)]
    return arguments


def test_the_shares_that_runs_were_made_with_are_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "described.yaml"
    path.write_text(render_cluster(DESCRIBED, [], {}))
    shares = {"matrix_products": 0.4, "memory": 0.6}
    truth = DESCRIBED.model_copy(update={"efficiency": ALL_ONE.model_copy(update=shares)})
    arguments = [*write_runs(tmp_path, truth, 4), "--cluster", str(path), "--json"]
    code, printed = call(arguments, monkeypatch, capsys)
    found = json.loads(printed)
    assert code == 0
    assert found["fitted"] == shares
    assert found["kept"] == ALL_ONE.model_dump(exclude={"matrix_products", "memory"})
    assert found["left_out"] == {"over": "runs", "mean": pytest.approx(0), "worst": pytest.approx(0)}
    for row in found["runs"]:
        assert row["before_seconds"] < row["measured_seconds"] == pytest.approx(row["after_seconds"])
        assert row["left_out_error"] == pytest.approx(0)
    assert found["too_low"] == []


def test_one_run_needs_neither_config_nor_cluster_and_tells_its_noise_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = compute_step_time(load_run_workload(tmp_path, 2), change(matrix_products=0.4)).total
    run = write_finished_run(tmp_path, "a", 2, [seconds, seconds, seconds, 2 * seconds])
    code, printed = call(["--calibrate", str(run)], monkeypatch, capsys)
    assert code == 0
    assert "two CPU cores" in printed
    assert "efficiency.matrix_products: 1.00 before, 0.40 fitted" in printed
    assert "fitted to the others: mean 12.5%, worst 50.0%. One run: that is its noise, not how well" in printed
    alone = write_finished_run(tmp_path, "b", 2, [])
    code, printed = call(["--calibrate", str(alone)], monkeypatch, capsys)
    assert "one logged interval: nothing says how large the noise is. Lower training.log_every_steps." in printed


def test_the_fitted_cluster_is_written_and_plans_the_runs_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, path = write_runs(tmp_path, change(matrix_products=0.4), 2), tmp_path / "fitted.yaml"
    code, printed = call([*arguments, "--write", str(path)], monkeypatch, capsys)
    assert code == 0
    assert "error of each run when the shares are fitted to the others: mean 0.0%, worst 0.0%" in printed
    text = path.read_text()
    assert text.startswith(
        f"# llmtrain plan --calibrate {tmp_path / 'run-0'} --calibrate {tmp_path / 'run-1'} --write {path}\n"
    )
    assert "matrix_products: 0.4  # fitted to the runs above" in text
    assert load_cluster(str(path)) == change(matrix_products=0.4)


def test_a_configuration_beside_runs_is_planned_on_the_fitted_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = compute_step_time(load_run_workload(tmp_path, 2), change(matrix_products=0.4)).total
    run = write_finished_run(tmp_path, "a", 2, [seconds])
    code, printed = call([str(run / "config.yaml"), "--calibrate", str(run)], monkeypatch, capsys)
    assert code == 0
    assert printed.index("fitted") < printed.index("tokens per second")
    step = next(line for line in printed.splitlines() if line.split()[:2] == ["step", "step"])
    assert describe_seconds(seconds) in step


def test_a_run_that_is_faster_than_the_description_names_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ones = change(matrix_products=1, fused_attention=1, memory=1, links=1, overlap=1)
    large = ["model.hidden_size=512", "batch.sequence_length=1024"]
    seconds = 0.7 * compute_step_time(load_run_workload(tmp_path, 2, *large), ones).total
    run = write_finished_run(tmp_path, "a", 2, [seconds], *large)
    code, printed = call(["--calibrate", str(run)], monkeypatch, capsys)
    assert code == 0
    assert (
        f"less than two CPU cores allows: device.float32_teraflops = {CPUS.device.float32_teraflops:.4g} is too low, "
        in printed
    )
    assert "Measure this machine: llmtrain cluster measure; or correct the file." in printed


def test_runs_are_read_and_fitted_without_torch(tmp_path: Path) -> None:
    run = write_finished_run(tmp_path, "a", 2, [0.1, 0.2])
    code = f"""
import sys
sys.argv = ["llmtrain", "plan", "--calibrate", {str(run)!r}, "--json"]
from llmtrain.__main__ import app
app(standalone_mode=False)
assert not {{"torch", "deepspeed", "transformers", "matplotlib"}} & set(sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["left_out"]["over"] == "intervals"


def test_mistakes_are_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    two, one = write_finished_run(tmp_path, "two", 2, [1.0]), write_finished_run(tmp_path, "one", 1, [1.0])
    of_two, of_one = ["--calibrate", str(two)], ["--calibrate", str(one)]
    cases = [
        (["--calibrate", str(tmp_path / "absent")], "no run here, config.yaml is missing"),
        ([*of_two, "--calibrate", f"{two}/../two"], "--calibrate: the same run is given twice. Give each once."),
        (of_one, "no one described cluster has the 1 ranks of these runs. Add --cluster NAME, or measure this"),
        ([*of_two, *of_one], "no one described cluster has the 1, 2 ranks of these runs."),
        ([*of_one, "--cluster", "two_core_cpu"], "made by 1 ranks, two CPU cores has 2 devices: processors share"),
        ([*of_two, "--cluster", "dgx_h100"], "made on processors, by torch 2.13.0+cpu; DGX H100 has GPUs."),
        ([*of_two, "--write", str(tmp_path)], f"--write {tmp_path}: Is a directory. Give a file that can be written"),
        ([*of_two, "--write", "x.yaml", "--search"], "Add one of them, not both."),
        ([str(two / "config.yaml"), *of_two, "--json"], "Leave out one of them."),
        *(
            ([*of_two, *option], f"--calibrate without CONFIG fits the cluster and plans no run; {option[0]} would say")
            for option in (
                ["--search"],
                ["--explain"],
                ["--simulate-failures"],
                ["--world-size", "2"],
                ["--scaling", "x.png"],
                ["--seed", "1"],
                ["-c", "x.yaml"],
            )
        ),
        ([], "plan needs CONFIG, the YAML file of a run, or --calibrate RUN. Add one."),
    ]
    for arguments, message in cases:
        code, printed = call(arguments, monkeypatch, capsys)
        assert code == 2, arguments
        assert message in printed
        assert "Traceback" not in printed


def test_runs_of_other_devices_or_of_several_formats_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gpu.yaml"
    path.write_text(CPU_TO_GPU)
    on_gpu = write_finished_run(tmp_path, "gpu", 2, [1.0], device="cuda")
    on_cpu = write_finished_run(tmp_path, "cpu", 2, [1.0], device="cpu")
    dtypes = [f"precision.{key}_dtype=bfloat16" for key in ("parameter", "compute")]
    half = write_finished_run(tmp_path, "half", 2, [1.0], *dtypes)
    cases = [
        (
            [str(on_gpu)],
            "two_core_cpu",
            "made on devices of kind cuda; two CPU cores has processors. Give a cluster of",
        ),
        (
            [str(on_cpu)],
            str(path),
            "made on processors, by torch 2.13.0+cpu; two CPU cores has GPUs. Give a cluster of",
        ),
        ([str(on_cpu), str(half)], "two_core_cpu", f"number formats ({half} in bfloat16, {on_cpu} in float32): each"),
    ]
    for runs, cluster, message in cases:
        arguments = [argument for run in runs for argument in ("--calibrate", run)]
        code, printed = call([*arguments, "--cluster", cluster], monkeypatch, capsys)
        assert code == 2, runs
        assert message in printed
    for run, cluster in ((on_gpu, str(path)), (on_cpu, "two_core_cpu"), (half, "two_core_cpu")):
        assert call(["--calibrate", str(run), "--cluster", cluster, "--json"], monkeypatch, capsys)[0] == 0


def test_more_ranks_than_a_cluster_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_finished_run(tmp_path, "a", 4, [1.0])
    path = tmp_path / "gpu.yaml"
    path.write_text(CPU_TO_GPU)
    code, printed = call(["--calibrate", str(run), "--cluster", str(path)], monkeypatch, capsys)
    assert code == 2
    assert "made by 4 ranks, two CPU cores has 2 devices: too few. Give a cluster with 4 devices" in printed


CPU_TO_GPU = Path("configs/clusters/two_core_cpu.yaml").read_text().replace("kind: cpu", "kind: gpu")
