"""Real raw text of every kind, made once for all tests."""

import bz2
from pathlib import Path

import pytest

from data_pipelines.sources import pydoc_site
from data_pipelines.sources.unit import expand_path

GENSIM_DUMP = "package:gensim/test/test_data/enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
NUM_CRAWLED = 25
NUM_PAGES = 80


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first pages of the site of pydoc as a WARC archive."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydoc_site, "_MAX_PAGES", NUM_CRAWLED)
        # A proxy must not be asked for pages of this machine.
        patch.setenv("http_proxy", "http://127.0.0.1:9")
        return pydoc_site.crawl_pydoc_site(tmp_path_factory.mktemp("crawl") / "pydoc.warc.gz")


@pytest.fixture(scope="session")
def dump() -> Path:
    """The MediaWiki dump sample inside the wheel of gensim."""
    return expand_path(GENSIM_DUMP)[0]


@pytest.fixture(scope="session")
def small_dump(dump: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its first pages, as plain XML."""
    head = bz2.decompress(dump.read_bytes())
    pages = head.split(b"  <page>")
    path = tmp_path_factory.mktemp("dump") / "small.xml"
    path.write_bytes(b"  <page>".join(pages[: NUM_PAGES + 1]) + b"</mediawiki>\n")
    return path
