"""A described cluster as a commented YAML file.

In: `ClusterConfig` and comments. Out: text that `read_cluster` reads.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from llmtrain.config.cluster import ClusterConfig
from llmtrain.errors import ConfigError

_DIGITS = 4


def render_cluster(cluster: ClusterConfig, head: Sequence[str], notes: Mapping[str, str]) -> str:
    """Every key of a cluster, numbers to four digits.

    Args:
        cluster: what is written.
        head: comment lines at the top; the first is the command that makes the file.
        notes: comments behind keys, by path, e.g. `link.gb_per_second`.
    """
    values = cluster.model_dump(mode="json")
    return "\n".join([*(f"# {line}".rstrip() for line in head), *_list_lines(values, notes, ()), ""])


def write_cluster(text: str, path: Path, option: str) -> None:
    """Write a rendered cluster.

    Args:
        text: the file.
        path: where.
        option: of the command line that named it.

    Raises:
        ConfigError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"command line: {option} {path}: {error.strerror}. Give a file that can be written."
        ) from error


def _list_lines(values: Mapping[str, Any], notes: Mapping[str, str], path: tuple[str, ...]) -> Iterator[str]:
    for key, value in values.items():
        own = (*path, key)
        note = notes.get(".".join(own))
        if isinstance(value, Mapping):
            line = f"{key}:"
        else:
            rounded = float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
            line = yaml.safe_dump({key: rounded}, allow_unicode=True, width=10_000).strip()
        yield "  " * len(path) + (f"{line}  # {note}" if note else line)
        if isinstance(value, Mapping):
            yield from _list_lines(value, notes, own)
