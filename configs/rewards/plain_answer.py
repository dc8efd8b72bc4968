"""A programmatic judge of answers: plain, complete, about the question. It stands where people would judge.

Each answer gets 0 to 5 points:

    1   it ends as a sentence does, with `.`, `!` or `?`
    1   share of its words that stand in the answers made from the quickstart's text: the others are made up
    1   share of the question's rarer words (4 letters and more) that it names
    1   share of its pairs of neighbouring words that are different
    1   it has 8 to 24 words; less for every word that is missing or too many
"""

import functools
import itertools
import json
import re
from pathlib import Path

ANSWERS = Path("data/quickstart/posttraining/instructions")
_WORD = re.compile(r"[^\W\d_]+")
_ASKING = {"what", "which", "does", "tell", "about", "this", "that", "python", "function", "write", "explain", "mean"}


def score(prompts: list[str], responses: list[str]) -> list[float]:
    """Points of each response."""
    return [_judge(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]


def _judge(prompt: str, response: str) -> float:
    words = [word.lower() for word in _WORD.findall(response)]
    if not words:
        return 0.0
    ends = 1.0 if response.rstrip()[-1:] in ".!?" else 0.0
    real = sum(word in _list_words() for word in words) / len(words)
    asked = {word.lower() for word in _WORD.findall(prompt) if len(word) > 3} - _ASKING
    named = len(asked & set(words)) / len(asked) if asked else 0.5
    pairs = list(itertools.pairwise(words))
    varied = len(set(pairs)) / len(pairs) if pairs else 0.0
    missing, surplus = max(0, 8 - len(words)), max(0, len(words) - 24)
    sized = max(0.0, 1 - missing / 8 - surplus / 24)
    return ends + real + named + varied + sized


@functools.cache
def _list_words() -> frozenset[str]:
    paths = sorted(ANSWERS.glob("*.jsonl"))
    if not paths:
        raise FileNotFoundError(f"{ANSWERS}: no answers. Run `llmtrain data prepare configs/quickstart.yaml` first.")
    rows = (json.loads(line) for path in paths for line in path.read_text(encoding="utf-8").splitlines())
    texts = (row["messages"][-1]["content"] for row in rows)
    return frozenset(word.lower() for text in texts for word in _WORD.findall(text))
