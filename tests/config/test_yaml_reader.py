from pathlib import Path

import pytest

from llmtrain.config.yaml_reader import parse_scalar, parse_yaml, read_yaml
from llmtrain.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5e8", 5e8),
        ("10_000", 10_000),
        ("-3", -3),
        ("0.5", 0.5),
        (".5", 0.5),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("1.10", 1.1),
        ("null", None),
        ("~", None),
        ("'1'", "1"),
        ("[1, a]", [1, "a"]),
        ("{a: 1e-3}", {"a": 1e-3}),
        ("0x10", "0x10"),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: object) -> None:
    assert parse_scalar(text) == value
    assert parse_yaml(f"key: {text}", "x.yaml")[0]["key"] == value
    assert type(parse_scalar(text)) is type(value)


def test_each_value_remembers_its_line() -> None:
    _, origins = parse_yaml("a:\n  b: 1\n  c: [2,\n 3]\n", "x.yaml")
    assert origins[("a", "b")] == "x.yaml:2"
    assert origins[("a", "c", 1)] == "x.yaml:4"


def test_duplicate_keys_are_all_refused_with_both_lines() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_yaml("a: 1\nb: {c: 1, c: 2}\na: 2\n", "x.yaml")
    assert "x.yaml:3: key 'a' stands twice, first in line 1" in str(caught.value)
    assert "x.yaml:2: key 'b.c' stands twice" in str(caught.value)


@pytest.mark.parametrize("text", ["a: !!python/object/apply:os.system ['true']", "a: !custom 1", "a: !!binary aGk="])
def test_tags_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"tag .* is not allowed"):
        parse_yaml(text + "\n", "x.yaml")


@pytest.mark.parametrize("text", ["", "- 1\n", "just text\n"])
def test_a_file_that_is_no_mapping_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="mapping of sections"):
        parse_yaml(text, "x.yaml")


def test_broken_yaml_names_the_place() -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml: not valid YAML: .*line 3"):
        parse_yaml("a: 1\nb: [1,\n", "x.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        read_yaml(tmp_path / "absent.yaml")
