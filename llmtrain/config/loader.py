"""YAML files and overrides -> one validated `Config` that remembers where each value came from.

Precedence: defaults < files, left to right < overrides `section.key=value`. Mappings merge, lists replace.
All mistakes are reported at once, each with its place.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from llmtrain.config.checks import find_contradictions
from llmtrain.config.explain import explain_errors
from llmtrain.config.root import Config, PosttrainingConfig
from llmtrain.config.yaml_reader import Origins, parse_scalar, read_yaml
from llmtrain.errors import ConfigError

COMMAND_LINE = "command line"


ConfigT = TypeVar("ConfigT", bound=PosttrainingConfig)


@dataclass(frozen=True)
class LoadedConfig(Generic[ConfigT]):
    """A validated configuration and the origin of each value the user set (`file:line` or `command line`)."""

    config: ConfigT
    origins: Origins


def load_config(files: Sequence[Path], overrides: Sequence[str] = ()) -> LoadedConfig[Config]:
    """Read, merge and validate a whole run.

    Args:
        files: YAML files, later ones win.
        overrides: `section.key=value` strings, which win over all files.

    Raises:
        ConfigError: every mistake found, one a line.
    """
    values, origins = _read(files, overrides)
    return LoadedConfig(validate(values, origins), origins)


def load_stage_config(files: Sequence[Path], overrides: Sequence[str] = ()) -> LoadedConfig[PosttrainingConfig]:
    """Read, merge and validate what post-training needs, of a whole run or of a model that is there already.

    Arguments and errors as of `load_config`.
    """
    values, origins = _read(files, overrides)
    return LoadedConfig(validate_stage(values, origins), origins)


def _read(files: Sequence[Path], overrides: Sequence[str]) -> tuple[dict[str, Any], Origins]:
    values: dict[str, Any] = {}
    origins: Origins = {(): ", ".join(map(str, files))}
    for path in files:
        file_values, file_origins = read_yaml(path)
        _merge(values, file_values, origins, file_origins, ())
    for override in overrides:
        keys, value = split_override(override)
        nested: Any = value
        for key in reversed(keys):
            nested = {key: nested}
        _merge(values, nested, origins, dict.fromkeys(_list_paths(nested, ()), COMMAND_LINE), ())
    return values, origins


def validate(values: dict[str, Any], origins: Origins) -> Config:
    """Turn plain values into the configuration of a whole run.

    Raises:
        ConfigError: every mistake found, one a line.
    """
    return _validate(Config, values, origins)


def validate_stage(values: dict[str, Any], origins: Origins) -> PosttrainingConfig:
    """Turn plain values into a configuration: of a whole run if it has a section of pretraining, else without.

    Raises:
        ConfigError: every mistake found, one a line.
    """
    is_whole = any(name in values for name in Config.model_fields.keys() - PosttrainingConfig.model_fields.keys())
    return validate(values, origins) if is_whole else _validate(PosttrainingConfig, values, origins)


def _validate(kind: type[ConfigT], values: dict[str, Any], origins: Origins) -> ConfigT:
    try:
        # Through JSON: strict there means no bool for an int and no 3.5 for an int, yet lists become tuples
        # and strings become paths.
        config = kind.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise ConfigError("\n".join(explain_errors(error, kind, values, origins))) from error
    contradictions = find_contradictions(config, origins)
    if contradictions:
        raise ConfigError("\n".join(contradictions))
    return config


def dump_config(config: BaseModel) -> str:
    """The resolved configuration as YAML: every key, defaults included. Loading it gives the same `Config`."""
    return yaml.safe_dump(json.loads(config.model_dump_json()), sort_keys=False, allow_unicode=True, width=110)


def split_override(override: str) -> tuple[tuple[str, ...], Any]:
    """`section.key=value` -> its keys and the value.

    Raises:
        ConfigError: it is written otherwise.
    """
    name, separator, text = override.partition("=")
    keys = tuple(name.strip().split("."))
    if not separator or not all(keys):
        raise ConfigError(
            f"{COMMAND_LINE}: '{override}' is not an override. Write section.key=value, e.g. batch.micro_batch_size=4."
        )
    return keys, parse_scalar(text)


def _list_paths(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """Paths of everything inside a value, without the value's own."""
    inner: Iterable[tuple[str | int, Any]] = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, item in inner:
        yield (*path, key)
        yield from _list_paths(item, (*path, key))


def _merge(
    base: dict[str, Any], new: dict[str, Any], origins: Origins, new_origins: Origins, path: tuple[str | int, ...]
) -> None:
    for key, value in new.items():
        here = (*path, key)
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value, origins, new_origins, here)
            continue
        base[key] = value
        for known in [known for known in origins if known[: len(here)] == here]:
            del origins[known]
        origins |= {known: where for known, where in new_origins.items() if known[: len(here)] == here}
