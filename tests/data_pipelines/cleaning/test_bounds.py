import pytest

from data_pipelines.cleaning.bounds import Bounds
from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import BoundsStep


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("x" * 10, None),
        ("x" * 9, "too_short"),
        ("word\n" * 20, None),
        ("word\n" * 20 + "x", "too_long"),
        ("x" * 31, "long_line"),
        ("short\n" + "x" * 31 + "\nshort", "long_line"),
        ("\x85\ue000\u200e123456789", "binary"),
        ("tab\tand line end\n", None),
    ],
)
def test_each_bound_drops_what_is_beyond_it(text: str, reason: str | None) -> None:
    config = BoundsStep(
        name="bounds", min_characters=10, max_characters=100, max_line_characters=30, min_printable_fraction=0.8
    )
    assert Bounds(config)(Subject(text)) == reason


def test_an_empty_document_stays_only_when_the_configuration_says_so() -> None:
    assert Bounds(BoundsStep(name="bounds"))(Subject("\n")) == "too_short"
    assert Bounds(BoundsStep(name="bounds", min_characters=0))(Subject("\n")) is None
