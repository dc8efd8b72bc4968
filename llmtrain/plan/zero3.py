"""How often ZeRO 3 gathers each weight, and how much it holds gathered: its bookkeeping, played through.

The first micro-batches teach DeepSpeed the order in which weights are used, forward and backward. From then on, at each
use, it gathers what is missing, then what comes next (a prefetch), and lets a weight go whose next use is far and was
not already seen by a prefetch.

In: the weights of a rank. Out: `Gathers`.

Source:
    deepspeed 0.19, `runtime/zero/partitioned_param_coordinator.py`; the limits are the defaults of its `config.py`.
"""

import dataclasses
import functools
import itertools
from dataclasses import dataclass

from llmtrain.plan.model_shape import ModelShape
from llmtrain.plan.parameters import Weight, list_unit_layers


@dataclass(frozen=True)
class Limits:
    """Elements at which DeepSpeed's bookkeeping turns."""

    reuse_distance: int = 1_000_000_000
    """A weight stays if fewer elements of others are used before it is used again (`stage3_max_reuse_distance`)."""
    prefetch: int = 50_000_000
    """Gathered ahead of their use at one time (`stage3_prefetch_bucket_size`)."""
    live: int = 1_000_000_000
    """Gathered at one time, at which the prefetch stops (`stage3_max_live_parameters`)."""


@dataclass(frozen=True)
class Gathers:
    """What one micro-batch gathers."""

    weights: tuple[tuple[Weight, int], ...]
    """Each weight of the rank, and how often it is gathered; 0 for persistent ones."""
    most_live: int
    """Elements that are gathered at one time, at most."""


@functools.lru_cache(maxsize=512)
def count_gathers(
    shape: ModelShape, tensor: int, is_recomputed: bool, persistent_below: int, limits: Limits = Limits()
) -> Gathers:
    """Play one micro-batch.

    Args:
        shape: of the whole model; all of its layers are on the rank.
        tensor: tensor-parallel size.
        is_recomputed: whether blocks run forward once more in the backward pass.
        persistent_below: weights with fewer elements are never let go.
        limits: of DeepSpeed.
    """
    layers, steps = _list_uses(shape, tensor, is_recomputed)
    weights = [weight for layer in layers for weight in layer]
    persistent = {number for number, weight in enumerate(weights) if weight.elements < persistent_below}
    coordinator = _Coordinator([weight.elements for weight in weights], persistent, steps, limits)
    most_live = 0
    for step in range(len(steps)):
        coordinator.fetch(step)
        most_live = max(most_live, coordinator.live)
        coordinator.release(step)
    return Gathers(tuple(zip(weights, coordinator.times, strict=True)), most_live)


@dataclass(frozen=True)
class _Use:
    """One forward or backward use of a module."""

    numbers: tuple[int, ...]
    """Of its own weights; none for a module of modules, at which DeepSpeed prefetches as well."""
    lets_go: bool = True
    """Whether it is over before the next one begins."""


class _Coordinator:
    """DeepSpeed's class of this name, without tensors."""

    def __init__(self, elements: list[int], persistent: set[int], uses: list[_Use], limits: Limits) -> None:
        self.times = [0] * len(elements)
        self.live = 0
        self._elements, self._persistent, self._uses, self._limits = elements, persistent, uses, limits
        self._held, self._seen = set(persistent), [-1] * len(elements)
        self._queue = [(number, step) for step, use in enumerate(uses) for number in use.numbers]
        self._head = 0
        sizes = (sum(elements[number] for number in use.numbers) for use in uses)
        self._before = [0, *itertools.accumulate(sizes)]
        self._next_use: list[dict[int, int]] = [{}] * len(uses)
        latest: dict[int, int] = {}
        for step in reversed(range(len(uses))):
            numbers = uses[step].numbers
            self._next_use[step] = {number: latest[number] for number in numbers if number in latest}
            latest |= dict.fromkeys(numbers, step)

    def fetch(self, step: int) -> None:
        """Gather what a module lacks, then what comes next."""
        numbers = self._uses[step].numbers
        for number in numbers:
            self._gather(number)
        for _ in [number for number in numbers if self._seen[number] < step]:
            self._pop()
        budget, fetched = min(self._limits.live - self.live, self._limits.prefetch), 0
        while self._head < len(self._queue) and fetched < budget:
            fetched += self._gather(self._pop())

    def release(self, step: int) -> None:
        """Let go of a module's weights, but for those whose next use is near or was passed by a prefetch."""
        if not self._uses[step].lets_go:
            return
        for number in set(self._uses[step].numbers) - self._persistent:
            following = self._next_use[step].get(number)
            is_near = (
                following is not None and self._before[following] - self._before[step + 1] < self._limits.reuse_distance
            )
            if not is_near and self._seen[number] <= step + 1:
                self._held.discard(number)
                self.live -= self._elements[number]

    def _gather(self, number: int) -> int:
        if number in self._held:
            return 0
        self._held.add(number)
        self.times[number] += 1
        self.live += self._elements[number]
        return self._elements[number]

    def _pop(self) -> int:
        number, step = self._queue[self._head]
        self._head += 1
        self._seen[number] = step
        return number


def _list_uses(shape: ModelShape, tensor: int, is_recomputed: bool) -> tuple[list[tuple[Weight, ...]], list[_Use]]:
    """The layers of a rank, and all uses of one micro-batch in their order; weights are numbered as layers hold them.

    A tied embedding is used by the model itself, too, at the start of either pass, and never let go. The backward pass
    of a recomputed block begins with its last product, which needs what the block is run again for.
    """
    is_tied, inner = shape.tie_word_embeddings, _Use(())
    numbers = itertools.count()
    layers: list[tuple[Weight, ...]] = []
    whole = _Use((0,) if is_tied else (), lets_go=False)
    forward = [whole]
    backward: list[_Use] = []
    for unit in range(shape.num_layers + 2):
        own = list(list_unit_layers(shape, unit, tensor, has_head=not is_tied))
        layers += own
        uses = [_Use(tuple(itertools.islice(numbers, len(layer)))) for layer in own]
        if unit == 0:
            uses[0] = dataclasses.replace(uses[0], lets_go=not is_tied)
            there = [inner, *uses]
            back = [inner, *reversed(uses)]
        elif unit > shape.num_layers:
            there = [*uses, inner] if is_tied else uses
            back = there[::-1]
        else:
            norm, fused, output, second_norm, up, down = uses
            there = [inner, norm, inner, fused, output, second_norm, inner, up, down]
            again = [dataclasses.replace(down, lets_go=False), *there] if is_recomputed else [down]
            back = [inner, inner, *again, up, second_norm, inner, output, fused, norm]
        forward += there
        backward[:0] = back
    return layers, [*forward, whole, *backward]
