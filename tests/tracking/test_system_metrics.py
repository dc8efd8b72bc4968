from pathlib import Path

from llmtrain.tracking.run_folder import read_lines
from llmtrain.tracking.system_metrics import SystemSampler, measure_system, parse_gpus


def test_every_number_is_named_for_the_system_tab_and_finite() -> None:
    metrics = measure_system()
    assert all(name.startswith("system/") and name.count("/") == 1 for name in metrics)
    assert 0 <= metrics["system/memory_utilization_percentage"] <= 100
    assert metrics["system/disk_free_gib"] > 0


def test_sampling_continues_after_a_torn_line(tmp_path: Path) -> None:
    SystemSampler(tmp_path, 1000).sample_if_due()
    with (tmp_path / "system.jsonl").open("a") as file:
        file.write('{"step": 1, "ti')
    sampler = SystemSampler(tmp_path, 1000)
    sampler.sample_if_due()
    sampler.sample_if_due()
    assert [line["step"] for line in read_lines(tmp_path / "system.jsonl")] == [0, 1]


def test_the_driver_tool_s_lines_become_metrics_of_each_gpu() -> None:
    metrics = parse_gpus("97, 70123, 612.34, 55\n0, 4, [N/A], 31\n")
    assert metrics["system/gpu_0_utilization_percentage"] == 97
    assert metrics["system/gpu_0_power_watts"] == 612.34
    assert metrics["system/gpu_1_temperature_celsius"] == 31
    assert "system/gpu_1_power_watts" not in metrics
    assert parse_gpus("No devices were found\n") == {}
