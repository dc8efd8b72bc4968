"""Every kind of mistake a single key can hold, with the whole message."""

from pathlib import Path

import pytest

from llmtrain.config.explain import find_origin
from llmtrain.config.loader import load_config
from llmtrain.errors import ConfigError
from tests.helpers.configs import write_tiny_config


def explain(folder: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config([write_tiny_config(folder)], list(overrides))
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.train_steps=true", "'training.train_steps' = true: it must be an integer."),
        ("training.train_steps=3.5", "'training.train_steps' = 3.5: it must be an integer."),
        ("training.train_steps='10'", "'training.train_steps' = \"10\": it must be an integer."),
        ("model.num_layers=null", "'model.num_layers' = null: it must be an integer."),
        ("batch.micro_batch_size.x=1", "'batch.micro_batch_size' = {\"x\": 1}: it must be an integer."),
        ("optimizer.learning_rate='1e-2'", "'optimizer.learning_rate' = \"1e-2\": it must be a number."),
        ("optimizer.learning_rate=true", "'optimizer.learning_rate' = true: it must be a number."),
        ("optimizer.learning_rate=nan", "'optimizer.learning_rate' = \"nan\": it must be a number."),
        ("optimizer.learning_rate=1e999", "'optimizer.learning_rate' = Infinity: it must be a finite number."),
        ("checkpoint.keep_best=1", "'checkpoint.keep_best' = 1: it must be true or false."),
        ("checkpoint.keep_best=yes", "'checkpoint.keep_best' = \"yes\": it must be true or false."),
        ("tracking.tracking_uri=5", "'tracking.tracking_uri' = 5: it must be a string."),
        ("run.root=[a]", "'run.root' = [\"a\"]: it must be a string."),
        ("sampling.prompts=a", "'sampling.prompts' = \"a\": it must be a list."),
        ("sampling.prompts=[a, 1]", "'sampling.prompts.1' = 1: it must be a string."),
        ("batch=3", "'batch' = 3: it must be a mapping."),
        ("schedule=constant", "'schedule' = \"constant\": it must be a mapping."),
        ("data.sources.web=1", "'data.sources.web' = 1: it must be a mapping."),
        ("optimizer.learning_rate=0", "'optimizer.learning_rate' = 0: it must be greater than 0."),
        ("run.seed=-1", "'run.seed' = -1: it must be greater than or equal to 0."),
        ("parallel.zero_stage=4", "'parallel.zero_stage' = 4: it must be less than or equal to 3."),
        ("optimizer.betas=[0.9, 1.5]", "'optimizer.betas.1' = 1.5: it must be less than 1."),
        ("optimizer.betas=[0.9]", "'optimizer.betas.1' is missing. Set it."),
        (
            "optimizer.betas=[0.9, 0.9, 0.9]",
            "'optimizer.betas' = [0.9, 0.9, 0.9]: it must have at most 2 items, not 3.",
        ),
        (
            "corpus.sources={web: {kind: web, paths: ['']}}",
            "'corpus.sources.web.paths.0' = \"\": it must have at least 1 character.",
        ),
        ("corpus.sources={}", "'corpus.sources' = {}: it must have at least 1 item, not 0."),
        ("checkpoint.resume=maybe", "'checkpoint.resume' = \"maybe\": it must be 'auto', 'never' or 'must'."),
        ("optimizer.name=adam", "'optimizer.name' = \"adam\": it must be 'adamw'."),
        (
            "schedule.name=cosin",
            "'schedule.name' = \"cosin\". Allowed: 'constant', 'cosine', 'linear', 'wsd'. Did you mean 'cosine'?",
        ),
        ("schedule.name=null", "'schedule.name' = null. Allowed: 'constant', 'cosine', 'linear', 'wsd'."),
        (
            "run.name=My Run",
            "'run.name': \"My Run\" is not a name: use 1 to 64 lower-case letters, digits, '_', '-' or '.', the first "
            "a letter or a digit.",
        ),
        (
            "data.sources.Web.weight=1",
            "'data.sources.Web': \"Web\" is not a name: use 1 to 64 lower-case letters, digits, '_', '-' or '.', the "
            "first a letter or a digit.",
        ),
        ("schedule.decay_step=1", "unknown key 'schedule.decay_step'. Did you mean 'schedule.decay_steps'?"),
        (
            "tracking.zzz=1",
            "unknown key 'tracking.zzz'. Known keys: cluster, experiment, mlflow, peak_flops, system_interval_seconds, "
            "tracking_uri.",
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(override: str, message: str, tmp_path: Path) -> None:
    assert explain(tmp_path, override) == f"command line: {message}"


def test_only_keys_of_the_chosen_variant_are_known(tmp_path: Path) -> None:
    text = explain(tmp_path, "schedule={name: constant, zzz: 1}")
    assert text == "command line: unknown key 'schedule.zzz'. Known keys: name, warmup_steps."
    text = explain(tmp_path, "model.num_key_value_head=2")
    assert text == "command line: unknown key 'model.num_key_value_head'. Did you mean 'model.num_key_value_heads'?"
    path = write_tiny_config(tmp_path)
    line = path.read_text().splitlines().index("  num_key_value_heads: 2") + 1
    text = explain(tmp_path, "model.family=gpt2")
    assert text == f"{path}:{line}: unknown key 'model.num_key_value_heads'. Did you mean 'model.num_attention_heads'?"


def test_a_missing_key_is_described_at_the_mapping_that_lacks_it(tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path)
    path.write_text(path.read_text().replace("  sequence_length: 16\n", ""))
    with pytest.raises(ConfigError) as caught:
        load_config([path])
    line = path.read_text().splitlines().index("  micro_batch_size: 2") + 1
    assert str(caught.value) == f"{path}:{line}: 'batch.sequence_length' is missing. Set it (tokens per sequence)."


def test_a_variant_without_its_name_lists_the_names(tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path)
    path.write_text(path.read_text().replace("  name: cosine\n", ""))
    line = path.read_text().splitlines().index("  warmup_steps: 2") + 1
    with pytest.raises(ConfigError) as caught:
        load_config([path])
    allowed = "'constant', 'cosine', 'linear', 'wsd'"
    assert str(caught.value) == f"{path}:{line}: 'schedule.name' is missing. Set it to one of {allowed}."


def test_the_origin_of_a_value_is_that_of_the_nearest_mapping_around_it() -> None:
    origins: dict[tuple[str | int, ...], str] = {("a",): "x.yaml:1", ("a", "b"): "x.yaml:2", ("a", "l", 1): "x.yaml:5"}
    assert find_origin(("a", "b"), origins) == "x.yaml:2"
    assert find_origin(("a", "l", 1), origins) == "x.yaml:5"
    assert find_origin(("a", "c", "d"), origins) == "x.yaml:1"
    assert find_origin(("z",), origins) == "configuration"
    assert find_origin(("z",), origins | {(): "x.yaml"}) == "x.yaml"
