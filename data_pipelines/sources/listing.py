"""Configured sources of any kind -> units of input files."""

from pathlib import Path

from data_pipelines.sources import code, documents, web, wikipedia
from data_pipelines.sources.packages import fetch_package, is_package_path
from data_pipelines.sources.storage import is_address
from data_pipelines.sources.unit import Unit
from llmtrain.config.corpus import CodeSource, SourceConfig, WebSource, WikipediaSource
from llmtrain.errors import DataError


def list_units(name: str, source: SourceConfig, folder: Path) -> list[Unit]:
    """Units of any source; packages it names are fetched.

    Args:
        name: of the source.
        source: its configuration.
        folder: `data.folder`; what is fetched is kept in it.

    Raises:
        DataError: a path matches nothing or what was prepared, or a storage does not answer.
    """
    units = _list_units(name, source, folder / "downloads")
    written, fetched = folder.resolve(), (folder / "downloads").resolve()
    for file in (file for unit in units for file in unit.listed if not is_address(file.name)):
        if Path(file.name).is_relative_to(written) and not Path(file.name).is_relative_to(fetched):
            raise DataError(
                f"corpus.sources.{name}.paths: {file.name} lies in data.folder, {folder}, which this command writes. "
                "Choose a folder for the data that holds no input, or narrower paths."
            )
    return units


def _list_units(name: str, source: SourceConfig, downloads: Path) -> list[Unit]:
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
