"""Keys of post-training that contradict each other."""

from collections.abc import Iterator

from llmtrain.config.ppo import GuardsConfig, PpoConfig
from llmtrain.config.root import PosttrainingConfig

Found = Iterator[tuple[str, str]]


def check_posttraining(config: PosttrainingConfig) -> Found:
    """Each contradiction as the key to change and what is wrong."""
    for name in ("sft", "reward", "ppo"):
        section = getattr(config, name)
        if section is not None and section.global_batch_size % section.micro_batch_size:
            yield (
                f"{name}.micro_batch_size",
                f"'{name}.micro_batch_size' = {section.micro_batch_size} does not divide '{name}.global_batch_size' = "
                f"{section.global_batch_size}.",
            )
        if section is not None and section.validation_fraction >= 1:
            yield f"{name}.validation_fraction", f"'{name}.validation_fraction' = 1 leaves nothing to train on."
    if config.ppo is not None:
        yield from _check_ppo(config.ppo)
    reward = config.reward
    if reward is not None and reward.sampled is not None and config.sft is None:
        yield "reward.sampled", "'reward.sampled' draws answers to the prompts of 'sft', and there is no section 'sft'."


def _check_ppo(ppo: PpoConfig) -> Found:
    if not ppo.rewards:
        yield (
            "ppo.rewards",
            "'ppo.rewards' is empty. Name at least one term, or leave the key out for the reward model.",
        )
    if ppo.global_batch_size % (ppo.mini_batches * ppo.micro_batch_size):
        yield (
            "ppo.mini_batches",
            f"'ppo.mini_batches' = {ppo.mini_batches} x 'ppo.micro_batch_size' = {ppo.micro_batch_size} does not "
            f"divide 'ppo.global_batch_size' = {ppo.global_batch_size}.",
        )
    if ppo.guards != GuardsConfig() and ppo.evaluate_every_steps is None:
        yield (
            "ppo.evaluate_every_steps",
            "'ppo.guards' keep the best of the evaluated models, and 'ppo.evaluate_every_steps' is null. Set it.",
        )
    if ppo.critic_warmup_steps >= ppo.train_steps:
        yield (
            "ppo.critic_warmup_steps",
            f"'ppo.critic_warmup_steps' = {ppo.critic_warmup_steps} leaves no step of 'ppo.train_steps' = "
            f"{ppo.train_steps} to the policy.",
        )
    if ppo.algorithm == "rloo":
        for key in ("gamma", "gae_lambda", "whiten_rewards", "critic_warmup_steps", "value_coefficient"):
            if getattr(ppo, key) != PpoConfig.model_fields[key].default:
                yield (
                    f"ppo.{key}",
                    f"'ppo.{key}' belongs to 'ppo': 'rloo' has no value model and no discount. Leave it out.",
                )
        if ppo.num_generations < 2:
            yield (
                "ppo.num_generations",
                "'ppo.num_generations' = 1: 'rloo' compares answers to one prompt. Give 2 or more.",
            )
        elif ppo.global_batch_size % ppo.num_generations:
            yield (
                "ppo.num_generations",
                f"'ppo.num_generations' = {ppo.num_generations} does not divide 'ppo.global_batch_size' = "
                f"{ppo.global_batch_size}.",
            )
