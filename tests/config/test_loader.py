from pathlib import Path

import pytest

from llmtrain.config.loader import dump_config, load_config, validate
from llmtrain.config.yaml_reader import parse_yaml
from llmtrain.errors import ConfigError
from tests.helpers.configs import write_tiny_config


def problems(folder: Path, *overrides: str, text: str | None = None) -> list[str]:
    path = write_tiny_config(folder)
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config([path], list(overrides))
    return str(caught.value).splitlines()


def test_later_files_win_and_overrides_win_over_files(tmp_path: Path) -> None:
    base = write_tiny_config(tmp_path)
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("batch: {micro_batch_size: 4}\nrun: {seed: 8}\n")
    loaded = load_config([base, overlay], ["run.seed=9", "data.sources.web.weight=1"])
    assert loaded.config.batch.micro_batch_size == 4
    assert loaded.config.batch.sequence_length == 16
    assert loaded.config.run.seed == 9
    assert loaded.config.data.sources["web"].weight == 1
    assert loaded.origins[("batch", "micro_batch_size")] == f"{overlay}:1"
    assert loaded.origins[("run", "seed")] == "command line"


def test_the_last_of_several_files_wins_key_by_key_and_each_value_knows_its_file(tmp_path: Path) -> None:
    base = write_tiny_config(tmp_path)
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("optimizer:\n  learning_rate: 1e-4\n  weight_decay: 0.5\nrun: {seed: 1}\n")
    second.write_text("optimizer:\n  betas: [0.8, 0.9]\n  weight_decay: 0.25\n")
    loaded = load_config([base, first, second], ["run.seed=2", "run.seed=3"])
    optimizer = loaded.config.optimizer
    assert (optimizer.learning_rate, optimizer.weight_decay, optimizer.betas) == (1e-4, 0.25, (0.8, 0.9))
    assert loaded.config.run.seed == 3
    assert loaded.origins[("optimizer", "learning_rate")] == f"{first}:2"
    assert loaded.origins[("optimizer", "betas", 1)] == f"{second}:2"
    assert loaded.origins[("optimizer", "weight_decay")] == f"{second}:3"
    assert loaded.origins[("run", "seed")] == "command line"
    reversed_order = load_config([base, second, first])
    assert reversed_order.config.optimizer.weight_decay == 0.5
    assert reversed_order.origins[("optimizer", "weight_decay")] == f"{first}:3"


def test_mistakes_in_several_files_are_told_together_each_in_its_file(tmp_path: Path) -> None:
    base = write_tiny_config(tmp_path)
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("batch:\n  micro_batch_size: 2.5\n")
    second.write_text("batch:\n  sequence_length: '16'\n  zzz: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_config([base, first, second], ["run.seed=x"])
    assert str(caught.value).splitlines() == [
        "command line: 'run.seed' = \"x\": it must be an integer.",
        f"{second}:2: 'batch.sequence_length' = \"16\": it must be an integer.",
        f"{first}:2: 'batch.micro_batch_size' = 2.5: it must be an integer.",
        f"{second}:3: unknown key 'batch.zzz'. Known keys: global_batch_size, micro_batch_size, sequence_length.",
    ]


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", "1.e-4"])
def test_a_small_number_is_a_float_in_files_and_overrides(text: str, tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path)
    assert load_config([path], [f"optimizer.learning_rate={text}"]).config.optimizer.learning_rate == 1e-4
    path.write_text(path.read_text().replace("learning_rate: 0.01", f"learning_rate: {text}"))
    assert load_config([path]).config.optimizer.learning_rate == 1e-4


def test_a_key_that_stands_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    path = write_tiny_config(tmp_path)
    path.write_text(path.read_text() + "batch: {sequence_length: 8}\n")
    line, first = len(path.read_text().splitlines()), path.read_text().splitlines().index("batch:") + 1
    with pytest.raises(ConfigError) as caught:
        load_config([path])
    assert str(caught.value) == f"{path}:{line}: key 'batch' stands twice, first in line {first}. Keep one."


def test_lists_replace_instead_of_merging(tmp_path: Path) -> None:
    base = write_tiny_config(tmp_path, sampling={"prompts": ["a", "b"]})
    assert load_config([base], ["sampling.prompts=[c]"]).config.sampling.prompts == ["c"]


def test_the_resolved_configuration_loads_to_itself(tmp_path: Path) -> None:
    config = load_config([write_tiny_config(tmp_path)], ["optimizer.learning_rate=1e-4"]).config
    assert validate(*parse_yaml(dump_config(config), "dump")) == config


def test_all_mistakes_are_reported_at_once_with_their_places(tmp_path: Path) -> None:
    lines = problems(
        tmp_path, "optimizer.learning_rte=1", "batch.micro_batch_size=2.5", "model.num_layers=true", "model.family=lama"
    )
    text = "\n".join(lines)
    assert "command line: unknown key 'optimizer.learning_rte'. Did you mean 'optimizer.learning_rate'?" in text
    assert "command line: 'batch.micro_batch_size' = 2.5: it must be an integer." in text
    assert "'model.family' = \"lama\". Allowed: 'gpt2', 'llama'. Did you mean 'llama'?" in text
    assert len(lines) == 3


def test_an_unknown_key_without_a_neighbour_lists_the_known_ones(tmp_path: Path) -> None:
    assert problems(tmp_path, "batch.zzz=1") == [
        "command line: unknown key 'batch.zzz'. Known keys: global_batch_size, micro_batch_size, sequence_length."
    ]


def test_an_unknown_section_gets_a_suggestion(tmp_path: Path) -> None:
    assert problems(tmp_path, "optimiser.learning_rate=1") == [
        "command line: unknown key 'optimiser'. Did you mean 'optimizer'?"
    ]


def test_a_missing_key_says_what_it_is(tmp_path: Path) -> None:
    lines = problems(tmp_path, text="run: {name: x}\n")
    assert any(line.endswith("tiny.yaml: 'data' is missing. Set it (the mixture).") for line in lines)


def test_keys_inside_a_source_are_explained_without_the_name_of_its_kind(tmp_path: Path) -> None:
    lines = problems(tmp_path, "corpus.sources.a.kind=web", "corpus.sources.a.pathss=[x]")
    assert "command line: unknown key 'corpus.sources.a.pathss'. Did you mean 'corpus.sources.a.paths'?" in lines


def test_a_source_without_kind_lists_the_kinds(tmp_path: Path) -> None:
    lines = problems(tmp_path, "corpus.sources.a.paths=[x]")
    assert lines == [
        "command line: 'corpus.sources.a.kind' is missing. Set it to one of 'web', 'wikipedia', 'code', 'documents'."
    ]


@pytest.mark.parametrize("override", ["novalue", "=1", "a..b=1"])
def test_a_malformed_override_shows_the_form(tmp_path: Path, override: str) -> None:
    assert "Write section.key=value" in problems(tmp_path, override)[0]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.train_tokens=100"], "set exactly one of them"),
        (["training.train_steps=null"], "set exactly one of them"),
        (["batch.micro_batch_size=3"], "does not divide 'batch.global_batch_size' = 8. Choose 1, 2, 4 or 8."),
        (["model.num_attention_heads=3"], "does not divide 'model.hidden_size' = 32"),
        (["model.num_key_value_heads=3"], "does not divide 'model.num_attention_heads' = 4. Choose 1, 2 or 4."),
        (["model.num_attention_heads=32"], "is odd"),
        (["schedule.min_learning_rate=1"], "is above 'optimizer.learning_rate'"),
        (["schedule.warmup_steps=11"], "exceed 'training.train_steps' = 10"),
        (["precision.parameter_dtype=bfloat16"], "weights cannot be coarser than the arithmetic"),
        (
            ["precision.parameter_dtype=bfloat16", "precision.compute_dtype=bfloat16", "parallel.zero_stage=0"],
            "needs float32 master weights",
        ),
        (["parallel.tensor_parallel_size=8"], "does not divide 'model.num_attention_heads' = 4. Choose 1, 2 or 4."),
        (["data.sources.a.weight=1", "data.sources.b.max_epochs=1"], "gives weights to a but not to b"),
        (["data.reset_position_ids=true"], "without 'data.mask_across_documents'"),
        (
            ["corpus.sources.a.kind=code", "corpus.sources.a.paths=[x]", "data.sources.b.weight=1"],
            "names b, which 'corpus.sources' does not. Known: a",
        ),
        (
            ["corpus.sources.a.kind=code", "corpus.sources.a.paths=[x]", "model.vocab_size=7"],
            "'model.vocab_size' = 7 differs from 'corpus.tokenizer.vocab_size' = 32768",
        ),
        (["run.name=../x"], "'run.name': \"../x\" is not a name: use 1 to 64 lower-case letters"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    assert any(message in line for line in problems(tmp_path, *overrides))


def test_every_shipped_configuration_loads() -> None:
    files = sorted(path for folder in ("", "pretrain") for path in Path("configs", folder).glob("*.yaml"))
    assert Path("configs/quickstart.yaml") in files
    for path in files:
        load_config([path])


def test_every_hardware_overlay_fits_the_quickstart() -> None:
    overlays = sorted(Path("configs/hardware").glob("*.yaml"))
    assert overlays
    for path in overlays:
        loaded = load_config([Path("configs/quickstart.yaml"), path])
        assert any(str(origin).startswith(str(path)) for origin in loaded.origins.values()), path
