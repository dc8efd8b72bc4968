"""What an engine really holds on one rank, counted by storage. For tests of the plan."""

import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llmtrain.checkpoint.save import Destination, write_snapshot
from llmtrain.checkpoint.snapshot import TrainingState, take_snapshot
from llmtrain.config.checkpoint import CheckpointConfig
from llmtrain.parallel.engine import Engine
from llmtrain.parallel.layout import build_layout
from llmtrain.parallel.start import prepare_deepspeed
from llmtrain.parallel.traffic import TrafficCounter
from llmtrain.plan.build import build_plan
from tests.helpers.configs import load_tiny_config
from tests.plan.sending import build, train


def count_bytes(tensors: Iterable[Any]) -> int:
    """Bytes of the different storages behind tensors; what is no tensor counts nothing."""
    storages = {}
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor) and tensor.numel():
            storage = tensor.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def measure_states(folder: str, overrides: list[str], number: int) -> dict[str, Any]:
    """Bytes of parameters and optimizer states after a step, and the most of gradients between passes, on this rank.

    Beside them those of a checkpoint, what all ranks together write, and the `Traffic` of the third step.
    """
    engine, plan, layout = build(folder, overrides)
    seen: list[int] = []

    def measured(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            result = call(*args, **kwargs)
            seen.append(count_bytes(_list_gradients(engine)))
            return result

        return run

    if plan.pipeline_parallel_size > 1:
        passes = engine.deepspeed._INSTRUCTION_MAP
        passes.update({kind: measured(call) for kind, call in passes.items() if kind.__name__ == "BackwardPass"})
    else:
        engine.deepspeed.backward = measured(engine.deepspeed.backward)
    train(engine, plan, layout, 0)
    parameters = list(engine.module.parameters())
    held = [*(getattr(parameter, "ds_tensor", None) for parameter in parameters), *parameters]
    masters, moments = _list_states(engine.deepspeed.optimizer)
    parameter_bytes = count_bytes(held)
    found = {
        "pipeline_rank": layout.pipeline_parallel_rank,
        "parameters": parameter_bytes,
        "master_weights": count_bytes([*held, *masters]) - parameter_bytes,
        "moments": count_bytes(moments),
        "gradients": max(seen),
        "checkpoint": _save(engine, Path(folder) / f"checkpoints-{number}"),
    }
    train(engine, plan, layout, 1)
    counter = TrafficCounter(layout)
    with counter:
        train(engine, plan, layout, 2)
    return found | {"traffic": counter.traffic}


def measure_all_states(folder: str, cases: list[list[str]]) -> list[dict[str, Any]]:
    """`measure_states` of several layouts, in one start of the ranks."""
    prepare_deepspeed(torch.device("cpu"))
    return [measure_states(folder, overrides, number) for number, overrides in enumerate(cases)]


def _save(engine: Engine, folder: Path) -> int:
    """Bytes of the tensor files that all ranks write."""
    state = TrainingState(step=1, consumed_samples=8)
    destination = Destination(folder, {}, CheckpointConfig())
    checkpoint = write_snapshot(take_snapshot(engine.deepspeed, state), destination)
    dist.barrier()
    return sum(path.stat().st_size for path in checkpoint.glob("*.safetensors"))


def _list_states(optimizer: Any) -> tuple[list[Any], list[Any]]:
    masters = [
        *getattr(optimizer, "single_partition_of_fp32_groups", []),
        *getattr(optimizer, "fp32_partitioned_groups_flat", []),
    ]
    inner = getattr(optimizer, "optimizer", optimizer)
    moments = [value for state in inner.state.values() for key, value in state.items() if key != "step"]
    return masters, moments


def _list_gradients(engine: Engine) -> list[Any]:
    gradients: list[Any] = [parameter.grad for parameter in engine.module.parameters()]
    optimizer = engine.deepspeed.optimizer
    for name in ("averaged_gradients", "all_grad_tensors"):
        for group in getattr(optimizer, name, {}).values():
            gradients += group or []
    gradients.append(getattr(optimizer, "grad_partitions_flat_buffer", None))
    return gradients


class LiveStorages(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows every storage that an operation inside made, and which of them are still alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._storages: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._storages[storage._cdata] = weakref.ref(storage), storage.nbytes()
        return result

    def count_bytes(self, known: Iterable[torch.Tensor]) -> int:
        """Bytes of what is alive, without the storages of tensors that were there before."""
        before = {tensor.untyped_storage()._cdata for tensor in known}
        return sum(
            size for key, (reference, size) in self._storages.items() if key not in before and reference() is not None
        )


def measure_activations(model: nn.Module, sequences: int, tokens: int, vocab_size: int) -> int:
    """Bytes that the forward pass of a model leaves for its backward pass."""
    ids = torch.randint(0, vocab_size, (sequences, tokens))
    with LiveStorages() as live:
        output = model(ids, labels_BT=ids)
        kept: int = live.count_bytes([*model.parameters(), ids, *output])
    output.loss_sum.backward()  # it was a graph that can be gone back through
    return kept


def measure_shared_activations(folder: str, cases: list[list[str]]) -> list[int]:
    """Bytes of activations of one micro-batch on a rank of a tensor-parallel model, for each configuration."""
    prepare_deepspeed(torch.device("cpu"))
    results = []
    for overrides in cases:
        config = load_tiny_config(Path(folder), *overrides)
        plan = build_plan(config, dist.get_world_size(), 300)
        engine = Engine(config, plan, build_layout(plan, dist.get_rank()), torch.device("cpu"), num_sources=2)
        results.append(measure_activations(engine.module, plan.micro_batch_size, plan.sequence_length, 300))
    return results
