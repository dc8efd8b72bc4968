"""Configured sources of any kind -> units of input files."""

from pathlib import Path

from data_pipelines.sources import code, documents, web, wikipedia
from data_pipelines.sources.packages import fetch_package, is_package_path
from data_pipelines.sources.unit import Unit
from llmtrain.config.corpus import CodeSource, SourceConfig, WebSource, WikipediaSource


def list_units(name: str, source: SourceConfig, downloads: Path) -> list[Unit]:
    """Units of any source; packages it names are fetched."""
    paths = [str(fetch_package(path, downloads)) if is_package_path(path) else path for path in source.paths]
    source = source.model_copy(update={"paths": paths})
    match source:
        case WebSource():
            return web.list_units(name, source, downloads)
        case WikipediaSource():
            return wikipedia.list_units(name, source)
        case CodeSource():
            return code.list_units(name, source)
        case _:
            return documents.list_units(name, source)
