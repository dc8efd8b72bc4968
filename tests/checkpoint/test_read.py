from pathlib import Path

import pytest
import torch

from llmtrain.checkpoint.manifest import MANIFEST_NAME, encode_manifest, read_manifest
from llmtrain.checkpoint.read import read_state_dict
from llmtrain.checkpoint.tensor_file import write_tensor_file
from llmtrain.errors import CheckpointError
from tests.checkpoint.small import file_name, make_checkpoint, rows_of_rank, whole_tensor


def test_whole_tensors_are_put_together_from_all_files(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 4, num_ranks=3)
    assert torch.equal(read_state_dict(checkpoint)["w"], whole_tensor(4, "weights"))
    assert torch.equal(read_state_dict(checkpoint, "exp_avg_sq")["w"], whole_tensor(4, "exp_avg_sq"))


def test_wrong_weights_are_refused_although_every_file_is_as_the_manifest_says(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path, 4)
    manifest = read_manifest(checkpoint)
    entry = write_tensor_file(checkpoint / file_name(1), {**rows_of_rank(4, 1, 2), "weights/w@3,0": torch.ones(3, 40)})
    changed = manifest.model_copy(update={"files": {**manifest.files, file_name(1): entry}})
    (checkpoint / MANIFEST_NAME).write_bytes(encode_manifest(changed))
    with pytest.raises(
        CheckpointError, match=rf"its weights have digest .* the manifest says {manifest.weights_digest}"
    ):
        read_state_dict(checkpoint)
