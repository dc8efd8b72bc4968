"""What a response is worth: reward models and Python functions, each by name, summed with their weights.

prompts, responses (text) + ids -> one score per term -> weighted sum
"""

import hashlib
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from llmtrain.config.ppo import FunctionReward, ModelReward
from llmtrain.config.reward import ScoreFunction
from llmtrain.errors import ConfigError, DataError
from llmtrain.posttraining.chat import ChatTokenizer, load_chat_tokenizer
from llmtrain.posttraining.context import StageContext, gather_all
from llmtrain.posttraining.generation import generating
from llmtrain.posttraining.models import check_same_tokenizer, load_reward_model

OFFSET = "reward_offset"  # in the configuration of a reward model: what makes its mean on the fine-tuned model zero
TextFunction = Callable[[list[str], list[str]], Sequence[float]]


@dataclass(frozen=True)
class Answered:
    """Responses with their prompts, as text and as ids without padding."""

    prompts: list[str]
    responses: list[str]
    ids: list[list[int]]
    """Prompt and response."""


def load_function(function: ScoreFunction, key: str) -> Callable[[Answered], torch.Tensor]:
    """A function of a Python file, as a function of responses; float64 (B,).

    Args:
        function: file and name.
        key: of the configuration, for messages.

    Raises:
        ConfigError: there is no such file or function.
    """
    if not function.file.is_file():
        raise ConfigError(f"{key}.file = {function.file}: no such file.")
    try:
        module = _import_file(function.file)
    except Exception as error:
        raise ConfigError(f"{key}.file = {function.file}: cannot be imported: {error!r}") from error
    found = getattr(module, function.function, None)
    if not callable(found):
        raise ConfigError(f"{key}.function = '{function.function}': {function.file} has no such function.")

    def score(answered: Answered) -> torch.Tensor:
        return _call(found, answered, function)

    return score


def _import_file(file: Path) -> ModuleType:
    """Run a file as a module of its own, which may import files beside it.

    It is known to Python under a private name meanwhile and afterwards, because dataclasses and pickle look it up.
    """
    path = file.resolve()
    name = f"_llmtrain_function_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    # A loader of its own, so the name may end in anything.
    spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, str(path)))
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module


def _call(function: TextFunction, answered: Answered, place: ScoreFunction) -> torch.Tensor:
    where = f"{place.file}:{place.function}"
    try:
        given = function(list(answered.prompts), list(answered.responses))
        scores: list[Any] | None = list(given) if isinstance(given, Iterable) else None
    except Exception as error:
        line = _find_line(error, place.file)
        raise DataError(
            f"{where}: raised {error!r} {line} for {len(answered.prompts)} responses. Mend the function."
        ) from error
    if scores is None:
        raise DataError(f"{where}: gave {given!r}. Give a list of numbers, one for each response.")
    if len(scores) != len(answered.prompts):
        raise DataError(f"{where}: gave {len(scores)} scores for {len(answered.prompts)} responses. Give one for each.")
    for prompt, response, value in zip(answered.prompts, answered.responses, scores, strict=True):
        # numpy's numbers are numbers, too
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise DataError(f"{where}: gave {value!r} for {response[:80]!r} to {prompt[:80]!r}. Give finite numbers.")
    return torch.tensor([float(value) for value in scores], dtype=torch.float64)


def _find_line(error: Exception, file: Path) -> str:
    """The last line of a file that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file.resolve())]
    return f"at line {lines[-1]}" if lines else f"in {frames[-1].filename}"


class RewardModel:
    """A reward model with the offset that it was saved with."""

    def __init__(self, folder: Path, chat: ChatTokenizer, device: torch.device, batch_size: int) -> None:
        check_same_tokenizer(chat, load_chat_tokenizer(folder))
        self.model = load_reward_model(folder).to(device).eval()
        self.offset = float(getattr(self.model.config, OFFSET, 0.0))
        self._folder, self._pad_id, self._batch_size = folder, chat.pad_id, batch_size

    def __call__(self, answered: Answered) -> torch.Tensor:
        """Score of each response, float64 (B,).

        Raises:
            DataError: a score is not finite.
        """
        scores = score_sequences(self.model, answered.ids, self._pad_id, self._batch_size) - self.offset
        if not scores.isfinite().all():
            place = int((~scores.isfinite()).nonzero()[0])
            raise DataError(
                f"{self._folder}: scores {answered.responses[place][:80]!r} with {float(scores[place])}. The reward "
                "model is broken; train it with a lower learning rate."
            )
        return scores


@torch.no_grad()
def score_sequences(model: Any, sequences: Sequence[Sequence[int]], pad_id: int, batch_size: int) -> torch.Tensor:
    """Score at the last token of each sequence; float64 on the host (B,).

    Args:
        model: of sequence classification with one label.
        sequences: token ids without padding.
        pad_id: fills up on the right.
        batch_size: sequences of one forward pass; those of like length go together.
    """
    device = next(model.parameters()).device
    order = sorted(range(len(sequences)), key=lambda i: len(sequences[i]))
    scores = torch.zeros(len(sequences), dtype=torch.float64)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        scores[chosen] = _score_batch(model, [sequences[i] for i in chosen], pad_id, device).double().cpu()
    return scores


def score_on_all_ranks(
    model: Any, sequences: Sequence[Sequence[int]], pad_id: int, batch_size: int, context: StageContext
) -> list[float]:
    """Scores as of `score_sequences`, each rank making its share; all ranks call it and get all.

    Args:
        model: whole on this rank; it is in the mode it was in afterwards.
        sequences: token ids without padding.
        pad_id: fills up.
        batch_size: sequences of one forward pass.
        context: ranks.
    """
    mine = range(context.world.rank, len(sequences), context.world.world_size)
    with generating(model):
        scores = score_sequences(model, [sequences[i] for i in mine], pad_id, batch_size).tolist()
    return [score for _, score in sorted(gather_all(list(zip(mine, scores, strict=True))))]


def _score_batch(model: Any, rows: list[Sequence[int]], pad_id: int, device: torch.device) -> torch.Tensor:
    width = max(map(len, rows))
    ids_BT = torch.tensor([[*row, *[pad_id] * (width - len(row))] for row in rows], device=device)
    mask_BT = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    trunk = getattr(model, model.base_model_prefix)
    hidden_BTD = trunk(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False).last_hidden_state
    last_B = torch.tensor([len(row) - 1 for row in rows], device=device)
    scores: torch.Tensor = model.score(hidden_BTD[torch.arange(len(rows), device=device), last_B])[:, 0]
    return scores


class Rewards:
    """All terms of a reward."""

    def __init__(
        self,
        terms: Mapping[str, ModelReward | FunctionReward],
        folders: Mapping[str, Path],
        chat: ChatTokenizer,
        device: torch.device,
        batch_size: int,
    ) -> None:
        """Load them.

        Args:
            terms: of section `ppo.rewards`.
            folders: of reward models, by name of the term.
            chat: tokenizer of the policy.
            device: of this rank.
            batch_size: of reward models.
        """
        self.weights = {name: term.weight for name, term in terms.items()}
        self._terms: dict[str, Callable[[Answered], torch.Tensor]] = {
            name: RewardModel(folders[name], chat, device, batch_size)
            if isinstance(term, ModelReward)
            else load_function(term, f"ppo.rewards.{name}")
            for name, term in terms.items()
        }

    def score(self, answered: Answered) -> dict[str, torch.Tensor]:
        """Score of each response by each term, before weights; float64 (B,)."""
        return {name: term(answered) for name, term in self._terms.items()}

    def add(self, scores: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """The weighted sum."""
        return torch.stack([self.weights[name] * values for name, values in scores.items()]).sum(0)
