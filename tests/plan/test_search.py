"""The search proposes runs, ranks them, and stays small and quick."""

import subprocess
import sys
from pathlib import Path

import pytest

from llmtrain.config.cluster import load_cluster
from llmtrain.config.loader import load_config
from llmtrain.errors import ConfigError
from llmtrain.plan.build import build_plan
from llmtrain.plan.estimate import build_estimate
from llmtrain.plan.search import apply_overlay, keep_runnable, list_workloads, search_layouts

MAX_SECONDS, MAX_MEGABYTES = 10.0, 500.0
RUNS = {"gpt3_175b": 4096, "gpt3_13b": 64, "llama_70b": 512, "llama_8b": 24, "gpt3_1.3b": 8}
H100 = load_cluster("dgx_h100")


@pytest.mark.parametrize("name", RUNS)
def test_every_proposal_is_a_run_whose_estimate_is_the_one_ranked(name: str) -> None:
    config, world_size = load_config([Path(f"configs/pretrain/{name}.yaml")]).config, RUNS[name]
    result = search_layouts(config, world_size, H100, 50_257)
    assert result.proposals
    assert result.tried == len(result.proposals) + result.too_large
    for found in result.proposals:
        proposed = apply_overlay(config, found.overlay)
        plan = build_plan(proposed, world_size, proposed.model.vocab_size or 0)
        estimate = build_estimate(proposed, plan, H100)
        assert estimate.work == found.work
        assert estimate.step == found.step
        assert estimate.worst.total == pytest.approx(found.memory.total)
        assert estimate.verdict == found.verdict != "does not fit"
    order = [(found.verdict == "tight", found.step.total) for found in result.proposals]
    assert order == sorted(order)


def test_a_configured_dualpipev_is_tried_beside_1f1b_and_the_overlay_names_which() -> None:
    overrides = ["parallel.pipeline_schedule=dualpipev"]
    config = load_config([Path("configs/pretrain/gpt3_175b.yaml")], overrides).config
    result = search_layouts(config, 1024, H100, 50_257)
    configured = build_estimate(config, build_plan(config, 1024, 50_257), H100)
    assert configured.work in [found.work for found in result.proposals]
    assert result.proposals[0].step.total <= configured.step.total
    for two_way in (True, False):
        found = next(found for found in result.proposals if found.work.is_two_way == two_way)
        assert found.overlay["parallel"]["pipeline_schedule"] == ("dualpipev" if two_way else "1f1b")
        proposed = apply_overlay(config, found.overlay)
        assert build_estimate(proposed, build_plan(proposed, 1024, 50_257), H100).step == found.step


def test_a_pipeline_without_blocks_or_micro_batches_for_dualpipev_keeps_to_1f1b() -> None:
    overrides = ["parallel.pipeline_schedule=dualpipev"]
    config = load_config([Path("configs/pretrain/gpt3_175b.yaml")], overrides).config
    works = list(list_workloads(config, 1024, H100, 50_257))
    assert any(work.is_two_way for work in works)
    for work in works:
        if work.is_two_way:
            assert 2 * work.pipeline_parallel_size <= min(work.shape.num_layers, work.gradient_accumulation_steps)
    assert any(2 * work.pipeline_parallel_size > work.shape.num_layers for work in works)


def test_proposals_behind_the_first_say_why() -> None:
    config = load_config([Path("configs/pretrain/gpt3_13b.yaml")]).config
    best, *others = search_layouts(config, 64, H100, 50_257).proposals
    for found in others:
        told = found.explain_loss_to(best)
        assert told == "the same" or "slower: " in told or (found.verdict == "tight" and "faster" in told)


def test_tight_layouts_come_last_and_are_all_there_is_only_where_nothing_fits() -> None:
    device = H100.device.model_copy(update={"memory_gib": 200.0})
    cluster = H100.model_copy(update={"device": device})
    config = load_config([Path("configs/pretrain/llama_70b.yaml")]).config
    result = search_layouts(config, 8, cluster, 128_256)
    assert result.proposals
    assert {found.verdict for found in result.proposals} == {"tight"}
    assert result.smallest is not None
    assert result.smallest.memory.total == min(found.memory.total for found in result.proposals)
    fitting = search_layouts(load_config([Path("configs/pretrain/gpt3_13b.yaml")]).config, 64, H100, 50_257)
    verdicts = [found.verdict for found in fitting.proposals]
    assert verdicts == sorted(verdicts)
    assert set(verdicts) == {"fits", "tight"}


def test_only_as_many_are_kept_as_wanted() -> None:
    config = load_config([Path("configs/pretrain/gpt3_13b.yaml")]).config
    result = search_layouts(config, 64, H100, 50_257)
    assert keep_runnable(result.proposals, config, 64, 50_257, 3) == list(result.proposals[:3])


def test_a_configuration_that_runs_nowhere_is_refused_with_its_own_reason() -> None:
    config = load_config([Path("configs/pretrain/llama_8b.yaml")], ["training.train_tokens=100000000"]).config
    result = search_layouts(config, 16, H100, 128_256)
    assert result.proposals
    with pytest.raises(
        ConfigError, match=r"schedule.warmup_steps = .* exceed the \d+ steps that training.train_tokens"
    ):
        keep_runnable(result.proposals, config, 16, 128_256, 10)
    assert keep_runnable([], config, 16, 128_256, 10) == []


def test_175_billion_parameters_on_4096_devices_take_one_core_few_seconds_and_little_memory() -> None:
    code = """
import re, sys, time
from pathlib import Path
started = time.process_time()
sys.argv = ["llmtrain", "plan", "configs/pretrain/gpt3_175b.yaml", "--cluster", "dgx_a100_80gb", "--world-size", "4096",
            "--search"]
from llmtrain.__main__ import app
app(standalone_mode=False)
assert "torch" not in sys.modules and "numpy" not in sys.modules
# Not ru_maxrss: a child inherits that of its parent.
kilobytes = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
print(time.process_time() - started, kilobytes / 1024, file=sys.stderr)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    seconds, megabytes = map(float, result.stderr.split())
    assert seconds < MAX_SECONDS
    assert megabytes < MAX_MEGABYTES
    assert "the best" in result.stdout


def test_a_model_that_no_device_holds_whole_is_not_proposed_with_zero_3_alone() -> None:
    # Under ZeRO-3 each rank starts from all of its weights in float32, and shares them out then.
    config = load_config([Path("configs/pretrain/llama_70b.yaml")]).config
    result = search_layouts(config, 2048, H100, 128_256)
    assert result.proposals
    for found in result.proposals:
        work = found.work
        assert (
            4 * work.shape.num_parameters / work.tensor_parallel_size / work.pipeline_parallel_size
            < H100.device.memory_gib * 2**30
        )


def test_no_tensor_parallel_group_lies_on_two_machines() -> None:
    config = load_config(
        [Path("configs/pretrain/gpt3_175b.yaml")], ["parallel.sequence_parallel=false"]
    ).config  # 96 heads
    sizes = {
        ranks: {work.tensor_parallel_size for work in list_workloads(config, ranks, H100, 50_257)} for ranks in (6, 48)
    }
    assert sizes == {6: {1, 2, 3, 6}, 48: {1, 2, 4, 8}}
