"""Device hours, money, energy and carbon of a run.

In: seconds, devices, `CostConfig`. Out: `Cost`.
"""

from dataclasses import dataclass

from llmtrain.config.cluster import CostConfig


@dataclass(frozen=True)
class Cost:
    """What a run takes."""

    device_hours: float
    price: float
    """In the currency of the cluster's description; 0 where it tells none."""
    energy_mwh: float
    carbon_tonnes: float
    """CO2-equivalent."""


def compute_cost(config: CostConfig, devices: int, seconds: float) -> Cost:
    """Cost of keeping devices busy.

    Args:
        config: power and price.
        devices: that are busy.
        seconds: how long, interruptions included.

    Source:
        Touvron et al. 2023, "LLaMA", section 6: Wh = GPU-h x W x PUE; t CO2e = MWh x 0.385.
    """
    hours = devices * seconds / 3600
    energy_mwh = hours * config.watts_per_device * config.power_usage_effectiveness / 1e6
    # What is free stays so for ever: infinity times nothing is not a number.
    price = hours * config.price_per_device_hour if config.price_per_device_hour else 0.0
    return Cost(hours, price, energy_mwh, energy_mwh * config.carbon_kg_per_kwh if config.carbon_kg_per_kwh else 0.0)
