"""All steps together: they survive any text, depend on nothing but it, and keep good text."""

import importlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from data_pipelines.account import Account
from data_pipelines.cleaning.mend import mend
from data_pipelines.cleaning.steps import Step, build_steps, describe_step
from data_pipelines.cleaning.subject import Subject
from data_pipelines.sources.unit import Unit, expand_path
from data_pipelines.sources.wikipedia import read_dump
from llmtrain.config.cleaning import StepConfig
from llmtrain.config.loader import load_config
from llmtrain.errors import ConfigError
from tests.helpers.texts import stdlib_texts

NAMES = (
    "bounds",
    "repair_unicode",
    "identify_language",
    "gopher_quality",
    "gopher_repetition",
    "c4_quality",
    "fineweb_quality",
    "code_quality",
    "mask_personal_data",
)
ADAPTER: TypeAdapter[list[StepConfig]] = TypeAdapter(list[StepConfig])
STEPS = build_steps(ADAPTER.validate_python([{"name": name} for name in NAMES]))
RECOMMENDED: dict[str, Any] = yaml.safe_load(
    re.findall(r"```yaml\n(.*?)```", Path("docs/cleaning.md").read_text(), re.DOTALL)[0]
)["corpus"]["steps"]


def apply(steps: list[tuple[str, Step]], text: str) -> tuple[str | None, str]:
    """The reason for which a text is dropped, or None; and the text as it then is."""
    subject = Subject(mend(text))
    for _, step in steps:
        reason = step(subject)
        if reason is not None:
            return reason, subject.text
    return None, subject.text


WORDS = st.sampled_from(
    ["the", "and", "\u4e2d\u6587", "caf\u00c3\u00a9", "{", "#", "...", "- ", "\n", "\n\n", "1.2.3.4"]
)
ANY_TEXT = st.one_of(st.text(), st.lists(st.one_of(WORDS, st.text(max_size=5))).map(" ".join))


@settings(max_examples=150, deadline=None)
@given(ANY_TEXT)
def test_every_step_survives_any_text_and_depends_on_nothing_else(text: str) -> None:
    for name, step in STEPS:
        first, second = Subject(mend(text)), Subject(mend(text))
        reason = step(first)
        assert reason is None or re.fullmatch(rf"({name}: )?[a-z0-9_]+", reason)
        assert (reason, first.text, first.language) == (step(second), second.text, second.language)


@settings(max_examples=50, deadline=None)
@given(ANY_TEXT)
def test_steps_leave_text_that_can_be_written(text: str) -> None:
    for _, step in STEPS:
        subject = Subject(mend(text))
        if step(subject) is None:
            assert subject.text.encode().decode() == subject.text


@pytest.fixture(scope="module")
def good_texts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Texts that a person would keep: articles, news, chapters of Python's documentation, its library's source."""
    name = "package:gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
    unit = Unit("wikipedia", "", (str(expand_path(name)[0]),), "CC-BY-SA-3.0")
    news = expand_path("package:gensim/test/test_data/lee_background.cor")[0].read_text(encoding="utf-8")
    topics = importlib.import_module("pydoc_data.topics").topics
    return {
        "articles": [document.text for document in read_dump(unit, Account())],
        "news": [line for line in news.splitlines() if len(line.split()) >= 50],
        "documentation": [text for text in topics.values() if len(text.split()) >= 150],
        "code": list(stdlib_texts()),
    }


# Shares that the recommended lists keep at least; docs/cleaning.md tells which rules drop the rest.
KEPT = {"articles": 0.84, "news": 0.98, "documentation": 0.7, "code": 1.0}


@pytest.mark.parametrize("kind", KEPT)
def test_recommended_steps_keep_good_text(kind: str, good_texts: dict[str, list[str]]) -> None:
    steps = build_steps(ADAPTER.validate_python(RECOMMENDED["code" if kind == "code" else "prose"]))
    reasons = Counter(apply(steps, text)[0] for text in good_texts[kind])
    assert len(good_texts[kind]) >= 10
    assert reasons[None] >= KEPT[kind] * len(good_texts[kind]), reasons


def test_the_page_about_cleaning_names_every_step_and_every_key() -> None:
    page = Path("docs/cleaning.md").read_text()
    configs = [type(config) for config in ADAPTER.validate_python([{"name": name} for name in NAMES])]
    keys = [f"`{key}`" for config in configs for key in config.model_fields if key != "name"]
    assert [key for key in (*keys, *(f"`{name}`" for name in NAMES), "`decontaminate`") if key not in page] == []


def test_a_step_is_described_by_all_its_settings() -> None:
    (config,) = ADAPTER.validate_python([{"name": "fineweb_quality", "short_line_characters": 20}])
    assert describe_step(config) == config.model_dump()
    assert describe_step(config)["short_line_characters"] == 20


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("{name: gopher_qualty}", r"Did you mean 'gopher_quality'\?"),
        (
            "{name: fineweb_quality, short_line_character: 20}",
            r"Did you mean 'corpus\.steps\.prose\.0\.short_line_characters'",
        ),
        ("{name: gopher_repetition, max_top_ngram_character_fractions: [0.2]}", r"it must have at least 3 items"),
        ("{name: decontaminate}", r"'corpus\.steps\.prose\.0\.against' is missing\. Set it \(files or globs of"),
    ],
)
def test_a_mistake_in_a_step_is_explained(tmp_path: Path, step: str, message: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"corpus:\n  steps:\n    prose: [{step}]\n")
    with pytest.raises(ConfigError, match=message):
        load_config([path], [])
