import json
import resource
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from llmtrain.errors import CheckpointError
from llmtrain.model.export import check_logits_parity, export_to_huggingface, import_from_huggingface, load_gpt
from llmtrain.model.gpt import LossOutput
from llmtrain.model.huggingface import from_huggingface, pad_vocabulary, read_huggingface_shape, to_huggingface
from llmtrain.plan.model_shape import ModelShape
from tests.helpers.shapes import SHAPES
from tests.model.test_gpt import build, draw_ids

SPECIAL_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
SHAPE_CASES = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


@pytest.fixture
def tokenizer_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    return folder


def export(shape: ModelShape, tokenizer_folder: Path) -> tuple[Any, Path]:
    model, output = build(shape).eval(), tokenizer_folder.parent / "export"
    export_to_huggingface(model.state_dict(), shape, tokenizer_folder, SPECIAL_IDS, "# card\n", output)
    return model, output


@SHAPE_CASES
def test_logits_loss_and_gradients_are_those_of_transformers(shape: ModelShape, tokenizer_folder: Path) -> None:
    from transformers import AutoModelForCausalLM

    model, output = export(shape, tokenizer_folder)
    other = AutoModelForCausalLM.from_pretrained(output, dtype=torch.float32)
    ids = draw_ids(shape)
    torch.testing.assert_close(model(ids), other(ids).logits, rtol=1e-4, atol=1e-5)
    loss = other(ids, labels=ids).loss
    loss.backward()
    labels = torch.cat([ids[:, 1:], torch.full((2, 1), -100)], dim=1)
    ours = model(ids, labels_BT=labels)
    assert isinstance(ours, LossOutput)
    mean = ours.loss_sum / ours.token_count_per_sequence_B.sum()
    mean.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(mean, loss, rtol=1e-5, atol=1e-6)
    gradients = {name: parameter.grad for name, parameter in other.named_parameters()}
    if shape.tie_word_embeddings:
        name = "transformer.wte.weight" if shape.family == "gpt2" else "model.embed_tokens.weight"
        gradients.setdefault("lm_head.weight", gradients[name])
    converted = from_huggingface(gradients, shape)
    for name, parameter in model.named_parameters():
        expected = pad_vocabulary(name, converted[name], shape)
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-3, atol=1e-5, msg=name)


@SHAPE_CASES
def test_a_round_trip_changes_no_bit(shape: ModelShape, tokenizer_folder: Path) -> None:
    model, output = export(shape, tokenizer_folder)
    found_shape, weights = import_from_huggingface(output)
    assert found_shape == shape
    assert weights.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        is_table = name in ("embedding.token.weight", "head.weight")
        assert torch.equal(weights[name], tensor[: shape.vocab_size] if is_table else tensor), name


def test_the_folder_holds_what_a_stock_model_needs(tokenizer_folder: Path) -> None:
    _, output = export(SHAPES["llama"], tokenizer_folder)
    config = json.loads((output / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (config["vocab_size"], config["bos_token_id"], config["eos_token_id"]) == (90, 1, 2)
    names = {path.name for path in output.iterdir()}
    assert {
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "README.md",
        "generation_config.json",
    } <= names
    assert not list(output.parent.glob("*.tmp"))


def test_the_gate_refuses_a_model_that_says_something_else(tokenizer_folder: Path) -> None:
    shape = SHAPES["llama"]
    model, output = export(shape, tokenizer_folder)
    assert check_logits_parity(model, output) < 1e-5
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    weights["blocks.1.feed_forward.down.weight"][0, 0] += 1.0
    with pytest.raises(CheckpointError, match="its logits differ from ours"):
        check_logits_parity(load_gpt(weights, shape), output)


def test_a_refused_export_leaves_the_one_before(tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shape = SHAPES["gpt2"]
    _, output = export(shape, tokenizer_folder)
    before = (output / "model.safetensors").read_bytes()

    def twist(weights: Any, shape: ModelShape) -> dict[str, torch.Tensor]:
        result = to_huggingface(weights, shape)
        result["transformer.ln_f.weight"] = result["transformer.ln_f.weight"] * 2
        return result

    monkeypatch.setattr("llmtrain.model.export.to_huggingface", twist)
    with pytest.raises(CheckpointError):
        export(shape, tokenizer_folder)
    assert (output / "model.safetensors").read_bytes() == before
    assert not list(output.parent.glob("*.tmp"))


@pytest.mark.parametrize(("limit_bytes", "cause"), [(100, OSError), (10_000, SafetensorError)])
def test_an_export_that_does_not_fit_on_the_disk_is_an_error_and_leaves_nothing(
    tokenizer_folder: Path, limit_bytes: int, cause: type[Exception]
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limits[1]))  # a write beyond it fails, as on a full disk
    try:
        with pytest.raises(CheckpointError, match=r"export: could not be written: .*Free some space") as caught:
            export(SHAPES["llama"], tokenizer_folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert isinstance(caught.value.__cause__, cause)
    assert [path.name for path in tokenizer_folder.parent.iterdir()] == ["tokenizer"]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama", {"hidden_act": "gelu"}, "hidden_act = 'gelu'. Supported: 'silu'"),
        ("llama", {"attention_bias": True}, "attention_bias = True"),
        ("llama", {"mlp_bias": True}, "mlp_bias = True"),
        ("llama", {"head_dim": 16}, "head_dim = 16. Supported: 8"),
        ("gpt2", {"activation_function": "relu"}, "activation_function = 'relu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx = True"),
    ],
)
def test_models_with_other_parts_are_refused_by_name(
    tokenizer_folder: Path, name: str, changes: dict[str, Any], message: str
) -> None:
    _, output = export(SHAPES[name], tokenizer_folder)
    path = output / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(CheckpointError) as caught:
        read_huggingface_shape(output)
    assert message in str(caught.value)


def test_scaled_rotary_positions_and_other_families_are_refused(tokenizer_folder: Path) -> None:
    _, output = export(SHAPES["llama"], tokenizer_folder)
    path = output / "config.json"
    config = json.loads(path.read_text())
    config["rope_parameters"] = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 2.0}
    path.write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="rope_type = 'linear'"):
        read_huggingface_shape(output)
    path.write_text(json.dumps({"model_type": "opt"}))
    with pytest.raises(CheckpointError, match=r"model type 'opt'\. Supported: gpt2, llama"):
        read_huggingface_shape(output)
    with pytest.raises(CheckpointError, match="not a Hugging Face model"):
        read_huggingface_shape(tokenizer_folder)
