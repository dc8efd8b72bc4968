"""What a policy answers to held-out prompts, and what that is worth, before and after.

RUN/ppo/evaluations.json    every evaluation, and the scores of the fine-tuned model; a resumed run reads it back
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from llmtrain.config.ppo import PpoConfig
from llmtrain.conversations.records import Prompt
from llmtrain.posttraining.answers import Answer, answer_prompts, as_answered, describe_answers
from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.context import StageContext, gather_all
from llmtrain.posttraining.policy_and_value import compute_logprobs, join_rows
from llmtrain.posttraining.records import SplitRecords
from llmtrain.posttraining.rewards import Answered, Rewards
from llmtrain.posttraining.statistics import describe_difference, describe_wins
from llmtrain.tracking.run_folder import write_whole

EVALUATIONS_NAME = "evaluations.json"


@dataclass
class PolicyData:
    """Prompts of a stage, as ids."""

    records: SplitRecords[Prompt]
    train: list[tuple[list[int], str]]
    """Ids, and the text that functions are given."""
    held_out: list[Prompt]
    held_out_rows: list[list[int]]
    left_out: dict[str, int]


@dataclass
class HeldOut:
    """What the policy answers to held-out prompts, and what that is worth, at each evaluation."""

    section: PpoConfig
    chat: ChatTokenizer
    data: PolicyData
    rewards: Rewards
    gold: Callable[[Answered], torch.Tensor] | None
    reference: Any
    context: StageContext
    history: list[dict[str, Any]] = field(default_factory=list)
    first: dict[str, list[float]] = field(default_factory=dict)
    """Scores of the fine-tuned model, by measure and prompt."""
    last: dict[str, list[float]] = field(default_factory=dict)
    """Scores of the model that is compared with it: at the last evaluation, or at the best one."""
    best: dict[str, Any] = field(default_factory=dict)
    """`step` and `scores` of the highest reward within the guards."""
    after: dict[str, Any] = field(default_factory=dict)
    """Row of the history that belongs to `last`."""

    def evaluate(self, policy: Any, step: int) -> dict[str, float]:
        """Answer, score, and write the table of samples; all ranks call it and get the same numbers."""
        answers = answer_prompts(
            policy,
            self.chat,
            self.data.held_out,
            self.data.held_out_rows,
            self.section.generation,
            self.context,
            self.section.micro_batch_size,
        )
        answered = as_answered(answers)
        scores = self.rewards.score(answered)
        measures = {f"score_{name}": values.tolist() for name, values in scores.items()}
        measures["reward"] = self.rewards.add(scores).tolist()
        if self.gold is not None:
            measures["gold"] = self.gold(answered).tolist()
        kl = self._measure_kl(policy, answers)
        self.last = measures
        self.first = self.first or measures
        described = describe_answers(answers, measures)
        self.after = {"step": step, "kl": sum(kl) / len(kl), **described}
        self.history.append(self.after)
        if self.is_best:
            self.best = {"step": step, "scores": measures}
        self._write(step, answers, measures, kl)
        flat = {name: value["mean"] if isinstance(value, dict) else value for name, value in described.items()}
        metrics = {f"validation/{name}": float(value) for name, value in flat.items()}
        metrics["validation/kl"] = sum(kl) / len(kl)
        name = "gold" if self.gold is not None else "reward"
        metrics["validation/win_rate"] = describe_wins(measures[name], self.first[name])["win_rate"]
        return metrics

    def _measure_kl(self, policy: Any, answers: Sequence[Answer]) -> list[float]:
        """Log-probability of each answer under the policy, less that under the reference."""
        ranks, rank, size = self.context.world.world_size, self.context.world.rank, self.section.micro_batch_size
        mine: list[tuple[int, float]] = []
        places = list(range(rank, len(answers), ranks))
        for start in range(0, len(places), size):
            chosen = [answers[place] for place in places[start : start + size]]
            prompts = [answer.ids[: len(answer.ids) - answer.tokens] for answer in chosen]
            responses = [answer.ids[len(answer.ids) - answer.tokens :] for answer in chosen]
            rows = join_rows(prompts, responses, self.chat.pad_id, self.context.device)
            mask = torch.tensor(
                [[1.0] * len(row) + [0.0] * (rows.response_tokens - len(row)) for row in responses],
                device=self.context.device,
            )
            with torch.no_grad():
                temperature = self.section.generation.temperature
                ours = compute_logprobs(policy, rows, temperature)[0]
                theirs = compute_logprobs(self.reference, rows, temperature)[0]
            sums = ((ours - theirs) * mask).sum(1).tolist()
            mine += zip(places[start : start + size], sums, strict=True)
        return [value for _, value in sorted(gather_all(mine))]

    def resume(self, step: int) -> None:
        """Take back the evaluations of a run up to the step it resumes from."""
        path = self.context.folder / EVALUATIONS_NAME
        if step == 0 or not path.is_file():
            return
        saved = json.loads(path.read_text(encoding="utf-8"))
        self.first = saved["first"]
        self.history = [row for row in saved["history"] if row["step"] <= step]
        self.best = saved["best"]

    @property
    def is_best(self) -> bool:
        """Whether the last evaluation is within the guards and has the highest reward of those that are."""
        inside = [row for row in self.history if self._is_inside(row)]
        return bool(inside) and inside[-1] is self.after and self.after["reward"]["mean"] == _find_highest(inside)

    def take_best(self) -> int:
        """Compare the best model from here on; its step."""
        step: int = self.best["step"]
        self.last, self.after = self.best["scores"], next(row for row in self.history if row["step"] == step)
        return step

    def _is_inside(self, row: dict[str, Any]) -> bool:
        guards, base = self.section.guards, self.history[0]["response_tokens"]
        is_near = guards.max_kl is None or row["kl"] <= guards.max_kl
        return is_near and (
            guards.max_length_growth is None or row["response_tokens"] <= guards.max_length_growth * base
        )

    def _write(
        self, step: int, answers: Sequence[Answer], measures: dict[str, list[float]], kl: Sequence[float]
    ) -> None:
        if self.context.writer is None:
            return
        for i, answer in enumerate(answers[: self.section.sample_table_rows]):
            fields = {name: round(values[i], 4) for name, values in measures.items()}
            self.context.writer.log_sample(step, answer.prompt, answer.response, **fields, kl=round(kl[i], 4))
        text = json.dumps({"history": self.history, "first": self.first, "best": self.best})
        write_whole(self.context.folder / EVALUATIONS_NAME, text + "\n")

    def summarize(self) -> dict[str, Any]:
        """Before and after, and what the difference is worth."""
        before, after = self.history[0], self.after
        compared = {
            name: {
                "difference": describe_difference(self.last[name], self.first[name]),
                "wins": describe_wins(self.last[name], self.first[name]),
            }
            for name in self.last
        }
        return {"before": before, "after": after, "against_sft": compared, "history": self.history}


def _find_highest(rows: Sequence[dict[str, Any]]) -> float:
    rewards: list[float] = [row["reward"]["mean"] for row in rows]
    return max(rewards)
