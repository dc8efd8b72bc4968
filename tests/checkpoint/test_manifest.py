import json
from pathlib import Path
from typing import Any

import pytest

from llmtrain.checkpoint import manifest as module
from llmtrain.checkpoint.manifest import (
    MANIFEST_NAME,
    Manifest,
    encode_manifest,
    parse_step,
    read_manifest,
    step_directory_name,
)
from llmtrain.errors import CheckpointError
from tests.checkpoint.small import make_checkpoint


def rewrite(checkpoint: Path, **changes: Any) -> None:
    """Change a manifest and seal it again, as a writer with a bug would."""
    body = json.loads((checkpoint / MANIFEST_NAME).read_bytes())
    del body["sha256"]
    body |= changes
    sealed = {"sha256": module._seal(body), **body}
    (checkpoint / MANIFEST_NAME).write_text(json.dumps(sealed))


def tensors_of(checkpoint: Path) -> dict[str, Any]:
    tensors: dict[str, Any] = json.loads((checkpoint / MANIFEST_NAME).read_bytes())["tensors"]
    return tensors


def test_manifest_survives_writing_and_reading(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 7, validation_loss=0.1 + 0.2)
    manifest = read_manifest(checkpoint)
    assert encode_manifest(manifest) == (checkpoint / MANIFEST_NAME).read_bytes()
    assert (manifest.step, manifest.validation_loss) == (7, 0.1 + 0.2)
    assert manifest.parameter_shapes == {"w": (6, 40)}


def test_numbers_that_are_not_finite_become_null(tmp_path: Path) -> None:
    manifest = read_manifest(make_checkpoint(tmp_path, 7))
    body = json.loads(encode_manifest(manifest.model_copy(update={"progress": {"a": float("nan"), "b": [1e400]}})))
    assert body["progress"] == {"a": None, "b": [None]}


def test_changed_number_is_noticed(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 7)
    path = checkpoint / MANIFEST_NAME
    path.write_bytes(path.read_bytes().replace(b'"consumed_samples": 56', b'"consumed_samples": 57'))
    with pytest.raises(CheckpointError, match=r"manifest\.json: its content does not match its own sha256"):
        read_manifest(checkpoint)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "{}"])
def test_other_json_is_refused(content: str, tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 7)
    (checkpoint / MANIFEST_NAME).write_text(content)
    with pytest.raises(CheckpointError, match="does not match its own sha256"):
        read_manifest(checkpoint)


def test_later_format_is_refused_by_name(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 7)
    rewrite(checkpoint, format_version=1)
    with pytest.raises(CheckpointError, match=r"format_version: .*This version reads llmtrain-checkpoint format 2"):
        read_manifest(checkpoint)


def test_file_names_cannot_leave_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 7)
    rewrite(checkpoint, files={"../../secret.safetensors": {"bytes": 1, "sha256": ""}})
    with pytest.raises(CheckpointError, match="files"):
        read_manifest(checkpoint)


def test_tensor_with_a_hole_is_refused(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 7)
    tensors = tensors_of(checkpoint)
    tensors["exp_avg/w"]["pieces"].pop()
    rewrite(checkpoint, tensors=tensors)
    with pytest.raises(CheckpointError, match=r"exp_avg/w has 240 elements, its pieces hold 120"):
        read_manifest(checkpoint)


def test_piece_outside_its_tensor_is_refused(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 7)
    tensors = tensors_of(checkpoint)
    tensors["weights/w"]["pieces"][1]["offset"] = [4, 0]
    rewrite(checkpoint, tensors=tensors)
    with pytest.raises(CheckpointError, match=r"piece weights/w@3,0 does not fit weights/w"):
        read_manifest(checkpoint)


def test_missing_moment_is_refused(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 7)
    tensors = tensors_of(checkpoint)
    del tensors["exp_avg_sq/w"]
    rewrite(checkpoint, tensors=tensors)
    with pytest.raises(CheckpointError, match=r"exp_avg_sq/w is missing or has another shape"):
        read_manifest(checkpoint)


def test_directory_names_are_read_back_strictly() -> None:
    assert step_directory_name(10) == "step-00000010"
    assert parse_step(Path("a/step-00000010")) == 10
    assert parse_step(Path(step_directory_name(123_456_789))) == 123_456_789
    for name in ("step-10", "step-00000010.tmp", "step-00000010.trash", "xstep-00000010", "latest.json"):
        assert parse_step(Path(name)) is None


def test_manifest_has_no_room_for_unknown_keys() -> None:
    assert Manifest.model_config["extra"] == "forbid"
