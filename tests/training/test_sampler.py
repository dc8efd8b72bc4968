from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from llmtrain.config.training import SamplingConfig
from llmtrain.parallel.engine import Engine
from llmtrain.parallel.layout import build_layout
from llmtrain.parallel.start import prepare_deepspeed
from llmtrain.plan.build import build_plan
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from llmtrain.training.sampler import sample_texts
from tests.helpers.configs import load_tiny_config
from tests.helpers.ranks import run_ranks

SAMPLING = SamplingConfig(prompts=["def ", "import os\n"], max_new_tokens=8, temperature=1.0)
Samples = list[tuple[str, str]]


def sample_under(folder: Path, tokenizer_folder: Path, zero_stage: int) -> dict[str, Samples]:
    """Samples of a fresh model on this rank."""
    config = load_tiny_config(folder, f"parallel.zero_stage={zero_stage}")
    tokenizer = Tokenizer.load(tokenizer_folder)
    plan = build_plan(config, dist.get_world_size(), tokenizer.vocab_size)
    engine = Engine(config, plan, build_layout(plan, dist.get_rank()), torch.device("cpu"), 1)
    engine.deepspeed.train()
    samples = {
        "seed 1": sample_texts(engine, tokenizer, SAMPLING, 1),
        "seed 1 again": sample_texts(engine, tokenizer, SAMPLING, 1),
        "seed 5": sample_texts(engine, tokenizer, SAMPLING, 5),
        "alone": sample_texts(engine, tokenizer, SAMPLING.model_copy(update={"prompts": ["def "]}), 1),
        "greedy": sample_texts(engine, tokenizer, SAMPLING.model_copy(update={"temperature": 0.0}), 1),
        "greedy 5": sample_texts(engine, tokenizer, SAMPLING.model_copy(update={"temperature": 0.0}), 5),
        "none": sample_texts(engine, tokenizer, SAMPLING.model_copy(update={"prompts": []}), 1),
    }
    assert not engine.module.training
    return samples


def sample_on_rank(folder: Path, tokenizer_folder: Path) -> list[dict[str, Samples]]:
    prepare_deepspeed(torch.device("cpu"))
    return [sample_under(folder, tokenizer_folder, stage) for stage in (0, 3)]


@pytest.fixture(scope="module")
def ranks(project: Path, tmp_path_factory: pytest.TempPathFactory) -> list[list[dict[str, Samples]]]:
    folder = tmp_path_factory.mktemp("samples")
    return run_ranks(2, sample_on_rank, folder, project / "data" / "tiny" / "tokenizer")


def test_all_ranks_and_zero_stages_draw_the_same_text(ranks: list[list[dict[str, Samples]]]) -> None:
    expected = ranks[0][0]
    assert all(samples == expected for stages in ranks for samples in stages)


def test_each_prompt_has_its_continuation_and_the_seed_decides(ranks: list[list[dict[str, Samples]]]) -> None:
    samples = ranks[0][0]
    assert [prompt for prompt, _ in samples["seed 1"]] == SAMPLING.prompts
    assert all(text for _, text in samples["seed 1"])
    assert samples["seed 1"] == samples["seed 1 again"] != samples["seed 5"]
    assert samples["alone"] == samples["seed 1"][:1]
    assert samples["greedy"] == samples["greedy 5"] != samples["seed 1"]
    assert samples["none"] == []
