import pytest

from llmtrain.config.data import DataConfig, MixtureSource
from llmtrain.data.mixture import resolve_mixture
from llmtrain.errors import DataError

TOKENS = {"web": 8000, "code": 2000, "wiki": 1000}
WINDOWS = {"web": 80, "code": 20, "wiki": 10}


def config(sources: dict[str, MixtureSource] | None = None, temperature: float = 1.0) -> DataConfig:
    return DataConfig.model_validate(
        {"folder": "x", "sources": sources or {}, "temperature": temperature}, strict=False
    )


def test_without_weights_sources_count_by_their_size() -> None:
    mixture = resolve_mixture(config(), TOKENS, WINDOWS, 10)
    assert mixture.names == ("web", "code", "wiki")
    assert mixture.shares == pytest.approx((8 / 11, 2 / 11, 1 / 11))


def test_given_weights_are_shares_of_the_sequences() -> None:
    sources = {name: MixtureSource(weight=weight) for name, weight in (("web", 1.0), ("code", 2.0), ("wiki", 1.0))}
    mixture = resolve_mixture(config(sources), TOKENS, WINDOWS, 100)
    assert mixture.shares == pytest.approx((0.25, 0.5, 0.25))
    assert mixture.compute_epochs(100) == pytest.approx({"web": 25 / 80, "code": 50 / 20, "wiki": 25 / 10})


def test_a_higher_temperature_flattens() -> None:
    flat = resolve_mixture(config(temperature=1e6), TOKENS, WINDOWS, 10)
    assert flat.shares == pytest.approx((1 / 3, 1 / 3, 1 / 3), rel=1e-4)
    half = resolve_mixture(config(temperature=2.0), {"web": 900, "code": 100}, {"web": 9, "code": 1}, 1)
    assert half.shares == pytest.approx((0.75, 0.25))


def test_a_source_of_weight_zero_is_left_out() -> None:
    sources = {"web": MixtureSource(weight=0.0), "code": MixtureSource(weight=1.0), "wiki": MixtureSource(weight=3.0)}
    mixture = resolve_mixture(config(sources), TOKENS, WINDOWS, 10)
    assert mixture.names == ("code", "wiki")
    assert mixture.windows == (20, 10)


def test_only_zero_weights_are_refused() -> None:
    sources = {name: MixtureSource(weight=0.0) for name in TOKENS}
    with pytest.raises(DataError, match="every weight is 0"):
        resolve_mixture(config(sources), TOKENS, WINDOWS, 10)


def test_every_exceeded_cap_is_refused_with_its_numbers() -> None:
    sources = {name: MixtureSource(weight=1.0, max_epochs=2.0) for name in TOKENS}
    with pytest.raises(DataError) as caught:
        resolve_mixture(config(sources), TOKENS, WINDOWS, 300)
    text = str(caught.value)
    assert "data.sources.code: 300 sequences x share 0.3333 read 20 windows 5.00 times; max_epochs is 2" in text
    assert "Train at most 120 sequences" in text
    assert "data.sources.wiki" in text
    assert "data.sources.web" not in text
    assert resolve_mixture(config(sources), TOKENS, WINDOWS, 60).names == ("web", "code", "wiki")


def test_a_source_shorter_than_one_sequence_is_refused() -> None:
    with pytest.raises(DataError, match=r"less than one sequence in wiki \(1,000 tokens\)"):
        resolve_mixture(config(), TOKENS, WINDOWS | {"wiki": 0}, 10)
