import json
from pathlib import Path

import pytest

from llmtrain.errors import ConfigError, DataError
from llmtrain.shards.reader import open_data
from llmtrain.stages.export import export_run

FILES = {"README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json"}


def test_an_export_holds_what_transformers_reads_and_a_card_of_the_data(run_folder: Path) -> None:
    assert export_run(run_folder, None, 5) == run_folder / "export"
    assert {path.name for path in (run_folder / "export").iterdir()} == {*FILES, "tokenizer_config.json"}
    card = (run_folder / "export" / "README.md").read_text()
    manifest = json.loads((run_folder / "checkpoints" / "step-00000005" / "manifest.json").read_text())
    assert card.startswith("---\nlibrary_name: transformers\npipeline_tag: text-generation\n---\n# main\n")
    assert "A llama model of 44,192 parameters, pretrained with llmtrain for 5 steps, 640 tokens." in card
    assert f"Validation loss {manifest['validation_loss']:.4f} nats per token." in card
    assert f"Weights digest {manifest['weights_digest']}, tokenizer sha256 " in card
    for source in ("email", "json"):
        tokens = open_data(Path("data/tiny"), "train", [source])[source].token_count
        assert f"| {source} | {tokens:,} | PSF-2.0 |" in card
    special = json.loads((run_folder / "export" / "generation_config.json").read_text())
    assert (special["bos_token_id"], special["eos_token_id"]) == (1, 2)


def test_an_older_export_is_replaced_and_anything_else_is_left_alone(run_folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    assert export_run(run_folder, output, 5) == output
    assert "for 5 steps" in (output / "README.md").read_text()
    export_run(run_folder, output, None)
    assert "for 10 steps" in (output / "README.md").read_text()
    for name, path in (("README.md", tmp_path / "work"), ("thesis.tex", tmp_path / "empty")):
        path.mkdir()
        (path / name).write_text("years of work")
        with pytest.raises(ConfigError, match=r"is there already and is not an export\. Choose another folder"):
            export_run(run_folder, path, None)
        assert (path / name).read_text() == "years of work"
    with pytest.raises(ConfigError, match="is not an export"):
        export_run(run_folder, tmp_path / "work" / "README.md", None)


def test_the_working_folder_is_not_taken_for_an_export(run_folder: Path, own_project: Path) -> None:
    with pytest.raises(ConfigError, match=r"^\.: is there already and is not an export"):
        export_run(run_folder, Path(), None)
    assert (own_project / "tiny.yaml").is_file()


def test_a_tokenizer_whose_twin_differs_is_refused_and_nothing_is_written(own_project: Path, main_run: Path) -> None:
    twin = own_project / "data" / "tiny" / "tokenizer" / "tokenizer.json"
    content = json.loads(twin.read_text())
    content["model"]["merges"] = content["model"]["merges"][:5]
    twin.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"^tokenizer: .* in SentencePiece, .* in its Hugging Face twin\.$"):
        export_run(main_run, own_project / "out", None)
    assert not (own_project / "out").exists()
