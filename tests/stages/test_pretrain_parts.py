from pathlib import Path

import pytest
import torch

from llmtrain.errors import MemoryExhaustedError
from llmtrain.stages.pretrain_parts import explain_memory
from tests.helpers.configs import load_tiny_config

MESSAGE = (
    r"^out of memory with batch\.micro_batch_size = 2, batch\.sequence_length = 16, parallel\.zero_stage = 1: "
    r"(?s:.*)\. Lower batch\.micro_batch_size, set training\.activation_recompute to 'full', or raise "
    r"parallel\.zero_stage\.$"
)


def test_memory_of_the_host_that_is_not_there_says_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(MemoryExhaustedError, match=MESSAGE), explain_memory(load_tiny_config(tmp_path)):
        torch.empty(10**15, dtype=torch.uint8)
    with pytest.raises(MemoryExhaustedError, match=MESSAGE), explain_memory(load_tiny_config(tmp_path)):
        bytearray(10**15)


def test_memory_of_a_gpu_that_is_not_there_says_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(MemoryExhaustedError, match=MESSAGE), explain_memory(load_tiny_config(tmp_path)):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"), explain_memory(load_tiny_config(tmp_path)):
        torch.ones(2, 3) @ torch.ones(2, 3)
