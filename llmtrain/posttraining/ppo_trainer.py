"""TRL's PPOTrainer with the parts replaced that lose work, give wrong numbers, or depend on the number of ranks.

    TRL         accelerator, optimizer and schedule, wrapping of both models, generation context, callbacks
    here        prompts by a keyed order -> responses by keyed random numbers -> judged, gathered -> updates
                checkpoints that hold both models and all state; exact resume

Everything random is a function of seed, step and sample, and losses are sums over tokens divided by the tokens of the
whole mini-batch, so that a run does not depend on how its rows are shared among ranks.
"""

import functools
import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trl.experimental.ppo import PPOTrainer, ppo_trainer
from trl.models.utils import unwrap_model_for_generation

from llmtrain.config.ppo import GuardsConfig, PpoConfig
from llmtrain.data.permutation import derive_key
from llmtrain.errors import DivergenceError
from llmtrain.losses.policy import (
    adapt_coefficient,
    compute_policy_loss,
    compute_sequence_loss,
    compute_value_loss,
)
from llmtrain.posttraining.answers import to_answers
from llmtrain.posttraining.callback import WithoutModelCard, describe_line
from llmtrain.posttraining.chat import ChatTokenizer
from llmtrain.posttraining.context import StageContext, gather_all, sum_over_ranks
from llmtrain.posttraining.experience import Experience, Row, build_experience, explain_variance
from llmtrain.posttraining.generation import draw_responses
from llmtrain.posttraining.policy_and_value import (
    PolicyAndValue,
    Sequences,
    compute_logprobs,
    compute_values,
    join_rows,
)
from llmtrain.posttraining.rewards import Answered, Rewards

logger = logging.getLogger(__name__)

STATE_NAME = "ppo_state.json"
_PROMPTS, _RESPONSES, _MINI_BATCHES = 1, 2, 3
_SHOWN = ("ppo/score", "ppo/kl", "ppo/response_tokens", "ppo/ended_fraction", "ppo/entropy", "perf/samples_per_second")


class PpoTrainer(WithoutModelCard, PPOTrainer):  # type: ignore[misc]
    """One rank of PPO.

    Args:
        context: the stage.
        section: its section.
        chat: tokenizer of all models.
        rewards: what responses are worth.
        prompts: token ids and text of the training prompts.
        options: what TRL's trainer is given: `args`, `model`, `ref_model`, `value_model`, datasets, callbacks.
    """

    control: Any

    def __init__(
        self,
        context: StageContext,
        section: PpoConfig,
        chat: ChatTokenizer,
        rewards: Rewards,
        prompts: list[tuple[list[int], str]],
        **options: Any,
    ) -> None:
        self._context, self._section, self._chat, self._rewards, self._prompts = (
            context,
            section,
            chat,
            rewards,
            prompts,
        )
        self.kl_coefficient = section.kl.coefficient
        self.guard: str | None = None
        """Why the run ended early."""
        self.base_response_tokens: float | None = None
        """Mean length of the fine-tuned model's answers to held-out prompts."""
        with _replaced(PolicyAndValueWrapper=PolicyAndValue, prepare_deepspeed=_keep_whole):
            super().__init__(processing_class=chat.tokenizer, reward_model=torch.nn.Identity(), **options)
        self.ref_model.eval()

    def train(self, resume_from_checkpoint: str | None = None) -> None:
        """Roll out, judge, update, until the steps are done, a guard holds or a signal came."""
        self.model.train()
        self._begin(resume_from_checkpoint)
        while self.state.global_step < self.state.max_steps and not self._is_stopped():
            clock = _Clock()
            experience = build_experience(self._roll_out(clock), self._section, self.kl_coefficient)
            clock.lap("reward")
            metrics = self._update(experience)
            clock.lap("update")
            self._end_step(experience, metrics | clock.describe(len(experience.rows)))
        self.control = self.callback_handler.on_train_end(self.args, self.state, self.control)

    @contextmanager
    def whole_models(self) -> Iterator[Any]:
        """Policy and value model with all their weights on this rank."""
        with unwrap_model_for_generation(self.model, self.accelerator) as models:
            yield models

    def _is_stopped(self) -> bool:
        return self.guard is not None or self.control.should_training_stop

    def _begin(self, checkpoint: str | None) -> None:
        args, state = self.args, self.state
        state.max_steps, state.num_train_epochs = self._section.train_steps, 1
        state.logging_steps, state.save_steps = args.logging_steps, args.save_steps
        if self.is_deepspeed_enabled:
            self.deepspeed = self.model
        self.model_wrapped = self.model
        if checkpoint is not None:
            self.accelerator.load_state(checkpoint)
            saved = json.loads((Path(checkpoint) / STATE_NAME).read_text(encoding="utf-8"))
            state.global_step, self.kl_coefficient = saved["step"], saved["kl_coefficient"]
            self.guard = saved["guard"]
            for _ in range(state.global_step):
                self.lr_scheduler.step()
        self.control = self.callback_handler.on_train_begin(args, state, self.control)

    def _roll_out(self, clock: "_Clock") -> list[Row]:
        """Draw and judge this rank's responses; all ranks' rows."""
        step, count = self.state.global_step, self._section.global_batch_size
        share = count // self._context.world.world_size
        first = self._context.world.rank * share
        places = range(step * count + first, step * count + first + share)
        prompts = [self._find_prompt(place) for place in places]
        rows: list[Row] = []
        cast = torch.autocast(
            self.accelerator.device.type, torch.bfloat16, enabled=self._section.compute_dtype == "bfloat16"
        )
        with torch.no_grad(), self.whole_models() as models, cast:
            for start in range(0, share, self._section.micro_batch_size):
                part = slice(start, start + self._section.micro_batch_size)
                rows += self._judge(models, list(places[part]), prompts[part], clock)
        return gather_all(rows)

    def _judge(
        self, models: Any, places: list[int], prompts: list[tuple[list[int], str]], clock: "_Clock"
    ) -> list[Row]:
        chat, temperature = self._chat, self._section.generation.temperature
        keys = [derive_key(self.args.seed, _RESPONSES, place) for place in places]
        ids, texts = [prompt for prompt, _ in prompts], [text for _, text in prompts]
        rollout = draw_responses(models.policy, ids, keys, self._section.generation, chat.eos_id, chat.pad_id)
        answers = to_answers(chat, places, texts, ids, rollout)
        clock.lap("generation")
        scores = self._rewards.score(
            Answered(texts, [answer.response for answer in answers], [list(answer.ids) for answer in answers])
        )
        total = self._rewards.add(scores)
        attention = torch.cat([(rollout.prompt_ids_BP != chat.pad_id).long(), rollout.mask_BR.long()], 1)
        sequences = Sequences(
            torch.cat([rollout.prompt_ids_BP, rollout.response_ids_BR], 1), attention, rollout.mask_BR.shape[1]
        )
        reference = compute_logprobs(self.ref_model, sequences, temperature)[0]
        values = torch.zeros_like(reference)
        if models.value_model is not None:
            values = compute_values(models.value_model, sequences)
        logprobs = rollout.logprobs_BR
        if self._section.compute_dtype != "float32":  # with a cache, bfloat16 rounds otherwise than the update does
            logprobs = compute_logprobs(models.policy, sequences, temperature)[0]
        clock.lap("scoring")
        drawn, logprob, expected, value = (
            column.tolist() for column in (rollout.response_ids_BR, logprobs, reference, values)
        )
        return [
            Row(
                prompt=ids[i],
                response=drawn[i][: answer.tokens],
                logprobs=logprob[i][: answer.tokens],
                reference_logprobs=expected[i][: answer.tokens],
                values=value[i][: answer.tokens],
                scores={name: float(column[i]) for name, column in scores.items()},
                score=float(total[i]),
                has_ended=answer.has_ended,
            )
            for i, answer in enumerate(answers)
        ]

    def _find_prompt(self, place: int) -> tuple[list[int], str]:
        """The prompt of a global sample: each epoch in an order of its own; with `rloo` several samples share one."""
        answers = self._section.num_generations if self._section.algorithm == "rloo" else 1
        epoch, rank = divmod(place // answers, len(self._prompts))
        return self._prompts[int(_order_prompts(self.args.seed, epoch, len(self._prompts))[rank])]

    def _update(self, experience: Experience) -> dict[str, float]:
        """All passes over a rollout."""
        section, world = self._section, self._context.world
        count, size = len(experience.rows), len(experience.rows) // section.mini_batches
        share = size // world.world_size
        sums: dict[str, float] = defaultdict(float)
        norms: list[float] = []
        for epoch in range(section.epochs):
            key = derive_key(self.args.seed, _MINI_BATCHES, self.state.global_step, epoch)
            order = np.random.Generator(np.random.Philox(key=key)).permutation(count)
            for start in range(0, count, size):
                places = order[start : start + size]
                tokens = int(experience.mask_BR[places].sum())
                mine = places[world.rank * share : (world.rank + 1) * share]
                for first in range(0, share, section.micro_batch_size):
                    with self.accelerator.accumulate(self.model):
                        chosen = mine[first : first + section.micro_batch_size].tolist()
                        loss = self._compute_loss(experience, chosen, tokens, sums)
                        self.accelerator.backward(loss)
                        if self.accelerator.sync_gradients:
                            norms.append(self._clip_gradients())
                        self.optimizer.step()
                        self.optimizer.zero_grad()
        self.lr_scheduler.step()
        names = sorted(sums)
        totals = sum_over_ranks(torch.tensor([sums[name] for name in names], dtype=torch.float64)).tolist()
        means = {
            name: total / (section.epochs * section.mini_batches) for name, total in zip(names, totals, strict=True)
        }
        return means | {"train/grad_norm": sum(norms) / len(norms)}

    def _compute_loss(
        self, experience: Experience, chosen: list[int], tokens: int, sums: dict[str, float]
    ) -> torch.Tensor:
        """Loss of one micro-batch, scaled so that the mean over ranks and micro-batches is that of the mini-batch."""
        section, device = self._section, self.accelerator.device
        rows = [experience.rows[place] for place in chosen]
        sequences = join_rows([row.prompt for row in rows], [row.response for row in rows], self._chat.pad_id, device)
        width = sequences.response_tokens
        mask, old_logprobs, old_values, advantages, returns = (
            column[chosen, :width].to(device)
            for column in (
                experience.mask_BR,
                experience.logprobs_BR,
                experience.values_BR,
                experience.advantages_BR,
                experience.returns_BR,
            )
        )
        logprobs, entropy, values = self.model(
            sequences.ids_BT, sequences.attention_BT, width, section.generation.temperature
        )
        value_loss, value_clipped = compute_value_loss(values, old_values, returns, mask, section.value_clip_range)
        if section.algorithm == "rloo":
            policy = compute_sequence_loss(logprobs, old_logprobs, advantages[:, 0], mask, section.clip_range)
            loss, count = policy.loss, len(experience.rows) // section.mini_batches
        else:
            policy = compute_policy_loss(logprobs, old_logprobs, advantages, mask, section.clip_range)
            learns_policy = self.state.global_step >= section.critic_warmup_steps
            loss, count = learns_policy * policy.loss + section.value_coefficient * value_loss, tokens
        for name, value, number in (
            ("ppo/policy_loss", policy.loss, count),
            ("ppo/clipped_fraction", policy.clipped_tokens, count),
            ("ppo/approximate_kl", policy.approximate_kl, count),
            ("ppo/ratio", policy.ratio, count),
            ("ppo/value_loss", value_loss, tokens),
            ("ppo/value_clipped_fraction", value_clipped, tokens),
            ("ppo/entropy", (entropy * mask).sum(), tokens),
        ):
            sums[name] += float(value) / number
        # accelerate, or DeepSpeed, divides by ranks and micro-batches again.
        scaled: torch.Tensor = loss / count * self._context.world.world_size * self.args.gradient_accumulation_steps
        return scaled

    def _clip_gradients(self) -> float:
        """Scale gradients down to the limit; their norm before."""
        norm = self.accelerator.clip_grad_norm_(self.model.parameters(), self._section.max_grad_norm)
        if norm is None:  # DeepSpeed clips when it steps
            return float(self.model.get_global_grad_norm() or 0.0)
        if not math.isfinite(norm):
            raise DivergenceError(
                f"ppo: gradient norm {float(norm)} at step {self.state.global_step}. Lower ppo.learning_rate, or "
                "resume from a checkpoint."
            )
        return float(norm)

    def _end_step(self, experience: Experience, metrics: dict[str, float]) -> None:
        section, state = self._section, self.state
        state.global_step += 1
        state.epoch = state.global_step * section.global_batch_size / len(self._prompts)
        metrics |= describe_experience(experience, self.kl_coefficient)
        metrics["train/learning_rate"] = float(self.lr_scheduler.get_last_lr()[0])
        kl = metrics["ppo/kl"]
        if section.kl.target is not None:
            count = len(experience.rows)
            self.kl_coefficient = adapt_coefficient(
                self.kl_coefficient, kl, section.kl.target, count, section.kl.horizon
            )
        if self._context.writer is not None and state.global_step % section.log_every_steps == 0:
            self._context.writer.log_metrics(state.global_step, metrics)
            logger.info(
                "%s", describe_line(state.global_step, state.max_steps, {name: metrics[name] for name in _SHOWN})
            )
        self.guard = find_guard(section.guards, metrics, self.base_response_tokens)
        self.control = self.callback_handler.on_step_end(self.args, state, self.control)
        if self.control.should_save:
            self._save_state()
            self.control = self.callback_handler.on_save(self.args, state, self.control)

    def _save_state(self) -> None:
        folder = self._context.checkpoints / f"checkpoint-{self.state.global_step}"
        self.accelerator.save_state(str(folder))
        if self._context.world.is_first:
            state = {"step": self.state.global_step, "kl_coefficient": self.kl_coefficient, "guard": self.guard}
            (folder / STATE_NAME).write_text(json.dumps(state) + "\n", encoding="utf-8")


def find_guard(guards: GuardsConfig, metrics: Mapping[str, float], base_tokens: float | None) -> str | None:
    """The limit that a rollout is beyond, as a message; None while all is well."""
    kl, tokens = metrics["ppo/kl"], metrics["ppo/response_tokens"]
    if guards.max_kl is not None and kl > guards.max_kl:
        return f"KL of {kl:.2f} nats is above ppo.guards.max_kl = {guards.max_kl}"
    if guards.max_length_growth is not None and base_tokens and tokens > guards.max_length_growth * base_tokens:
        return (
            f"responses of {tokens:.1f} tokens are more than ppo.guards.max_length_growth = {guards.max_length_growth} "
            f"times the {base_tokens:.1f} of the fine-tuned model"
        )
    return None


def describe_experience(experience: Experience, kl_coefficient: float) -> dict[str, float]:
    """Means over the responses of a rollout."""
    rows, count = experience.rows, len(experience.rows)
    scores = torch.tensor([row.score for row in rows], dtype=torch.float64)
    terms = {f"ppo/score_{name}": sum(row.scores[name] for row in rows) / count for name in rows[0].scores}
    kl = float(experience.kl_B.mean())
    return terms | {
        "ppo/kl": kl,
        "ppo/kl_coefficient": kl_coefficient,
        "ppo/score": float(scores.mean()),
        "ppo/score_std": float(scores.std(correction=0)),
        "ppo/reward": float(experience.shaped_scores_B.mean()) - kl_coefficient * kl,
        "ppo/response_tokens": sum(len(row.response) for row in rows) / count,
        "ppo/ended_fraction": sum(row.has_ended for row in rows) / count,
        "ppo/explained_variance": explain_variance(experience.values_BR, experience.returns_BR, experience.mask_BR),
    }


@functools.lru_cache(maxsize=2)  # a rollout may lie in two epochs
def _order_prompts(seed: int, epoch: int, count: int) -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.random.Generator(np.random.Philox(key=derive_key(seed, _PROMPTS, epoch))).permutation(count)


class _Clock:
    """Where the time of a step goes."""

    def __init__(self) -> None:
        self._last = self._first = time.perf_counter()
        self._seconds: dict[str, float] = defaultdict(float)

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self._seconds[name] += now - self._last
        self._last = now

    def describe(self, samples: int) -> dict[str, float]:
        laps = {f"perf/{name}_seconds": seconds for name, seconds in self._seconds.items()}
        return laps | {"perf/samples_per_second": samples / (self._last - self._first)}


def _keep_whole(model: Any, accelerator: Any) -> Any:
    """In place of TRL's wrapping: reference and reward models stay whole on every rank and are only read."""
    return model.to(accelerator.device)


@contextmanager
def _replaced(**values: Any) -> Iterator[None]:
    """Names that TRL's trainer looks up while it is built."""
    before = {name: getattr(ppo_trainer, name) for name in values}
    for name, value in values.items():
        setattr(ppo_trainer, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(ppo_trainer, name, value)
