"""Text generated during training, to look at. All ranks generate the same text, as ZeRO-3 needs all of them."""

import torch

from llmtrain.config.training import SamplingConfig
from llmtrain.model.generate import generate
from llmtrain.parallel.engine import Engine
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer


def sample_texts(engine: Engine, tokenizer: Tokenizer, config: SamplingConfig, seed: int) -> list[tuple[str, str]]:
    """Continue each prompt of section `sampling`.

    Returns:
        Pairs of prompt and continuation. The same weights and seed give the same text.
    """
    samples = []
    for i, prompt in enumerate(config.prompts):
        # On the host, so that a GPU and a CPU draw the same numbers.
        generator = torch.Generator().manual_seed(seed + i)
        prompt_ids = [tokenizer.bos_id, *tokenizer.encode(prompt)]
        with engine.generating() as next_logits:
            new_ids = generate(
                next_logits,
                prompt_ids,
                max_sequence_length=engine.max_sequence_length,
                max_new_tokens=config.max_new_tokens,
                temperature=config.temperature,
                top_k=config.top_k,
                eos_id=tokenizer.eos_id,
                generator=generator,
            )
        samples.append((prompt, tokenizer.decode(new_ids)))
    return samples
