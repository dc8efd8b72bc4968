"""A question and its answer before it becomes a record, and the sample of them that stays."""

import hashlib
from collections import Counter
from dataclasses import dataclass

from llmtrain.config.instructions import InstructionsConfig


@dataclass(frozen=True)
class Draft:
    """A question and its answer."""

    prompt: str
    answer: str
    topic: str
    """What it is about; answers of one topic are never taken for off-topic ones of each other."""
    parent: str = ""
    """Name of the file of documents it was made of."""
    licence: str = ""


class Sample:
    """The drafts of one kind that stay: those with the lowest hashes of their answers, so memory is bounded.

    Of equal answers the first one stays, and of equal prompts.
    """

    def __init__(self, config: InstructionsConfig, seed: int) -> None:
        self._config, self._seed = config, seed
        self._kept: dict[bytes, tuple[int, Draft]] = {}
        self._limit = b"\xff" * 33
        self.seen = 0
        self.left_out: Counter[str] = Counter()

    def add(self, draft: Draft) -> None:
        """Take a draft, or count why not."""
        self.seen += 1
        if reason := self._judge(draft):
            self.left_out[reason] += 1
            return
        key = self._hash(draft.answer)
        if key in self._kept:
            self.left_out["duplicate_answer"] += 1
        elif key > self._limit:
            self.left_out["over_limit"] += 1
        else:
            self._kept[key] = (self.seen, draft)
            # Cut only now and then: a sort costs as much as many insertions.
            if len(self._kept) >= 4 * self._config.max_records_per_kind:
                self._cut()

    def take(self) -> list[Draft]:
        """What stays, in the order of the documents."""
        prompts: set[str] = set()
        for key, (_, draft) in sorted(self._kept.items(), key=lambda row: row[1][0]):
            if draft.prompt in prompts:
                del self._kept[key]
                self.left_out["duplicate_prompt"] += 1
            prompts.add(draft.prompt)
        self._cut()
        return [draft for _, draft in sorted(self._kept.values(), key=lambda row: row[0])]

    def _judge(self, draft: Draft) -> str:
        if len(draft.prompt) > self._config.max_prompt_characters:
            return "prompt_too_long"
        return "answer_too_long" if len(draft.answer) > self._config.max_response_characters else ""

    def _cut(self) -> None:
        maximum = self._config.max_records_per_kind
        if len(self._kept) > maximum:
            self.left_out["over_limit"] += len(self._kept) - maximum
            self._kept = dict(sorted(self._kept.items())[:maximum])
            self._limit = max(self._kept)

    def _hash(self, text: str) -> bytes:
        return hashlib.sha256(f"{self._seed}\0{text}".encode()).digest()
