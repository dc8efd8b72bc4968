"""The float32 training state inside a DeepSpeed engine: which rank holds which range of which parameter.

In: a `DeepSpeedEngine` around a module, with a torch AdamW object. Out: `Fragment`s, flat views into DeepSpeed's own
buffers (no copies), and functions that put a loaded state into force. Only this file knows DeepSpeed's attributes
(checked against 0.19.8):

    ZeRO 0     parameters and AdamW state of the module itself, equal on all data-parallel ranks
    ZeRO 1, 2  `_hp_mapping` of each parameter: its range inside this rank's flat master partition
    ZeRO 3     `grad_position` of each parameter: its range inside this rank's flat sub-group partition

The moments are cut out of AdamW's own state by address: DeepSpeed's links to them (`optim_fragment`) are made after the
first parameter group's first step and miss all other groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist

from llmtrain.checkpoint.agreement import gather_from_all
from llmtrain.checkpoint.digest import combine_digests, compute_box_digest
from llmtrain.checkpoint.manifest import STATES
from llmtrain.errors import CheckpointError
from llmtrain.parallel.geometry import Box, split_flat_range, whole_box
from llmtrain.parallel.placement import Placement, find_placement

if TYPE_CHECKING:  # importing deepspeed takes seconds, and engines are only looked at here
    from deepspeed import DeepSpeedEngine

_MOMENTS = STATES[1:]


@dataclass(frozen=True)
class Fragment:
    """A range of one flattened parameter that this rank holds: master weights and moments as flat float32 views."""

    placement: Placement
    """Where the parameter lies in the logical tensor."""
    parameter_shape: tuple[int, ...]
    """Of the whole parameter on this rank."""
    start: int
    states: dict[str, torch.Tensor]

    @property
    def name(self) -> str:
        """Canonical name of the logical tensor."""
        return self.placement.name

    @property
    def numel(self) -> int:
        """Elements in the range."""
        return self.states["weights"].numel()

    def boxes(self) -> Iterator[tuple[Box, dict[str, torch.Tensor]]]:
        """The range as boxes of the logical tensor, each with its views in the shape of the box."""
        begin = 0
        for flat_box in split_flat_range(self.parameter_shape, self.start, self.start + self.numel):
            views = {
                key: flat.narrow(0, begin, flat_box.numel).view(flat_box.shape) for key, flat in self.states.items()
            }
            begin += flat_box.numel
            for part, offset in self.placement.parts:
                shared = flat_box.intersect(part)
                if shared is not None:
                    inner = shared.relative_to(part).offset
                    logical = Box(tuple(a + b for a, b in zip(offset, inner, strict=True)), shared.shape)
                    slices = shared.relative_to(flat_box).slices
                    yield logical, {key: view[slices] for key, view in views.items()}

    def compute_digest(self) -> int:
        """Share of the range's weights in the digest of the model."""
        shape = self.placement.shape
        strides = [math.prod(shape[dim + 1 :]) for dim in range(len(shape))]
        return combine_digests(
            compute_box_digest(self.name, views["weights"], box.offset, strides) for box, views in self.boxes()
        )


def check_engine_is_supported(engine: DeepSpeedEngine) -> None:
    """Refuse what cannot be saved without loss.

    Raises:
        CheckpointError: names what is not supported and what to use.
    """
    optimizer = engine.optimizer
    if type(optimizer).__name__ == "BF16_Optimizer":
        raise CheckpointError(
            f"checkpoint: DeepSpeed's BF16_Optimizer (bfloat16 parameters with ZeRO-{_zero_stage(engine)}) cannot be "
            "saved. Supported: ZeRO 1, 2, 3 with DeepSpeed's ZeRO optimizers, or float32 parameters with autocast. "
            "Set precision.parameter_dtype=float32 or another parallel.zero_stage."
        )
    if engine.fp16_enabled():
        raise CheckpointError(
            "checkpoint: float16 with loss scaling cannot be saved. Supported are float32 and bfloat16. "
            "Set precision.parameter_dtype=bfloat16."
        )
    if not isinstance(engine.basic_optimizer, torch.optim.AdamW):
        raise CheckpointError(
            f"checkpoint: optimizer {type(engine.basic_optimizer).__name__} cannot be saved, only torch.optim.AdamW."
        )
    for name, parameter in engine.module.named_parameters():
        if not parameter.requires_grad:
            raise CheckpointError(f"checkpoint: parameter {name} is frozen; only models trained whole can be saved.")
        if _zero_stage(engine) == 0 and parameter.dtype != torch.float32:
            raise CheckpointError(
                f"checkpoint: parameter {name} is {parameter.dtype} without float32 master weights under ZeRO-0. "
                "Set precision.parameter_dtype=float32 (autocast computes in bfloat16) or parallel.zero_stage=1."
            )


def own_parameter_shapes(engine: DeepSpeedEngine) -> dict[str, tuple[int, ...]]:
    """Shape of every logical tensor of which this rank has a part; tied parameters appear once."""
    placements = (_placement(name, parameter) for name, parameter in engine.module.named_parameters())
    return {placement.name: placement.shape for placement in placements}


def merge_shapes(found_by_rank: Iterable[Mapping[str, tuple[int, ...]]]) -> dict[str, tuple[int, ...]]:
    """Shapes that ranks found, together."""
    return {name: shape for found in found_by_rank for name, shape in found.items()}


def parameter_shapes(engine: DeepSpeedEngine) -> dict[str, tuple[int, ...]]:
    """Shape of every logical tensor of the model, on whichever ranks it lies. All ranks call it."""
    return merge_shapes(gather_from_all(own_parameter_shapes(engine)))


def held_fragments(engine: DeepSpeedEngine) -> Iterator[Fragment]:
    """All state this rank holds, and so must load. Under ZeRO-0 every rank holds everything."""
    _create_missing_optimizer_state(engine)
    locate = {0: _locate_replicated, 1: _locate_zero_1_2, 2: _locate_zero_1_2, 3: _locate_zero_3}[_zero_stage(engine)]
    for name, parameter in engine.module.named_parameters():
        found = locate(engine, parameter)
        if found is not None:
            start, states = found
            yield Fragment(_placement(name, parameter), _whole_shape(parameter), start, states)


def owned_fragments(engine: DeepSpeedEngine) -> Iterator[Fragment]:
    """State this rank writes: over all ranks every element once.

    Under ZeRO-0 the data-parallel ranks share the writing: the parameters, laid end to end, are cut into equal ranges.
    """
    written = [fragment for fragment in held_fragments(engine) if fragment.placement.is_writer]
    if _zero_stage(engine) > 0:
        yield from written
        return
    rank, size = dist.get_rank(engine.data_parallel_group), dist.get_world_size(engine.data_parallel_group)
    total = sum(fragment.numel for fragment in written)
    own_start, own_stop = total * rank // size, total * (rank + 1) // size
    passed = 0
    for fragment in written:
        start, stop = max(own_start - passed, 0), min(own_stop - passed, fragment.numel)
        passed += fragment.numel
        if start < stop:
            states = {key: flat.narrow(0, start, stop - start) for key, flat in fragment.states.items()}
            yield Fragment(fragment.placement, fragment.parameter_shape, start, states)


def get_optimizer_steps(engine: DeepSpeedEngine) -> set[int]:
    """Updates that AdamW has made, over the parameters this rank holds: one number when all is well."""
    _create_missing_optimizer_state(engine)
    return {int(state["step"]) for state in engine.basic_optimizer.state.values()}


def restore_counters(engine: DeepSpeedEngine, step: int, consumed_samples: int, optimizer_step: int) -> None:
    """Set AdamW's and DeepSpeed's step counters as they were."""
    for state in engine.basic_optimizer.state.values():
        state["step"].fill_(optimizer_step)
    engine.global_steps = step
    engine.global_samples = consumed_samples
    engine.micro_steps = step * engine.gradient_accumulation_steps()
    engine.skipped_steps = step - optimizer_step


@torch.no_grad()
def synchronize_parameters(engine: DeepSpeedEngine) -> None:
    """Copy loaded master weights into the parameters that forward reads. All ranks call it."""
    optimizer, stage = engine.optimizer, _zero_stage(engine)
    if stage in (1, 2):
        optimizer.update_lp_params()
    elif stage == 3:
        optimizer.invalidate_secondary_tensor()  # ZeRO++'s copies hold the first weights
        optimizer._partition_all_parameters()
        for sub_group in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(sub_group)
        persistent = optimizer.persistent_parameters
        if persistent:
            persistent[0].all_gather(persistent)


def describe_layout(engine: DeepSpeedEngine) -> dict[str, int | str]:
    """Who shares what, for the manifest; loading does not depend on it."""
    from deepspeed.utils.bwc import bwc_pipeline_parallel_world_size, bwc_tensor_model_parallel_world_size

    return {
        "world_size": dist.get_world_size(),
        "data_parallel_size": engine.dp_world_size,
        "tensor_parallel_size": bwc_tensor_model_parallel_world_size(engine.mpu),
        "pipeline_parallel_size": bwc_pipeline_parallel_world_size(engine.mpu),
        "zero_stage": _zero_stage(engine),
        "parameter_dtype": str(next(iter(engine.module.parameters())).dtype).removeprefix("torch."),
    }


def _zero_stage(engine: DeepSpeedEngine) -> int:
    return int(engine.zero_optimization_stage())


def _placement(name: str, parameter: torch.nn.Parameter) -> Placement:
    """The placement a parallel model gave its parameter; any other lies whole under its own name.

    `torch.compile` puts a wrapper into the path of a name.
    """
    shape = _whole_shape(parameter)
    alone = Placement(name.replace("_orig_mod.", ""), shape, ((whole_box(shape), (0,) * len(shape)),))
    return find_placement(parameter) or alone


def _whole_shape(parameter: torch.nn.Parameter) -> tuple[int, ...]:
    """Shape before ZeRO-3 emptied the parameter."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _locate_replicated(engine: DeepSpeedEngine, parameter: torch.nn.Parameter) -> tuple[int, dict[str, torch.Tensor]]:
    state = engine.basic_optimizer.state[parameter]
    return 0, {"weights": parameter.data.view(-1)} | {key: state[key].view(-1) for key in _MOMENTS}


def _locate_zero_1_2(
    engine: DeepSpeedEngine, parameter: torch.nn.Parameter
) -> tuple[int, dict[str, torch.Tensor]] | None:
    mapping: Any = parameter._hp_mapping  # type: ignore[attr-defined]
    if mapping is None:
        return None
    flat = engine.optimizer.single_partition_of_fp32_groups[mapping.param_group_index]
    address = mapping.hp_fragment_address
    return mapping.lp_fragment_address.start, _narrow_flat_state(engine, flat, address.start, address.numel)


def _locate_zero_3(
    engine: DeepSpeedEngine, parameter: torch.nn.Parameter
) -> tuple[int, dict[str, torch.Tensor]] | None:
    optimizer = engine.optimizer
    sub_group, offset, padded_numel = optimizer.grad_position[optimizer.get_param_id(parameter)]
    start = padded_numel * optimizer._get_param_partition_rank(parameter)
    numel = min(padded_numel, math.prod(_whole_shape(parameter)) - start)
    if numel <= 0:
        return None
    return start, _narrow_flat_state(engine, optimizer.fp32_partitioned_groups_flat[sub_group], offset, numel)


def _narrow_flat_state(engine: DeepSpeedEngine, flat: torch.Tensor, start: int, numel: int) -> dict[str, torch.Tensor]:
    state = engine.basic_optimizer.state[flat]
    views = {"weights": flat.data} | {key: state[key] for key in _MOMENTS}
    return {key: view.narrow(0, start, numel) for key, view in views.items()}


def _create_missing_optimizer_state(engine: DeepSpeedEngine) -> None:
    """Make AdamW's state as its first step would, so that a state can be loaded into a fresh engine."""
    optimizer, base, stage = engine.optimizer, engine.basic_optimizer, _zero_stage(engine)
    if stage == 0:
        tensors = [parameter for group in base.param_groups for parameter in group["params"]]
    else:
        tensors = optimizer.fp32_partitioned_groups_flat if stage == 3 else optimizer.single_partition_of_fp32_groups
    on_device = bool(base.defaults.get("fused") or base.defaults.get("capturable"))
    for tensor in tensors:
        state = base.state[tensor]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=tensor.device if on_device else "cpu")
            for key in _MOMENTS:
                state[key] = torch.zeros_like(tensor, memory_format=torch.preserve_format)
