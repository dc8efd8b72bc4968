import re
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from data_pipelines.document import Document, identify
from data_pipelines.report_page import render_page
from data_pipelines.train_tokenizer import train_tokenizer
from data_pipelines.write_shards import write_shards
from llmtrain.config.corpus import TokenizerConfig
from tests.helpers.texts import stdlib_texts

ROW: dict[str, Any] = {
    "licences": ["PSF-2.0"],
    "units": 2,
    "input_bytes": 3_000_000,
    "documents": 30,
    "characters": 600_000,
    "train_tokens": 90_000,
    "validation_tokens": 9_000,
    "characters_per_token": 6.06,
    "seconds": 1.5,
    "dropped": {"too_short": 6, "<binary>": 4},
    "changed": {"mask_personal_data": 3},
    "noted": {"<contaminated>": 5},
    "samples": {"too_short": ["a.py: 'x = <1>'"], "mask_personal_data": ["b.py: 'bob@example.org' -> '<email>'"]},
    "lengths": {"9": 10, "11": 20},
    "languages": {"python": 30},
    "clusters": {
        "copies": {"0": 8, "4": 2},
        "largest": [{"dropped": 1_024, "source": "web", "origin": "<copied>.html"}],
    },
    "domains": {f"host{number}.org": number for number in range(1, 21)},
}


class Balanced(HTMLParser):
    """Refuses a page whose tags do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data")
    texts = stdlib_texts()
    config = TokenizerConfig(vocab_size=600, train_characters=200_000)
    tokenizer = train_tokenizer({"code": lambda: iter(texts)}, config, folder / "tokenizer")
    write_shards(
        (Document(text, f"module {i}", "PSF-2.0", "python", identify(text)) for i, text in enumerate(texts)),
        folder / "shards" / "code",
        tokenizer,
        source="code",
        licence="PSF-2.0",
        provenance={},
        validation_fraction=0.2,
        shard_tokens=1_000_000,
        workers=1,
    )
    return render_page("small & odd", {"code": ROW}, folder)


def test_the_page_stands_alone_and_its_tags_close(page: str) -> None:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"<script|<link|<img|https?://|url\(", page)


def test_the_page_tells_what_stages_told(page: str) -> None:
    parser = Balanced()
    parser.feed(page)
    text = "".join(parser.text)
    assert "Data of small & odd" in text
    assert "30 documents stay, 10 went (25.0%)" in text
    assert "2.0 MB of input per second" in text
    for told in (
        "too_short",
        "<binary>",
        "mask_personal_data",
        "a.py: 'x = <1>'",
        "python",
        "host20.org",
        "PSF-2.0",
        "<contaminated>",
    ):
        assert told in text
    assert "host5.org" not in text
    assert "and 5 more" in text


def test_documents_with_many_repeats_are_named(page: str) -> None:
    assert "<td>&lt;copied&gt;.html</td><td>web</td><td>1,024</td>" in page
    histogram = page[page.index("Repeats per document") :]
    heights = re.findall(r'height:([\d.]+)%" title="([\d,]+) to', histogram)[:5]
    assert heights == [("100.0", "1"), ("0.0", "2"), ("0.0", "4"), ("0.0", "8"), ("25.0", "16")]


def test_bars_are_shares_of_the_largest(page: str) -> None:
    widths = re.findall(r'<span>(host\d+)\.org</span><span class="bar" style="width:([\d.]+)%"', page)
    assert ("host20", "100.0") in widths
    assert ("host10", "50.0") in widths
    heights = re.findall(r'height:([\d.]+)%" title="([\d,]+) to', page)
    assert ("50.0", "512") in heights
    assert ("0.0", "1,024") in heights
    assert ("100.0", "2,048") in heights


def test_tokens_are_counted_in_the_shards(page: str) -> None:
    assert "Tokens per document" in page
    pieces = re.findall(r'<span class="piece" title="([\d.]+)% of the tokens">', page)
    shares = np.array([float(share) for share in pieces])
    assert len(shares) == 40
    assert (np.diff(shares) <= 0).all()
    assert 10 < shares.sum() < 100
