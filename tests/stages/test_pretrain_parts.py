from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
import torch.distributed as dist

from llmtrain.errors import MemoryExhaustedError, ParallelError
from llmtrain.stages.pretrain_parts import check_ranks_agree, explain_memory
from llmtrain.stages.training_data import TrainingData
from tests.helpers.configs import load_tiny_config
from tests.helpers.ranks import run_ranks

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


def agree(folder: str) -> str:
    """What a rank with a learning rate of its own is told."""
    rate = "1e-2" if dist.get_rank() == 0 else "3e-2"
    config = load_tiny_config(Path(folder), f"optimizer.learning_rate={rate}")
    data = cast(TrainingData, SimpleNamespace(identity={"source web": str(dist.get_rank())}))
    try:
        check_ranks_agree(config, data)
    except ParallelError as error:
        return str(error)
    return "agreed"


def test_ranks_that_were_started_with_other_values_are_named_on_all(tmp_path: Path) -> None:
    expected = (
        "ranks were started with different configurations or data:\n"
        "  rank 1: optimizer.learning_rate is 0.03, on rank 0 0.01\n"
        "  rank 1: sha256 of source web is 1, on rank 0 0\n"
        "Give every node the same command, configuration and data folder."
    )
    assert run_ranks(2, agree, str(tmp_path)) == [expected] * 2
