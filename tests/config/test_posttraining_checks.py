"""Every contradiction between keys of post-training: its whole message, at the place of the key to change."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from llmtrain.config.loader import load_config, load_stage_config
from llmtrain.config.posttraining_checks import check_posttraining
from llmtrain.errors import ConfigError
from tests.helpers.configs import write_tiny_config

STAGES: dict[str, Any] = {
    "run": {"name": "tiny", "root": "runs", "seed": 7},
    "sft": {"learning_rate": 1e-3, "micro_batch_size": 4, "global_batch_size": 16},
    "reward": {"learning_rate": 1e-3, "micro_batch_size": 4, "global_batch_size": 16},
    "ppo": {"learning_rate": 1e-3, "micro_batch_size": 4, "global_batch_size": 16, "train_steps": 3},
}
SAMPLED = "reward.sampled={label: {file: label.py}}"
CASES = [
    (
        ["sft.micro_batch_size=3"],
        "'sft.micro_batch_size' = 3 does not divide 'sft.global_batch_size' = 16.",
    ),
    (
        ["reward.micro_batch_size=5"],
        "'reward.micro_batch_size' = 5 does not divide 'reward.global_batch_size' = 16.",
    ),
    (["sft.validation_fraction=1"], "'sft.validation_fraction' = 1 leaves nothing to train on."),
    (["reward.validation_fraction=1.0"], "'reward.validation_fraction' = 1 leaves nothing to train on."),
    (["ppo.validation_fraction=1"], "'ppo.validation_fraction' = 1 leaves nothing to train on."),
    (
        ["ppo.rewards={}"],
        "'ppo.rewards' is empty. Name at least one term, or leave the key out for the reward model.",
    ),
    (
        ["ppo.mini_batches=8"],
        "'ppo.mini_batches' = 8 x 'ppo.micro_batch_size' = 4 does not divide 'ppo.global_batch_size' = 16.",
    ),
    (
        ["ppo.num_generations=1", "ppo.algorithm=rloo"],
        "'ppo.num_generations' = 1: 'rloo' compares answers to one prompt. Give 2 or more.",
    ),
    (
        ["ppo.num_generations=3", "ppo.algorithm=rloo"],
        "'ppo.num_generations' = 3 does not divide 'ppo.global_batch_size' = 16.",
    ),
    ([SAMPLED, "sft=null"], "'reward.sampled' draws answers to the prompts of 'sft', and there is no section 'sft'."),
]


def write(folder: Path) -> Path:
    path = folder / "stages.yaml"
    path.write_text(yaml.safe_dump(STAGES))
    return path


@pytest.mark.parametrize(("overrides", "message"), CASES)
def test_a_contradiction_is_told_at_the_place_of_the_key_to_change(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_stage_config([write(tmp_path)], overrides)
    assert str(caught.value) == f"command line: {message}"


def test_a_contradiction_in_a_file_is_told_by_its_line(tmp_path: Path) -> None:
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("ppo:\n  schedule: linear\n  mini_batches: 3\n")
    with pytest.raises(ConfigError) as caught:
        load_stage_config([write(tmp_path), overlay])
    assert str(caught.value) == (
        f"{overlay}:3: 'ppo.mini_batches' = 3 x 'ppo.micro_batch_size' = 4 does not divide 'ppo.global_batch_size' = "
        "16."
    )


def test_a_whole_run_is_checked_alike_and_all_contradictions_are_told_at_once(tmp_path: Path) -> None:
    sections = {name: values for name, values in STAGES.items() if name != "run"}
    base = write_tiny_config(tmp_path, **sections)
    overrides = ["sft.micro_batch_size=3", "ppo.micro_batch_size=5", "ppo.rewards={}", "batch.micro_batch_size=3"]
    with pytest.raises(ConfigError) as caught:
        load_config([base], overrides)
    keys = [line.split(": '")[1].split("'")[0] for line in str(caught.value).splitlines()]
    assert sorted(keys) == [
        "batch.micro_batch_size",
        "ppo.micro_batch_size",
        "ppo.mini_batches",
        "ppo.rewards",
        "sft.micro_batch_size",
    ]


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["ppo.mini_batches=4"],
        # PPO has no groups of answers.
        ["ppo.num_generations=1"],
        ["ppo.num_generations=3"],
        ["ppo.algorithm=rloo", "ppo.num_generations=16"],
        ["sft.validation_fraction=0"],
        [SAMPLED],
        ["sft=null", "reward=null"],
        ["reward=null", "ppo=null"],
    ],
)
def test_what_just_fits_together_is_accepted(overrides: list[str], tmp_path: Path) -> None:
    assert list(check_posttraining(load_stage_config([write(tmp_path)], overrides).config)) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("ppo.kl.coeficient=1", "Did you mean 'ppo.kl.coefficient'?"),
        ("sft.packign=true", "Did you mean 'sft.packing'?"),
        ("ppo.rewards={a: {kind: modle}}", "modle"),
        ("reward.long_examples=cut", "leave_out"),
        ("ppo.generation.top_p=0", "greater than 0"),
        ("ppo.gamma=1.5", "1.5"),
    ],
)
def test_a_wrong_key_or_value_of_post_training_is_told_with_what_is_allowed(
    override: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_stage_config([write(tmp_path)], [override])
    assert str(caught.value).startswith("command line: ")
    assert message in str(caught.value)
