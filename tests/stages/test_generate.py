from pathlib import Path

import pytest

from llmtrain.errors import ConfigError
from llmtrain.stages.generate import generate_texts


def draw(run_folder: Path, prompts: list[str], seed: int = 0, tokens: int = 10) -> list[str]:
    return generate_texts(run_folder, prompts, tokens, 1.0, 50, seed, None)


def test_each_prompt_comes_back_with_its_continuation(run_folder: Path) -> None:
    texts = draw(run_folder, ["def f", "import ", ""])
    assert [text.startswith(prompt) for text, prompt in zip(texts, ["def f", "import ", ""], strict=True)] == [True] * 3
    assert all(len(text) > len(prompt) for text, prompt in zip(texts, ["def f", "import ", ""], strict=True))


def test_the_seed_decides_and_a_prompt_does_not_depend_on_those_before_it(run_folder: Path) -> None:
    assert draw(run_folder, ["def ", "class "]) == draw(run_folder, ["def ", "class "])
    assert draw(run_folder, ["def "]) != draw(run_folder, ["def "], seed=1)
    assert draw(run_folder, ["x", "class "])[1] == draw(run_folder, ["def ", "class "])[1]


def test_without_temperature_the_seed_does_not_matter(run_folder: Path) -> None:
    texts = [generate_texts(run_folder, ["def "], 6, 0.0, None, seed, None) for seed in (0, 1)]
    assert texts[0] == texts[1]


def test_the_step_decides_which_weights_are_used(run_folder: Path) -> None:
    texts = {step: generate_texts(run_folder, ["def "] * 4, 14, 1.0, None, 0, step) for step in (5, 10, None)}
    assert texts[10] == texts[None] != texts[5]


def test_generation_needs_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no run here"):
        draw(tmp_path, ["def "])
