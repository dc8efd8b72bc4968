"""The JSON schema tells an editor what the loader accepts: every key with its help, and nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from llmtrain.config.compare import flatten
from llmtrain.config.loader import load_config
from llmtrain.config.root import Config
from llmtrain.config.schema import build_json_schema
from llmtrain.config.section import Section
from llmtrain.config.yaml_reader import read_yaml

SHIPPED = sorted(path for folder in (".", "pretrain") for path in Path("configs", folder).glob("*.yaml"))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return build_json_schema()


def list_sections(section: type[BaseModel] = Section) -> list[type[BaseModel]]:
    return [inner for kind in section.__subclasses__() for inner in (kind, *list_sections(kind))]


def describe(schema: dict[str, Any], value: dict[str, Any]) -> str:
    """The description of a key, its own or that of the section it refers to."""
    target = schema["$defs"][value["$ref"].split("/")[-1]] if "$ref" in value else {}
    return str(value.get("description") or target.get("description") or "")


def find_unknown(schema: dict[str, Any], node: dict[str, Any], value: Any, path: str = "") -> list[str]:
    """Keys of a value that the schema does not know; the variants of a union are told apart by their discriminator."""
    if "$ref" in node:
        return find_unknown(schema, schema["$defs"][node["$ref"].split("/")[-1]], value, path)
    if "discriminator" in node:
        target = node["discriminator"]["mapping"][value[node["discriminator"]["propertyName"]]]
        return find_unknown(schema, {"$ref": target}, value, path)
    if not isinstance(value, dict):
        return []
    if "anyOf" in node:
        return find_unknown(schema, node["anyOf"][0], value, path)
    if "patternProperties" in node:
        (inner,) = node["patternProperties"].values()
        return [found for key in value for found in find_unknown(schema, inner, value[key], f"{path}{key}.")]
    known, unknown = node["properties"], []
    for key, item in value.items():
        unknown += find_unknown(schema, known[key], item, f"{path}{key}.") if key in known else [f"{path}{key}"]
    return unknown


def test_every_section_refuses_other_keys(schema: dict[str, Any]) -> None:
    sections = {"Config": schema, **schema["$defs"]}
    # Clusters are described in files of their own, whether or not another test has imported their sections.
    of_runs = [section for section in list_sections() if section.__module__ != "llmtrain.config.cluster"]
    expected = {section.__name__ for section in of_runs if not section.__name__.startswith("_")}
    bases = {section.__name__ for section in list_sections() if section.__subclasses__()}
    assert sections.keys() | bases >= expected >= sections.keys()
    assert [name for name, section in sections.items() if section["additionalProperties"] is not False] == []


def test_every_key_stands_there_with_its_help(schema: dict[str, Any]) -> None:
    keys = {
        (name, key): describe(schema, value)
        for name, section in {"Config": schema, **schema["$defs"]}.items()
        for key, value in section["properties"].items()
    }
    sections = [section for section in list_sections() if section.__name__ in {name for name, _ in keys}]
    assert keys.keys() == {(section.__name__, field) for section in sections for field in section.model_fields}
    assert [key for key, text in keys.items() if not text.endswith(".")] == []
    assert keys["TrainingConfig", "compile"].startswith("Compile each block with `torch.compile`")
    assert keys["ParallelConfig", "zero_stage"].startswith("What data-parallel ranks share: 0 nothing")


def test_required_keys_and_ranges_are_told(schema: dict[str, Any]) -> None:
    assert schema["required"] == ["run", "data", "batch", "model", "optimizer", "schedule", "training"]
    assert schema["$defs"]["BatchConfig"]["required"] == ["sequence_length", "micro_batch_size", "global_batch_size"]
    zero_stage = schema["$defs"]["ParallelConfig"]["properties"]["zero_stage"]
    assert (zero_stage["minimum"], zero_stage["maximum"], zero_stage["default"]) == (0, 3, 1)
    assert set(schema["properties"]["schedule"]["discriminator"]["mapping"]) == {"constant", "cosine", "linear", "wsd"}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_hold_only_keys_of_the_schema(path: Path, schema: dict[str, Any]) -> None:
    values, _ = read_yaml(path)
    assert find_unknown(schema, schema, values) == []
    values["optimizer"]["learning_rte"] = 1.0
    values["model"]["num_layer"] = 1
    values["data"]["sources"] = {"web": {"weigth": 1}}
    values["zzz"] = 1
    assert set(find_unknown(schema, schema, values)) == {
        "optimizer.learning_rte",
        "model.num_layer",
        "data.sources.web.weigth",
        "zzz",
    }


def test_the_schema_knows_every_key_that_is_shown(schema: dict[str, Any]) -> None:
    config = load_config([Path("configs/quickstart.yaml")]).config
    assert find_unknown(schema, schema, json.loads(config.model_dump_json())) == []
    assert {key.split(".")[0] for key in flatten(config)} == set(Config.model_fields) == set(schema["properties"])
