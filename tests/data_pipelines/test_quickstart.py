"""The data of the quickstart, as far as it is the same on every machine."""

from pathlib import Path

from data_pipelines.document import read_documents
from data_pipelines.extract import extract_unit
from data_pipelines.sources.listing import list_units
from data_pipelines.splits import is_validation
from llmtrain.config.loader import load_config


def test_the_encyclopedia_has_documents_to_train_and_to_validate_on(tmp_path: Path) -> None:
    corpus = load_config([Path("configs/quickstart.yaml")], []).config.corpus
    assert corpus is not None
    source = corpus.sources["wikipedia"]
    (unit,) = list_units("wikipedia", source, tmp_path)
    part = tmp_path / "part.jsonl.zst"
    extract_unit(unit, corpus.steps[source.steps], part, tmp_path / "columns", corpus.deduplicate)
    held_out = [is_validation(document.id, corpus.validation_fraction) for document in read_documents(part)]
    assert 3 <= sum(held_out) < len(held_out) / 5
