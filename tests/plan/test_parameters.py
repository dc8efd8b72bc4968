"""Counts are exact: against transformers on the meta device, and against the model that is trained."""

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from llmtrain.config.loader import load_config
from llmtrain.model.gpt import GPT
from llmtrain.parallel.local_model import shape_of_rank
from llmtrain.plan.model_shape import ModelShape, build_model_shape
from llmtrain.plan.parameters import count_padding, count_parameters, list_rank_weights
from llmtrain.plan.partition import compute_unit_costs, partition_units
from tests.helpers.shapes import SHAPES

RUNS = sorted(Path("configs/pretrain").glob("*.yaml"))
TABLE_D_1_MILLIONS = {
    "gpt3_125m": 125,
    "gpt3_350m": 356,
    "gpt3_760m": 760,
    "gpt3_1.3b": 1320,
    "gpt3_2.7b": 2650,
    "gpt3_6.7b": 6660,
    "gpt3_13b": 12850,
    "gpt3_175b": 174600,
}


def shape_of(path: Path) -> ModelShape:
    config = load_config([path]).config
    return build_model_shape(config.model, 50_257, config.batch.sequence_length)


def count_transformers(shape: ModelShape) -> int:
    sizes = {"vocab_size": shape.vocab_size, "tie_word_embeddings": shape.tie_word_embeddings}
    with torch.device("meta"):
        if shape.family == "gpt2":
            network: torch.nn.Module = GPT2LMHeadModel(
                GPT2Config(
                    n_layer=shape.num_layers,
                    n_embd=shape.hidden_size,
                    n_head=shape.num_attention_heads,
                    n_positions=shape.max_sequence_length,
                    n_inner=shape.intermediate_size,
                    **sizes,
                )
            )
        else:
            network = LlamaForCausalLM(
                LlamaConfig(
                    num_hidden_layers=shape.num_layers,
                    hidden_size=shape.hidden_size,
                    intermediate_size=shape.intermediate_size,
                    num_attention_heads=shape.num_attention_heads,
                    num_key_value_heads=shape.num_key_value_heads,
                    **sizes,
                )
            )
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_the_parameters_of_every_shipped_model_are_those_of_transformers(path: Path) -> None:
    shape = shape_of(path)
    counts = count_parameters(shape)
    assert sum(counts.values()) == shape.num_parameters == count_transformers(shape)
    assert (counts["output projection"] == 0) == shape.tie_word_embeddings


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.stem)
def test_padding_is_what_our_own_model_has_more(path: Path) -> None:
    shape = shape_of(path)
    with torch.device("meta"):
        held = sum(parameter.numel() for parameter in GPT(shape).parameters())
    tables = 1 if shape.tie_word_embeddings else 2
    assert held - tables * count_padding(shape) == shape.num_parameters


@pytest.mark.parametrize("name", TABLE_D_1_MILLIONS)
def test_the_gpt3_presets_have_the_parameters_of_table_d1(name: str) -> None:
    millions = shape_of(Path(f"configs/pretrain/{name}.yaml")).num_parameters / 1e6
    digits = 3 if name != "gpt3_13b" else 4
    assert f"{millions:.{digits}g}" == f"{TABLE_D_1_MILLIONS[name]:.{digits}g}"


@pytest.mark.parametrize("name", sorted(SHAPES))
@pytest.mark.parametrize("tensor", [1, 2])
def test_the_weights_of_a_rank_are_those_that_are_built(name: str, tensor: int) -> None:
    shape = SHAPES[name]
    with torch.device("meta"):
        built = sorted(parameter.numel() for parameter in GPT(shape_of_rank(shape, tensor)).parameters())
    weights = list_rank_weights(shape, tensor, 1, (0, shape.num_layers + 2), 0)
    assert sorted(weight.elements for weight in weights) == built


@pytest.mark.parametrize("pipeline", [2, 3])
def test_stages_hold_all_weights_and_the_last_one_a_copy_of_a_tied_table(pipeline: int) -> None:
    for shape in SHAPES.values():
        if pipeline > shape.num_layers:
            continue
        borders = tuple(partition_units(compute_unit_costs(shape, 64), pipeline))
        held = sum(
            weight.elements
            for rank in range(pipeline)
            for weight in list_rank_weights(shape, 1, pipeline, borders, rank)
        )
        whole = sum(weight.elements for weight in list_rank_weights(shape, 1, 1, (0, shape.num_layers + 2), 0))
        copy = shape.padded_vocab_size * shape.hidden_size if shape.tie_word_embeddings else 0
        assert held == whole + copy


def test_more_tensor_ranks_than_key_value_heads_hold_them_several_times() -> None:
    shape = SHAPES["llama"]
    weights = list_rank_weights(shape, 4, 1, (0, shape.num_layers + 2), 0)
    attention = sum(weight.elements for weight in weights if weight.component == "attention")
    hidden, head = shape.hidden_size, shape.head_dim
    assert attention == shape.num_layers * (2 * head * hidden + 2 * head * hidden)
