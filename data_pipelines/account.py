"""Where the documents of a unit or a source went: kept, changed or dropped for a reason, with samples to look at."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from data_pipelines.document import to_utf8
from data_pipelines.sources.packages import name_origin

MAX_SAMPLES = 3
MAX_KINDS = 2_000
_SAMPLE_CHARACTERS = 120


@dataclass
class Account:
    """Counts of documents; accounts of units add up to that of a source."""

    documents: int = 0
    """Kept."""
    characters: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    """By reason."""
    changed: Counter[str] = field(default_factory=Counter)
    """By step."""
    noted: Counter[str] = field(default_factory=Counter)
    """Kept documents by what a step found about them."""
    samples: dict[str, list[str]] = field(default_factory=dict)
    """Some of the dropped by reason, of the changed by step, of the noted by finding."""
    lengths: Counter[str] = field(default_factory=Counter)
    """Kept documents by length: key k counts those of 2^k to 2^(k+1) - 1 characters."""
    languages: Counter[str] = field(default_factory=Counter)
    """Kept documents by language; empty where no step looked."""
    domains: Counter[str] = field(default_factory=Counter)
    """Kept documents by host, for those that come from an address; the most frequent ones."""
    licences: Counter[str] = field(default_factory=Counter)
    """Kept documents by licence; the most frequent ones."""
    seconds: float = 0.0
    """CPU time."""

    def keep(self, text: str, language: str, origin: str) -> None:
        """Count a document that stays."""
        self.documents += 1
        self.characters += len(text)
        self.lengths[str(max(len(text).bit_length() - 1, 0))] += 1
        if language:
            self.languages[language] += 1
        if host := _find_host(origin):
            self.domains[host] += 1

    def drop(self, reason: str, origin: str, text: str = "") -> None:
        """Count a dropped document and keep its origin and its beginning, where it was read, if there are few samples.

        Args:
            reason: why it goes.
            origin: of it, also one that UTF-8 cannot hold.
            text: what was read of it.
        """
        self.dropped[reason] += 1
        if len(self.samples.get(reason, ())) < MAX_SAMPLES:
            beginning = f": {text[:_SAMPLE_CHARACTERS]!r}" if text else ""
            self._add_sample(reason, f"{name_origin(to_utf8(origin))}{beginning}")

    def note_change(self, step: str, origin: str, before: str, after: str) -> None:
        """Count a changed document and keep the place of the first change if there are few samples."""
        self.changed[step] += 1
        if len(self.samples.get(step, ())) < MAX_SAMPLES:
            pairs = enumerate(zip(before, after, strict=False))
            first = next((i for i, (old, new) in pairs if old != new), min(len(before), len(after)))
            cut = slice(max(0, first - _SAMPLE_CHARACTERS // 4), first + _SAMPLE_CHARACTERS // 2)
            self._add_sample(step, f"{origin}: {before[cut]!r} -> {after[cut]!r}")

    def note(self, finding: str, origin: str, text: str) -> None:
        """Count a finding about a document that stays and keep its beginning if there are few samples."""
        self.noted[finding] += 1
        self._add_sample(finding, f"{origin}: {text[:_SAMPLE_CHARACTERS]!r}")

    def add(self, other: "Account") -> None:
        """Add what another one counted."""
        self.documents += other.documents
        self.characters += other.characters
        for name in ("dropped", "changed", "noted", "lengths", "languages", "domains", "licences"):
            getattr(self, name).update(getattr(other, name))
        for name in ("domains", "licences"):
            if len(counts := getattr(self, name)) > 2 * MAX_KINDS:
                setattr(self, name, Counter(dict(counts.most_common(MAX_KINDS))))
        self.seconds += other.seconds
        for key, samples in other.samples.items():
            for sample in samples:
                self._add_sample(key, sample)

    def to_json(self) -> dict[str, Any]:
        """As plain values, counters in the order of their keys."""
        return {
            name: dict(sorted(value.items())) if isinstance(value, Counter) else value
            for name, value in vars(self).items()
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Self:
        """From what `to_json` gave."""
        counters = ("dropped", "changed", "noted", "lengths", "languages", "domains", "licences")
        plain: dict[str, Any] = {name: Counter(value) if name in counters else value for name, value in values.items()}
        return cls(**plain)

    def _add_sample(self, key: str, sample: str) -> None:
        samples = self.samples.setdefault(key, [])
        if len(samples) < MAX_SAMPLES:
            samples.append(sample)


def _find_host(origin: str) -> str:
    """The host of an address; empty for other origins, and for addresses that crawls hold and no one can parse."""
    try:
        return (urlsplit(origin).hostname or "") if "://" in origin else ""
    except ValueError:
        return ""
