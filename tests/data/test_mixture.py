from typing import Any

import pytest

from llmtrain.config.data import DataConfig, MixtureSource, MixtureStage
from llmtrain.data.mixture import resolve_mixture
from llmtrain.errors import DataError

TOKENS = {"web": 8000, "code": 2000, "wiki": 1000}
WINDOWS = {"web": 80, "code": 20, "wiki": 10}


def config(
    sources: dict[str, MixtureSource] | None = None, temperature: float = 1.0, stages: list[MixtureStage] | None = None
) -> DataConfig:
    values = {"folder": "x", "sources": sources or {}, "temperature": temperature, "stages": stages or []}
    return DataConfig.model_validate(values, strict=False)


def test_without_weights_sources_count_by_their_size() -> None:
    mixture = resolve_mixture(config(), TOKENS, WINDOWS, 10, 1)
    assert mixture.names == ("web", "code", "wiki")
    assert mixture.stages[0].shares == pytest.approx((8 / 11, 2 / 11, 1 / 11))


def test_given_weights_are_shares_of_the_sequences() -> None:
    sources = {name: MixtureSource(weight=weight) for name, weight in (("web", 1.0), ("code", 2.0), ("wiki", 1.0))}
    mixture = resolve_mixture(config(sources), TOKENS, WINDOWS, 100, 1)
    assert mixture.stages[0].shares == pytest.approx((0.25, 0.5, 0.25))
    assert mixture.compute_epochs(100) == pytest.approx({"web": 25 / 80, "code": 50 / 20, "wiki": 25 / 10})


def test_a_higher_temperature_flattens() -> None:
    flat = resolve_mixture(config(temperature=1e6), TOKENS, WINDOWS, 10, 1)
    assert flat.stages[0].shares == pytest.approx((1 / 3, 1 / 3, 1 / 3), rel=1e-4)
    half = resolve_mixture(config(temperature=2.0), {"web": 900, "code": 100}, {"web": 9, "code": 1}, 1, 1)
    assert half.stages[0].shares == pytest.approx((0.75, 0.25))


def test_a_source_of_weight_zero_is_left_out() -> None:
    sources = {"web": MixtureSource(weight=0.0), "code": MixtureSource(weight=1.0), "wiki": MixtureSource(weight=3.0)}
    mixture = resolve_mixture(config(sources), TOKENS, WINDOWS, 10, 1)
    assert mixture.names == ("code", "wiki")
    assert mixture.windows == (20, 10)


def test_only_zero_weights_are_refused() -> None:
    sources = {name: MixtureSource(weight=0.0) for name in TOKENS}
    with pytest.raises(DataError, match="every weight is 0"):
        resolve_mixture(config(sources), TOKENS, WINDOWS, 10, 1)


def test_every_exceeded_cap_is_refused_with_its_numbers() -> None:
    sources = {name: MixtureSource(weight=1.0, max_epochs=2.0) for name in TOKENS}
    with pytest.raises(DataError) as caught:
        resolve_mixture(config(sources), TOKENS, WINDOWS, 300, 1)
    text = str(caught.value)
    assert "data.sources.code: 300 sequences x share 0.3333 read 20 windows 5.00 times; max_epochs is 2" in text
    assert "Train at most 120 sequences" in text
    assert "data.sources.wiki" in text
    assert "data.sources.web" not in text
    assert resolve_mixture(config(sources), TOKENS, WINDOWS, 60, 1).names == ("web", "code", "wiki")


def test_a_source_shorter_than_one_sequence_is_refused() -> None:
    with pytest.raises(DataError, match=r"less than one sequence in wiki \(1,000 tokens\)"):
        resolve_mixture(config(), TOKENS, WINDOWS | {"wiki": 0}, 10, 1)


ANNEALED = [MixtureStage(from_fraction=0.9, weights={"wiki": 3.0, "code": 1.0})]


def test_a_stage_changes_the_shares_from_its_step_on() -> None:
    sources = {"web": MixtureSource(weight=1.0), "code": MixtureSource(weight=1.0), "wiki": MixtureSource(weight=0.0)}
    mixture = resolve_mixture(config(sources, stages=ANNEALED), TOKENS, WINDOWS, 10, 4)
    assert mixture.names == ("web", "code", "wiki")
    assert [stage.first_sample for stage in mixture.stages] == [0, 36]
    assert [stage.shares for stage in mixture.stages] == [
        pytest.approx((0.5, 0.5, 0.0)),
        pytest.approx((0.0, 0.25, 0.75)),
    ]
    assert mixture.compute_epochs(40) == pytest.approx({"web": 18 / 80, "code": 19 / 20, "wiki": 3 / 10})
    assert mixture.compute_epochs(10) == pytest.approx({"web": 5 / 80, "code": 5 / 20, "wiki": 0})


def test_a_cap_counts_the_epochs_of_all_stages() -> None:
    sources = {"web": MixtureSource(weight=1.0), "wiki": MixtureSource(weight=0.0, max_epochs=1.0)}
    stages = [MixtureStage(from_step=50, weights={"wiki": 1.0, "web": 1.0})]
    tokens, windows = {"web": 8000, "wiki": 1000}, {"web": 80, "wiki": 10}
    assert resolve_mixture(config(sources, stages=stages), tokens, windows, 70, 1).compute_epochs(70)["wiki"] == 1.0
    with pytest.raises(DataError, match=r"data\.sources\.wiki: .* 1\.05 times; max_epochs is 1\. Train at most 70 seq"):
        resolve_mixture(config(sources, stages=stages), tokens, windows, 71, 1)


def test_what_the_past_was_drawn_from_does_not_change_with_the_future() -> None:
    sources = {name: MixtureSource(weight=1.0) for name in ("web", "code")} | {"wiki": MixtureSource(weight=0.0)}
    without = resolve_mixture(config(sources), TOKENS, WINDOWS, 20, 4)
    later = resolve_mixture(config(sources, stages=ANNEALED), TOKENS, WINDOWS, 20, 4)
    assert later.describe_past(72) == without.describe_past(72)
    assert later.describe_past(73) != without.describe_past(73)


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (
            [{"from_step": 5, "weights": {"wiki": 1.0}}, {"from_fraction": 0.5, "weights": {"web": 1.0}}],
            r"data\.stages\.1: begins at sample 20, the stage before it at 20: nothing is left of that one",
        ),
        (
            [{"from_step": 5, "weights": {"wkii": 1.0}}],
            r"data\.stages\.0\.weights: no such source: wkii\. There",
        ),
        ([{"from_fraction": 0.01, "weights": {"web": 1.0}}], r"data\.stages\.0: begins at sample 0"),
        ([{"from_step": 5, "weights": {"web": 0.0}}], r"data\.stages: every weight is 0"),
    ],
)
def test_stages_that_cannot_be_are_refused(stages: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        resolve_mixture(config(stages=[MixtureStage(**stage) for stage in stages]), TOKENS, WINDOWS, 10, 4)
