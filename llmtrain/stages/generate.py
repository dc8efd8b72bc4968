"""Command `generate`: continue text with the model of a run."""

from collections.abc import Sequence
from pathlib import Path

import torch

from llmtrain.model.export import load_gpt
from llmtrain.model.generate import cached_logits, generate
from llmtrain.stages.finished_run import load_finished_run


def generate_texts(
    run_folder: Path,
    prompts: Sequence[str],
    max_new_tokens: int,
    temperature: float,
    top_k: int | None,
    seed: int,
    step: int | None,
) -> list[str]:
    """Each prompt with its continuation. The same seed gives the same text."""
    run = load_finished_run(run_folder, step)
    model = load_gpt(run.weights, run.shape)
    texts = []
    for i, prompt in enumerate(prompts):
        new_ids = generate(
            cached_logits(model),
            [run.tokenizer.bos_id, *run.tokenizer.encode(prompt)],
            max_sequence_length=run.shape.max_sequence_length,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            eos_id=run.tokenizer.eos_id,
            generator=torch.Generator().manual_seed(seed + i),
        )
        texts.append(prompt + run.tokenizer.decode(new_ids))
    return texts
