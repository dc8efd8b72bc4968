"""Time of collectives on a described cluster, by ring and tree models.

In: bytes, ranks, the distance between neighbours of a group, the world size. Out: seconds. Machines hold consecutive
ranks.
"""

import math

from llmtrain.config.cluster import ClusterConfig, LinkConfig


def is_on_one_machine(ranks: int, stride: int, world_size: int, cluster: ClusterConfig) -> bool:
    """Whether every group of a layout lies within a machine: six neighbours of eight do, the next six do not.

    Args:
        ranks: in each group.
        stride: distance between neighbours of a group; 1 = consecutive ranks.
        world_size: all ranks.
        cluster: its machines.
    """
    return world_size <= cluster.devices_per_node or cluster.devices_per_node % (ranks * stride) == 0


def find_link(ranks: int, stride: int, world_size: int, cluster: ClusterConfig) -> LinkConfig:
    """What connects the groups of a layout: the links of a machine, or the network; see `is_on_one_machine`."""
    return cluster.link if is_on_one_machine(ranks, stride, world_size, cluster) else cluster.network


def send_seconds(size: float, link: LinkConfig, cluster: ClusterConfig) -> float:
    """One message of `size` bytes."""
    return size / (link.gb_per_second * 1e9 * cluster.efficiency.links) + link.latency_microseconds * 1e-6


def all_reduce_seconds(size: float, ranks: int, stride: int, world_size: int, cluster: ClusterConfig) -> float:
    """A sum over ranks, each of which holds all of it afterwards.

    Args:
        size: bytes that each rank puts in.
        ranks: in the group.
        stride: distance between neighbours of the group; 1 = consecutive ranks.
        world_size: all ranks; the slowest of all groups counts.
        cluster: what connects them.

    Source:
        Ring: Patarasuk and Yuan 2009; 2 (n-1)/n of the bytes pass each link, in 2 (n-1) messages (logarithmic in n
        between machines, as trees do).
    """
    return 2 * gather_seconds(size, ranks, stride, world_size, cluster)


def gather_seconds(size: float, ranks: int, stride: int, world_size: int, cluster: ClusterConfig) -> float:
    """A gather of parts, or a sum of which each rank keeps a part; arguments as of `all_reduce_seconds`.

    `size` is that of the whole, bytes.
    """
    if ranks == 1:
        return 0.0
    is_inside = is_on_one_machine(ranks, stride, world_size, cluster)
    link = cluster.link if is_inside else cluster.network
    # Each member on a machine has a port of its own to the others, and rings use them all at once; the machine with
    # the fewest members of a group sets the pace.
    ports = 1 if is_inside else max(1, math.gcd(ranks, cluster.devices_per_node // stride))
    speed = link.gb_per_second if ports == 1 else min(link.gb_per_second * ports, cluster.link.gb_per_second)
    seconds = size * (ranks - 1) / ranks / (speed * 1e9 * cluster.efficiency.links)
    return seconds + _count_hops(ranks, is_inside) * link.latency_microseconds * 1e-6


def infer_link(small_seconds: float, large_seconds: float, size: float, ranks: int, is_inside: bool) -> LinkConfig:
    """The link with which `all_reduce_seconds` gives what was measured, at full efficiency.

    Args:
        small_seconds: of a sum of next to nothing.
        large_seconds: of a sum of `size` bytes on each rank.
        size: bytes.
        ranks: in the group, more than one.
        is_inside: within a machine; otherwise one rank on each machine.
    """
    hops = _count_hops(ranks, is_inside)
    bytes_per_second = 2 * size * (ranks - 1) / ranks / (large_seconds - small_seconds)
    return LinkConfig(gb_per_second=bytes_per_second / 1e9, latency_microseconds=small_seconds / 2 / hops * 1e6)


def _count_hops(ranks: int, is_inside: bool) -> int:
    return ranks - 1 if is_inside else ranks.bit_length()
