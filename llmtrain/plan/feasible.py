"""Why a configuration cannot run on so many ranks of a cluster: all reasons at once, with factors and nearest values.

In: `Config`, world size, `ClusterConfig`. Out: sentences; none when it can.
"""

from llmtrain.config.checks import divisors
from llmtrain.config.cluster import ClusterConfig
from llmtrain.config.root import Config
from llmtrain.plan.search import SearchResult

_SHOWN = 3


def factorize(number: int) -> str:
    """Prime factors, for messages: `96 = 2^5 x 3`; a prime is itself."""
    rest, parts, prime = number, [], 2
    while prime * prime <= rest:
        power = 0
        while rest % prime == 0:
            rest, power = rest // prime, power + 1
        if power:
            parts.append(f"{prime}^{power}" if power > 1 else str(prime))
        prime += 1
    if rest > 1:
        parts.append(str(rest))
    text = " x ".join(parts)
    return f"{number:,}" if text in (str(number), "") else f"{number:,} = {text}"


def list_world_sizes(config: Config, most: int) -> list[int]:
    """World sizes at which batch and layout divide, ascending.

    Args:
        config: batch and parallel sizes.
        most: ranks there are.
    """
    model_ranks = config.parallel.tensor_parallel_size * config.parallel.pipeline_parallel_size
    micro_batches = config.batch.global_batch_size // config.batch.micro_batch_size
    return [model_ranks * data for data in range(1, most // model_ranks + 1) if micro_batches % data == 0]


def find_obstacles(config: Config, world_size: int, cluster: ClusterConfig) -> list[str]:
    """What keeps a run from starting, one sentence each.

    Args:
        config: the resolved configuration; its own contradictions were found when it was loaded.
        world_size: ranks.
        cluster: where they are to run.
    """
    parallel, batch, found = config.parallel, config.batch, []
    tensor, pipeline = parallel.tensor_parallel_size, parallel.pipeline_parallel_size
    model_ranks, layers = tensor * pipeline, config.model.num_layers
    if world_size > cluster.num_devices:
        found.append(
            f"world: {world_size:,} ranks, {cluster.name} has {cluster.num_devices:,} devices = {cluster.nodes:,} "
            f"machines x {cluster.devices_per_node}. {_nearest(config, world_size, cluster.num_devices)}"
        )
    if world_size % model_ranks:
        found.append(
            f"world: {factorize(world_size)} ranks are no multiple of parallel.tensor_parallel_size {tensor} x "
            f"parallel.pipeline_parallel_size {pipeline}: {factorize(model_ranks)}. "
            f"{_nearest(config, world_size, cluster.num_devices)}"
        )
    elif batch.global_batch_size % (batch.micro_batch_size * world_size // model_ranks):
        data = world_size // model_ranks
        found.append(
            f"batch.global_batch_size: {factorize(batch.global_batch_size)} is no multiple of batch.micro_batch_size "
            f"{batch.micro_batch_size} x {factorize(data)} data-parallel ranks. Choose "
            f"{_multiples(batch.micro_batch_size * data, batch.global_batch_size)} sequences. "
            f"{_nearest(config, world_size, cluster.num_devices)}"
        )
    stages = pipeline * (2 if parallel.pipeline_schedule == "dualpipev" and pipeline > 1 else 1)
    if stages > layers:
        found.append(
            f"parallel.pipeline_parallel_size = {pipeline} makes {stages} stages, the model has "
            f"model.num_layers: {factorize(layers)}. Choose at most {layers * pipeline // stages}, best "
            f"{divisors(layers)}."
        )
    return found


def _nearest(config: Config, world_size: int, most: int) -> str:
    sizes = list_world_sizes(config, most)
    if not sizes:
        return "No number of its ranks fits this layout: lower parallel.tensor_parallel_size or pipeline_parallel_size."
    closest = sorted(sorted(sizes, key=lambda size: abs(size - world_size))[:_SHOWN])
    return f"Nearest numbers of ranks that work: {', '.join(f'{size:,}' for size in closest)}."


def _multiples(step: int, number: int) -> str:
    below, above = number // step * step, -(-number // step) * step
    return f"{below:,} or {above:,}" if below else f"{above:,}"


def choose_world_size(config: Config, cluster: ClusterConfig) -> int:
    """The fewest whole machines that hold the layout and share the batch; some ranks of one where that needs no more.

    Args:
        config: batch and parallel sizes.
        cluster: machines there are.
    """
    sizes = list_world_sizes(config, cluster.num_devices)
    whole = [size for size in sizes if size % cluster.devices_per_node == 0]
    return (whole or sizes or [config.parallel.tensor_parallel_size * config.parallel.pipeline_parallel_size])[0]


def explain_no_layout(config: Config, world_size: int, cluster: ClusterConfig, result: SearchResult) -> str:
    """Why a search found nothing, and what would help."""
    if result.smallest is None:
        heads, layers = config.model.num_attention_heads, config.model.num_layers
        return (
            f"world: no layout of {factorize(world_size)} ranks divides batch.global_batch_size "
            f"{factorize(config.batch.global_batch_size)}, model.num_attention_heads {factorize(heads)} and "
            f"model.num_layers {factorize(layers)}. Choose a number of ranks with their factors."
        )
    least = result.smallest.memory.total / 2**30
    return (
        f"world: none of {result.tried:,} layouts on {world_size:,} ranks fits {cluster.device.memory_gib:g} GiB; the "
        f"smallest needs {least:.1f} GiB. Start more ranks, or lower batch.sequence_length or the model's size."
    )
