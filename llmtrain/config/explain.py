"""Pydantic's findings -> sentences a user can act on: place, key, value, what is allowed, nearest spelling."""

import difflib
import json
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from llmtrain.config.yaml_reader import Origins

Path = tuple[str | int, ...]

_NAME_RULE = "use 1 to 64 lower-case letters, digits, '_', '-' or '.', the first a letter or a digit"
_WORDS = {
    "Input should be": "it must be",
    "a valid integer": "an integer",
    "a valid number": "a number",
    "a valid string": "a string",
    "a valid boolean": "true or false",
    "a valid array": "a list",
    "an object": "a mapping",
    "List should have": "it must have",
    "String should have": "it must have",
    "Tuple should have": "it must have",
    "Dictionary should have": "it must have",
    " after validation": "",
}


def find_origin(path: Path, origins: Origins) -> str:
    """Where the value at `path`, or the nearest mapping around it, was written."""
    for length in range(len(path), -1, -1):
        if path[:length] in origins:
            return origins[path[:length]]
    return "configuration"


def explain_errors(error: ValidationError, root: type[BaseModel], values: Any, origins: Origins) -> list[str]:
    """One line for each mistake.

    Args:
        error: what pydantic raised for `values`.
        root: the model that was validated.
        values: the raw values.
        origins: where each was written.
    """
    lines = []
    for details in error.errors(include_url=False):
        path = _strip_union_tags(details["loc"], values)
        if details["type"].startswith("union_tag"):
            path = (*path, str(details["ctx"]["discriminator"]).strip("'"))
        lines.append(f"{find_origin(path, origins)}: {_explain(details, path, root, values)}")
    return lines


def _explain(details: ErrorDetails, path: Path, root: type[BaseModel], values: Any) -> str:
    key, dotted = str(path[-1]) if path else "", ".".join(map(str, path))
    kind, context = details["type"], details.get("ctx", {})
    if kind == "extra_forbidden":
        known = _known_keys(root, path[:-1], values)
        prefix = dotted[: len(dotted) - len(key)]
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"Did you mean '{prefix}{close[0]}'?" if close else f"Known keys: {', '.join(sorted(known))}."
        return f"unknown key '{dotted}'. {hint}"
    if kind == "missing":
        return f"'{dotted}' is missing. Set it{_describe_field(root, path, values)}."
    if kind == "union_tag_not_found":
        return f"'{dotted}' is missing. Set it to one of {_tags(root, path[:-1], values)}."
    if kind == "union_tag_invalid":
        tag, allowed = details["input"][key], str(context["expected_tags"])
        close = difflib.get_close_matches(str(tag), allowed.replace("'", "").split(", "), n=1) if tag else []
        hint = f" Did you mean '{close[0]}'?" if close else ""
        return f"'{dotted}' = {json.dumps(tag)}. Allowed: {allowed}.{hint}"
    if kind == "string_pattern_mismatch":  # only names have a pattern
        return f"'{dotted.removesuffix('.[key]')}': {json.dumps(details['input'])} is not a name: {_NAME_RULE}."
    message = details["msg"]
    for pydantic_word, word in _WORDS.items():
        message = message.replace(pydantic_word, word)
    return f"'{dotted}' = {json.dumps(details['input'], default=str)}: {message}."


def _strip_union_tags(location: Path, values: Any) -> Path:
    # Pydantic puts the chosen variant of a union into the location; the user's file has no such key.
    path: list[str | int] = []
    node = values
    for position, part in enumerate(location):
        is_last = position == len(location) - 1
        if isinstance(node, dict) and part not in node and not is_last:
            continue
        path.append(part)
        if isinstance(node, dict | list):
            try:
                node = node[part]  # type: ignore[index]
            except (KeyError, IndexError):
                node = None
    return tuple(path)


def _models_at(root: type[BaseModel], path: Path, values: Any) -> list[type[BaseModel]]:
    """The models that may stand at `path`; for a discriminated union the chosen one if it is known."""
    types: list[Any] = [root]
    node = values
    for part in path:
        next_types: list[Any] = []
        for kind in types:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                field = kind.model_fields.get(str(part))
                next_types += _flatten(field.annotation) if field else []
            elif get_origin(kind) in (dict, list):
                next_types += _flatten(get_args(kind)[-1])
        types = next_types
        if isinstance(node, list) and isinstance(part, int):
            node = node[part] if part < len(node) else None
        else:
            node = node.get(part) if isinstance(node, dict) else None
    models = [kind for kind in types if isinstance(kind, type) and issubclass(kind, BaseModel)]
    chosen = [model for model in models if _is_chosen(model, node)]
    return chosen or models


def _flatten(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _flatten(get_args(annotation)[0])
    if get_origin(annotation) is Union or type(annotation).__name__ == "UnionType":
        return [inner for part in get_args(annotation) for inner in _flatten(part)]
    return [annotation]


def _is_chosen(model: type[BaseModel], node: Any) -> bool:
    if not isinstance(node, dict):
        return False
    for tag in ("kind", "name", "family"):
        field = model.model_fields.get(tag)
        literals = get_args(field.annotation) if field else ()
        if literals and node.get(tag) in literals:
            return True
    return False


def _known_keys(root: type[BaseModel], path: Path, values: Any) -> list[str]:
    return [name for model in _models_at(root, path, values) for name in model.model_fields]


def _describe_field(root: type[BaseModel], path: Path, values: Any) -> str:
    for model in _models_at(root, path[:-1], values):
        field = model.model_fields.get(str(path[-1]))
        if field and field.description:
            first = " ".join(field.description.split()).split(". ")[0].rstrip(".")
            return f" ({first[:1].lower()}{first[1:]})"
    return ""


def _tags(root: type[BaseModel], path: Path, values: Any) -> str:
    tags = []
    for model in _models_at(root, path, values):
        for tag in ("kind", "name", "family"):
            field = model.model_fields.get(tag)
            tags += [repr(literal) for literal in (get_args(field.annotation) if field else ())]
    return ", ".join(tags)
