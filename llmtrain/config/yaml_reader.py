"""A YAML file -> plain values, each with the line it came from.

Stricter than PyYAML where PyYAML surprises: duplicate keys are refused, `1e-4` is a float, only `true` and `false`
are booleans (`no`, `on`, `12:30` stay strings), tags such as `!!python/object` are refused.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from llmtrain.errors import ConfigError

Origins = dict[tuple[str | int, ...], str]

_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS = {"": None, "~": None, "null": None, "true": True, "false": False}
_PLAIN_TAGS = {
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "map", "seq")
}


def read_yaml(path: Path, what: str = "configuration") -> tuple[dict[str, Any], Origins]:
    """Read one file.

    Args:
        path: of the file.
        what: it holds, for messages.

    Returns:
        The mapping, and for each path of keys `file:line`.

    Raises:
        ConfigError: the file is missing, not YAML, not a mapping, or has a duplicate key.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read the {what}: {error}. Give the path of a YAML file.") from error
    return parse_yaml(text, str(path), what)


def parse_yaml(text: str, name: str, what: str = "configuration") -> tuple[dict[str, Any], Origins]:
    """As `read_yaml`, for text; `name` stands for the file in messages."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{name}: a {what} is a mapping of sections; this file holds none.")
    origins: Origins = {}
    problems: list[str] = []
    value = _convert(node, (), name, origins, problems)
    if problems:
        raise ConfigError("\n".join(problems))
    return value, origins


def parse_scalar(text: str) -> Any:
    """Read the value of a command-line override with the same rules as a file: scalars, `[lists]`, `{mappings}`."""
    if text.lstrip()[:1] in ("[", "{", '"', "'"):
        value, _ = parse_yaml(f"value: {text}", "command line")
        return value["value"]
    return _plain_scalar(text.strip())


def _convert(node: yaml.Node, path: tuple[str | int, ...], name: str, origins: Origins, problems: list[str]) -> Any:
    where = f"{name}:{node.start_mark.line + 1}"
    origins[path] = where
    if node.tag not in _PLAIN_TAGS:
        problems.append(f"{where}: tag '{node.tag}' is not allowed. Write a plain value.")
        return None
    if isinstance(node, yaml.MappingNode):
        return {
            key: _convert(value, (*path, key), name, origins, problems)
            for key, value in _checked_keys(node, path, name, problems)
        }
    if isinstance(node, yaml.SequenceNode):
        return [_convert(item, (*path, i), name, origins, problems) for i, item in enumerate(node.value)]
    is_quoted = isinstance(node, yaml.ScalarNode) and node.style is not None
    return node.value if is_quoted else _plain_scalar(node.value)


def _checked_keys(
    node: yaml.MappingNode, path: tuple[str | int, ...], name: str, problems: list[str]
) -> Iterator[tuple[str, yaml.Node]]:
    lines: dict[str, int] = {}
    for key_node, value_node in node.value:
        key, line = str(key_node.value), key_node.start_mark.line + 1
        dotted = ".".join(map(str, (*path, key)))
        if key in lines:
            problems.append(f"{name}:{line}: key '{dotted}' stands twice, first in line {lines[key]}. Keep one.")
            continue
        lines[key] = line
        yield key, value_node


def _plain_scalar(text: str) -> Any:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text
