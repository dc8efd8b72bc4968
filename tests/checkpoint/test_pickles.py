"""Files that would run code if they were unpickled, put where a checkpoint lies: nothing opens them as such."""

import pickle
from pathlib import Path

import pytest

from llmtrain.checkpoint.convert import convert_checkpoint
from llmtrain.checkpoint.find import find_latest, verify_checkpoint
from llmtrain.checkpoint.manifest import MANIFEST_NAME, encode_manifest, read_manifest
from llmtrain.checkpoint.read import read_state_dict
from llmtrain.checkpoint.tensor_file import hash_file
from llmtrain.errors import CheckpointError
from tests.checkpoint.small import file_name, make_checkpoint


class Poison:
    """Unpickling it makes a file."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.trace,)


def test_the_poison_works_where_a_pickle_is_loaded(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Poison(tmp_path / "ran")))  # noqa: S301  proves that the tests below can fail
    assert (tmp_path / "ran").exists()


def test_pickles_beside_a_checkpoint_are_never_opened(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    checkpoint = make_checkpoint(folder, 1)
    poison = pickle.dumps(Poison(tmp_path / "ran"))
    names = ("model.pt", "rank00000.pt", "mp_rank_00_model_states.pt", "pytorch_model.bin", "data.pkl")
    for name in names:
        (checkpoint / name).write_bytes(poison)
        (checkpoint / name).chmod(0)
        (folder / name).write_bytes(poison)
    assert find_latest(folder, "full") == checkpoint
    assert verify_checkpoint(checkpoint, "full").step == 1
    assert read_state_dict(checkpoint).keys() == {"w"}
    convert_checkpoint(checkpoint, tmp_path / "out")
    assert not (tmp_path / "ran").exists()
    assert all((checkpoint / name).read_bytes() == poison for name in names)


def test_a_pickle_in_place_of_a_shard_is_refused_though_its_sha256_fits(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 1)
    victim = checkpoint / file_name(1)
    victim.write_bytes(pickle.dumps(Poison(tmp_path / "ran")).ljust(victim.stat().st_size, b"\0"))
    manifest = read_manifest(checkpoint)
    entry = manifest.files[file_name(1)].model_copy(update={"sha256": hash_file(victim)})
    forged = manifest.model_copy(update={"files": {**manifest.files, file_name(1): entry}})
    (checkpoint / MANIFEST_NAME).write_bytes(encode_manifest(forged))
    assert verify_checkpoint(checkpoint, "full").step == 1
    with pytest.raises(CheckpointError, match=r"rank00001\.safetensors: cannot read weights/w@3,0: .*Choose another"):
        read_state_dict(checkpoint)
    assert not (tmp_path / "ran").exists()


def test_a_manifest_that_names_a_pickle_is_refused(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 1)
    manifest = read_manifest(checkpoint)
    entry = manifest.files[file_name(1)]
    forged = manifest.model_copy(update={"files": {**manifest.files, "rank00002.pt": entry}})
    (checkpoint / MANIFEST_NAME).write_bytes(encode_manifest(forged))
    with pytest.raises(CheckpointError, match=r"manifest\.json: files\.rank00002\.pt.*: String should match pattern"):
        verify_checkpoint(checkpoint, "size")
