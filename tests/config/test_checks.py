"""Every contradiction between keys: its whole message, at the place of the key to change."""

from pathlib import Path

import pytest

from llmtrain.config.checks import divisors
from llmtrain.config.loader import load_config
from llmtrain.errors import ConfigError
from tests.helpers.configs import write_tiny_config

BFLOAT16 = ["precision.parameter_dtype=bfloat16", "precision.compute_dtype=bfloat16"]
CODE = ["corpus.sources.code.kind=code", "corpus.sources.code.paths=[x]"]
# Overrides; which of them is to blame, or the section of the base file that is; the message.
CASES = [
    (
        ["training.train_tokens=100"],
        "training",
        "'training.train_steps' = 10 and 'training.train_tokens' = 100: set exactly one of them.",
    ),
    (
        ["training.train_steps=null"],
        "training",
        "'training.train_steps' = None and 'training.train_tokens' = None: set exactly one of them.",
    ),
    (
        ["batch.micro_batch_size=3"],
        0,
        "'batch.micro_batch_size' = 3 does not divide 'batch.global_batch_size' = 8. Choose 1, 2, 4 or 8.",
    ),
    (
        ["model.num_key_value_heads=null", "model.num_attention_heads=3"],
        1,
        "'model.num_attention_heads' = 3 does not divide 'model.hidden_size' = 32. Choose 1, 2, 4, 8, 16 or 32.",
    ),
    (
        ["model.num_attention_heads=32"],
        0,
        "'model.hidden_size' / 'model.num_attention_heads' = 1 is odd; rotary positions turn pairs of dimensions. "
        "Choose sizes with an even quotient.",
    ),
    (
        ["model.num_key_value_heads=3"],
        0,
        "'model.num_key_value_heads' = 3 does not divide 'model.num_attention_heads' = 4. Choose 1, 2 or 4.",
    ),
    (
        ["schedule.min_learning_rate=1.0"],
        0,
        "'schedule.min_learning_rate' = 1.0 is above 'optimizer.learning_rate' = 0.01. Choose a smaller one.",
    ),
    (
        ["schedule.decay_steps=6", "schedule.warmup_steps=5"],
        1,
        "'schedule.warmup_steps' = 5 and decay_steps = 6 exceed 'training.train_steps' = 10. Make their sum at "
        "most 10.",
    ),
    (
        ["precision.parameter_dtype=bfloat16"],
        0,
        "'precision.parameter_dtype' = 'bfloat16' with 'precision.compute_dtype' = 'float32': weights cannot be "
        "coarser than the arithmetic. Set both to bfloat16, or parameter_dtype to float32.",
    ),
    (
        [*BFLOAT16, "parallel.zero_stage=0"],
        0,
        "'precision.parameter_dtype' = 'bfloat16' needs float32 master weights, which ZeRO keeps: set "
        "'parallel.zero_stage' to 1, 2 or 3, or 'precision.parameter_dtype' to 'float32'.",
    ),
    (
        ["parallel.tensor_parallel_size=8", "parallel.sequence_parallel=false"],
        0,
        "'parallel.tensor_parallel_size' = 8 does not divide 'model.num_attention_heads' = 4. Choose 1, 2 or 4.",
    ),
    (
        ["parallel.tensor_parallel_size=4", "model.intermediate_size=66"],
        0,
        "'parallel.tensor_parallel_size' = 4 does not divide 'model.intermediate_size' = 66. Choose 1, 2, 3, 6, 11, "
        "22, 33 or 66.",
    ),
    (
        ["parallel.tensor_parallel_size=4", "batch.sequence_length=18"],
        0,
        "'parallel.tensor_parallel_size' = 4 does not divide 'batch.sequence_length' = 18. Choose 1, 2, 3, 6, 9 or 18.",
    ),
    (
        [
            "parallel.tensor_parallel_size=2",
            "model.hidden_size=36",
            "model.num_attention_heads=6",
            "model.num_key_value_heads=3",
        ],
        0,
        "'parallel.tensor_parallel_size' = 2 neither divides 'model.num_key_value_heads' = 3 nor is a multiple of it. "
        "Choose 1 or 3, or a multiple of 3.",
    ),
    (
        ["parallel.offload_optimizer=true", "parallel.zero_stage=0"],
        0,
        "'parallel.offload_optimizer' = true with 'parallel.zero_stage' = 0: there are no master weights to move. Set "
        "'parallel.zero_stage' to 1, 2 or 3.",
    ),
    (
        ["parallel.hierarchical_partition_size=2"],
        0,
        "'parallel.hierarchical_partition_size' = 2 with 'parallel.zero_stage' = 1: every rank holds whole weights "
        "already. Leave it out, or set 'parallel.zero_stage' to 3.",
    ),
    (
        ["parallel.hierarchical_partition_size=2", "parallel.zero_stage=3", "parallel.tensor_parallel_size=2"],
        0,
        "'parallel.hierarchical_partition_size' = 2 with 'parallel.tensor_parallel_size' = 2: DeepSpeed groups "
        "neighbouring ranks, and these hold different parts of each weight. Leave it out, or set "
        "'parallel.tensor_parallel_size' to 1.",
    ),
    (
        ["parallel.zero_stage=3", "parallel.pipeline_parallel_size=2"],
        0,
        "'parallel.zero_stage' = 3 with 'parallel.pipeline_parallel_size' = 2: DeepSpeed shares gradients and weights "
        "only where each rank holds all layers. Set 'parallel.zero_stage' to 1, or use tensor parallelism instead of "
        "the pipeline.",
    ),
    (
        ["data.sources={a: {weight: 1}, b: {}}"],
        0,
        "'data.sources' gives weights to a but not to b. Give one to each, or to none.",
    ),
    (
        ["data.stages=[{weights: {a: 1}}]"],
        0,
        "'data.stages.0' has from_step = None and from_fraction = None: set exactly one of them.",
    ),
    (
        ["data.stages=[{from_step: 1, weights: {a: 0}}]"],
        0,
        "'data.stages.0.weights' are all 0. Give at least one source a positive weight.",
    ),
    (
        ["data.stages=[{from_step: 1, weights: {b: 1}}]", "data.sources={a: {weight: 1}}"],
        0,
        "'data.stages.0.weights' names b, which 'data.sources' does not. Known: a. A source that is read in a "
        "stage only has weight 0 there.",
    ),
    (
        ["data.reset_position_ids=true"],
        0,
        "'data.reset_position_ids' = true without 'data.mask_across_documents': two tokens of different documents "
        "would share a position and see each other. Set both, or neither.",
    ),
    (
        ["data.sources={web: {}, code: {}}", *CODE],
        0,
        "'data.sources' names web, which 'corpus.sources' does not. Known: code.",
    ),
    (
        ["corpus.sources={code: {kind: code, paths: ['stdlib:'], steps: odd}}"],
        0,
        "'corpus.sources.code.steps' = 'odd' is no list of 'corpus.steps'. There are: code, prose.",
    ),
    (
        [*CODE, "corpus.tokenizer.accelerator=gigatoken", "corpus.tokenizer.algorithm=unigram"],
        2,
        "'corpus.tokenizer.accelerator' = 'gigatoken' reads no tokenizer of 'corpus.tokenizer.algorithm' = 'unigram'. "
        "Set it to null, or the algorithm to bpe.",
    ),
    (
        ["model.vocab_size=500", *CODE],
        0,
        "'model.vocab_size' = 500 differs from 'corpus.tokenizer.vocab_size' = 32768. Leave it out, or set both to the "
        "same number.",
    ),
]


def write_overlay(folder: Path, index: int, override: str) -> Path:
    """One override as a file, with its last key in the last line."""
    keys, value = override.split("=", 1)
    lines = [f"{'  ' * depth}{key}:" for depth, key in enumerate(keys.split("."))]
    path = folder / f"overlay{index}.yaml"
    path.write_text("\n".join(lines) + f" {value}\n")
    return path


@pytest.mark.parametrize(("overrides", "blamed", "message"), CASES)
def test_a_contradiction_is_told_at_the_place_of_the_key_to_change(
    overrides: list[str], blamed: int | str, message: str, tmp_path: Path
) -> None:
    base = write_tiny_config(tmp_path)
    overlays = [write_overlay(tmp_path, index, override) for index, override in enumerate(overrides)]
    if isinstance(blamed, str):
        in_files = on_command_line = f"{base}:{base.read_text().splitlines().index(f'{blamed}:') + 2}"
    else:
        depth = overrides[blamed].split("=")[0].count(".") + 1
        in_files, on_command_line = f"{overlays[blamed]}:{depth}", "command line"
    with pytest.raises(ConfigError) as caught:
        load_config([base, *overlays])
    assert str(caught.value) == f"{in_files}: {message}"
    with pytest.raises(ConfigError) as caught:
        load_config([base], overrides)
    assert str(caught.value) == f"{on_command_line}: {message}"


def test_all_contradictions_are_told_at_once(tmp_path: Path) -> None:
    overrides = ["training.train_tokens=1", "batch.micro_batch_size=3", "schedule.min_learning_rate=1"]
    overrides += ["parallel.tensor_parallel_size=8", "parallel.pipeline_parallel_size=2", "parallel.zero_stage=2"]
    with pytest.raises(ConfigError) as caught:
        load_config([write_tiny_config(tmp_path)], overrides)
    keys = [line.split(": '")[1].split("'")[0] for line in str(caught.value).splitlines()]
    assert keys == [
        "training.train_steps",
        "batch.micro_batch_size",
        "schedule.min_learning_rate",
        "parallel.tensor_parallel_size",
        "parallel.zero_stage",
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        ["schedule.warmup_steps=4", "schedule.decay_steps=6"],
        ["schedule.min_learning_rate=1e-2"],
        ["model.num_attention_heads=16", "model.num_key_value_heads=16"],
        ["training.train_steps=null", "training.train_tokens=1"],
        ["data.sources={a: {weight: 1}, b: {weight: 0}}"],
        ["data.sources={a: {max_epochs: 1}, b: {}}"],
        ["data.reset_position_ids=true", "data.mask_across_documents=true"],
        ["parallel.zero_stage=0", "precision.compute_dtype=bfloat16"],
        [*BFLOAT16, "parallel.zero_stage=3"],
        [*CODE, "data.sources={code: {}}", "model.vocab_size=32768"],
        ["schedule={name: constant}"],
    ],
)
def test_what_just_fits_together_is_accepted(overrides: list[str], tmp_path: Path) -> None:
    loaded = load_config([write_tiny_config(tmp_path)], overrides)
    assert set(loaded.origins.values()) >= {"command line"}


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (1, "1"),
        (7, "1 or 7"),
        (12, "1, 2, 3, 4, 6 or 12"),
        (128, "1, 2, 4, 8, 16, 32, 64 or 128"),
        (1024, "1, 2, 4, 8, ..., 256, 512 or 1024"),
    ],
)
def test_divisors_read_as_a_choice(number: int, text: str) -> None:
    assert divisors(number) == text
