"""Energy and carbon against the rows of LLaMA's table 15."""

import pytest

from llmtrain.config.cluster import CostConfig
from llmtrain.plan.cost import compute_cost

# Touvron et al. 2023, table 15: GPU hours, MWh, tonnes of CO2-equivalent; 400 W, PUE 1.1.
TABLE_15 = {"7B": (82_432, 36, 14), "13B": (135_168, 59, 23), "33B": (530_432, 233, 90), "65B": (1_022_362, 449, 173)}


@pytest.mark.parametrize("name", TABLE_15)
def test_energy_and_carbon_are_those_of_llama(name: str) -> None:
    hours, energy, carbon = TABLE_15[name]
    cost = compute_cost(CostConfig(watts_per_device=400, price_per_device_hour=2.0), 1, hours * 3600)
    assert cost.energy_mwh == pytest.approx(energy, abs=1.0)  # the paper rounds, or cuts
    assert cost.carbon_tonnes == pytest.approx(carbon, abs=0.7)
    assert cost.price == pytest.approx(2 * hours)
