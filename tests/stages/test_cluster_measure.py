"""Commands `cluster`: this machine as a file that `llmtrain plan` takes; lists and shows what there is."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from llmtrain.config.cluster import CLUSTER_FOLDER, ClusterConfig, load_cluster, read_cluster
from llmtrain.plan.collectives import all_reduce_seconds
from llmtrain.process.world import World
from llmtrain.stages import cluster_measure
from llmtrain.stages.cluster_measure import describe_machine, read_speed
from llmtrain.tracking.machine_speed import MachineSpeed, Spread, SumSeconds
from tests.helpers.commands import run_command
from tests.helpers.door import call_door

ROUNDS_OFF = 1e-3  # four digits are written


def spread(median: float) -> Spread:
    return Spread(median, 0.9 * median, 1.2 * median)


SUMS = SumSeconds(ranks=4, bytes=1 << 24, small=spread(6e-4), large=spread(4e-2))
CPU = MachineSpeed(
    device_name="Processor: 9",
    device_type="cpu",
    nodes=1,
    ranks_per_node=4,
    threads=2,
    memory_bytes=1 << 33,
    bfloat16_flops=spread(2e11),
    float32_flops=spread(1e11),
    attention_flops=spread(3e10),
    attention_format="float32",
    memory_bytes_per_second=spread(2e10),
    link=SUMS,
    network=None,
    storage_bytes_per_second=spread(1.5e9),
)
GPU = dataclasses.replace(
    CPU,
    device_type="cuda",
    device_name="GPU",
    attention_format="bfloat16",
    nodes=8,
    network=dataclasses.replace(SUMS, ranks=8),
)
ALONE = dataclasses.replace(CPU, ranks_per_node=1, link=None)


def describe(speed: MachineSpeed, folder: Path) -> tuple[ClusterConfig, str]:
    path = folder / "machine.yaml"
    path.write_text(describe_machine(speed, "llmtrain cluster measure"))
    return read_cluster(path), path.read_text()


def test_a_measured_processor_is_written_with_medians_and_ranges(tmp_path: Path) -> None:
    cluster, text = describe(CPU, tmp_path)
    assert text.startswith("# llmtrain cluster measure\n#\n# Measured by 4 ranks at once, each of 2 threads. ")
    assert (cluster.nodes, cluster.devices_per_node, cluster.device.kind) == (1, 4, "cpu")
    assert cluster.device.name == "2 threads of Processor: 9"
    assert (cluster.device.memory_gib, cluster.device.bfloat16_teraflops) == (8, 0.2)
    assert (cluster.device.float32_teraflops, cluster.device.memory_gb_per_second) == (0.1, 20)
    assert "float32_teraflops: 0.1  # the same; 0.09 to 0.12" in text
    assert (cluster.efficiency.matrix_products, cluster.efficiency.memory, cluster.efficiency.links) == (1, 1, 1)
    assert cluster.efficiency.fused_attention == 0.3
    assert cluster.efficiency.overlap == 0
    assert cluster.reliability.storage_gb_per_second == 1.5
    assert cluster.network == cluster.link
    assert "network:  # not measured: one machine; set to its link" in text
    assert "cost:  # not measured: put your own numbers here" in text


def test_sums_take_as_long_on_the_described_links_as_they_took(tmp_path: Path) -> None:
    for speed, ranks, stride in ((CPU, 4, 1), (GPU, 8, GPU.ranks_per_node)):
        cluster, _ = describe(speed, tmp_path)
        assert all_reduce_seconds(4, ranks, stride, ranks * stride, cluster) == pytest.approx(6e-4, rel=ROUNDS_OFF)
        assert all_reduce_seconds(1 << 24, ranks, stride, ranks * stride, cluster) == pytest.approx(
            4e-2, rel=ROUNDS_OFF
        )


def test_gpus_of_several_machines_have_a_network_and_attention_in_bfloat16(tmp_path: Path) -> None:
    cluster, text = describe(GPU, tmp_path)
    assert (cluster.nodes, cluster.device.kind, cluster.device.name) == (8, "gpu", "GPU")
    assert cluster.efficiency.fused_attention == 0.15
    assert cluster.efficiency.overlap == 0.43
    assert "overlap: 0.43  # not measured: that of A100s" in text
    assert "network:  # sums over 8 ranks, nccl" in text
    assert cluster.network.latency_microseconds < cluster.link.latency_microseconds  # a tree has fewer hops than a ring


def test_one_rank_has_no_links_to_measure(tmp_path: Path) -> None:
    cluster, text = describe(ALONE, tmp_path)
    assert cluster.link.gb_per_second == cluster.device.memory_gb_per_second
    assert "link:  # not measured: one rank; set to its memory" in text
    assert "# Measured by 2 threads. " in text


@pytest.mark.parametrize("speed", [CPU, GPU, ALONE])
def test_figures_travel_between_processes_as_json(speed: MachineSpeed) -> None:
    assert read_speed(json.loads(json.dumps(dataclasses.asdict(speed)))) == speed


def test_this_machine_is_measured_and_a_run_is_planned_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run_command(tmp_path, "cluster", "measure", "--nproc", "2", "--output", "mine.yaml")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "mine.yaml\n"
    path = tmp_path / "mine.yaml"
    assert path.read_text().startswith("# llmtrain cluster measure --nproc 2 --output mine.yaml\n")
    cluster = load_cluster(str(path))
    assert (cluster.nodes, cluster.devices_per_node) == (1, 2)
    code, printed = call_door(
        ["plan", "configs/quickstart.yaml", "--cluster", str(path), "--json"], monkeypatch, capsys
    )
    assert code == 0
    planned = json.loads(printed)
    assert planned["layout"]["world_size"] == 2
    assert planned["step"]["data_communication_seconds"] > 0


def test_ranks_of_a_launcher_measure_and_the_first_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_measure, "measure_as_rank", lambda world, folder: GPU)
    path = tmp_path / "mine.yaml"
    assert not cluster_measure.measure_cluster(World(1, 32, 1, 4), 1, path, tmp_path, None)
    assert not path.exists()
    assert cluster_measure.measure_cluster(World(0, 32, 0, 4), 1, path, tmp_path, "our GPUs")
    command = (
        f"# torchrun --nnodes 8 --nproc-per-node 4 -m llmtrain cluster measure --name 'our GPUs' --output {path}\n"
    )
    assert path.read_text().startswith(command)
    assert load_cluster(str(path)).name == "our GPUs"


def test_ranks_that_fail_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cluster_measure, "run_ranks_here", lambda arguments, num_ranks, log_folder: 3)
    arguments = ["cluster", "measure", "--nproc", "2", "--output", str(tmp_path / "x.yaml")]
    code, printed = call_door(arguments, monkeypatch, capsys)
    assert (code, "cluster measure: 2 ranks ended with code 3, see above." in printed) == (3, True)


def test_a_folder_for_storage_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = call_door(["cluster", "measure", "--folder", str(tmp_path / "absent")], monkeypatch, capsys)
    assert code == 2
    assert f"--folder {tmp_path / 'absent'}: no such folder. Give the one that checkpoints would go to." in printed


def test_described_clusters_are_listed_and_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, printed = call_door(["cluster", "list"], monkeypatch, capsys)
    assert code == 0
    assert "dgx_h100       512 x 8 H100 SXM 80GB" in printed.splitlines()
    code, printed = call_door(["cluster", "show", "dgx_h100"], monkeypatch, capsys)
    assert (code, printed) == (0, (CLUSTER_FOLDER / "dgx_h100.yaml").read_text())
    code, printed = call_door(["cluster", "show", "dgx_h10"], monkeypatch, capsys)
    assert code == 2
    assert "command line: cluster show dgx_h10: " in printed
    assert "Did you mean 'dgx_h100'?" in printed
    assert "--cluster" not in printed


def test_a_cluster_with_mistakes_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"name": "mine"}))
    code, printed = call_door(["cluster", "show", str(path)], monkeypatch, capsys)
    assert code == 2
    assert "'nodes' is missing" in printed
