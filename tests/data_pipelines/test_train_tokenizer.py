import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from data_pipelines.train_tokenizer import MAX_PIECE_BYTES, cut_at_lines, draw_sample, hash_text, train_tokenizer
from llmtrain.config.corpus import TokenizerConfig
from llmtrain.errors import DataError
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from tests.helpers.texts import stdlib_texts

CONFIG = TokenizerConfig(vocab_size=500, train_characters=100_000)


def reader(texts: tuple[str, ...]) -> Callable[[], Iterator[str]]:
    return lambda: iter(texts)


def test_the_same_text_gives_the_same_model_in_any_order_of_files(tmp_path: Path) -> None:
    first = train_tokenizer({"code": reader(stdlib_texts())}, CONFIG, tmp_path / "a")
    again = train_tokenizer({"code": reader(stdlib_texts())}, CONFIG, tmp_path / "b")
    assert first.sha256 == again.sha256
    assert Tokenizer.load(tmp_path / "a").sha256 == first.sha256
    assert first.vocab_size == 500


def test_pieces_hold_line_ends_with_indentation(tmp_path: Path) -> None:
    config = TokenizerConfig(vocab_size=2000, train_characters=1_000_000)
    tokenizer = train_tokenizer({"code": reader(stdlib_texts())}, config, tmp_path / "tokenizer")
    pieces = [tokenizer.processor.id_to_piece(i) for i in range(tokenizer.vocab_size)]
    assert any("\n" in piece and len(piece) > 1 for piece in pieces)
    assert "\u2581" * 4 in pieces


def test_sources_share_the_sample_evenly_and_small_ones_give_what_they_have() -> None:
    texts = stdlib_texts()
    small = (texts[0][:1000],)
    pieces = list(draw_sample({"big": reader(texts), "small": reader(small)}, 100_000))
    assert "".join(pieces).count(small[0]) == 1
    assert sum(map(len, pieces)) == 100_000


def test_the_sample_is_the_documents_with_the_smallest_hashes_and_the_last_is_cut() -> None:
    texts = stdlib_texts()
    in_order = sorted(texts, key=hash_text)
    wanted, left = [], sum(map(len, in_order[:5])) + 100
    for text in in_order[:6]:
        wanted.append(text[:left])
        left -= len(text)
    characters = sum(map(len, wanted))
    assert characters == sum(map(len, in_order[:5])) + 100
    for order in (texts, tuple(reversed(texts)), texts + texts):
        drawn = list(draw_sample({"a": reader(order)}, characters))
        assert sorted(drawn) == sorted(piece for text in wanted for piece in cut_at_lines(text))


def test_a_long_document_is_no_way_around_the_limit() -> None:
    assert sum(map(len, draw_sample({"a": reader(("ab " * 1_000_000,))}, 5000))) == 5000


def test_memory_is_that_of_what_is_drawn_not_of_the_source() -> None:
    peaks = []
    for documents in (20_000, 200_000):

        def read(count: int = documents) -> Iterator[str]:
            return (f"document {number} " * 9 for number in range(count))

        tracemalloc.start()
        drawn = list(draw_sample({"a": read}, 100_000))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert sum(map(len, drawn)) == 100_000
    assert peaks[1] < 1.5 * peaks[0]


def test_the_sample_does_not_depend_on_the_number_of_sources_before() -> None:
    texts = stdlib_texts()
    drawn = "".join(draw_sample({"a": reader(texts)}, 50_000))
    assert drawn
    assert drawn == "".join(draw_sample({"a": reader(texts)}, 50_000))


@pytest.mark.parametrize("text", ["", "one line", "x" * 100_000, "é\n" * 50_000, "a\r\nb\u2028c\n" * 9000])
def test_long_documents_are_cut_without_losing_a_character(text: str) -> None:
    pieces = list(cut_at_lines(text))
    assert "".join(pieces) == text
    assert all(len(piece.encode()) <= MAX_PIECE_BYTES for piece in pieces)


def test_too_little_text_is_refused_with_the_numbers(tmp_path: Path) -> None:
    config = TokenizerConfig(vocab_size=30_000, train_characters=10_000)
    with pytest.raises(DataError, match=r"corpus\.tokenizer\.vocab_size = 30000: .*[0-9,]+ characters"):
        train_tokenizer({"code": reader(stdlib_texts()[:2])}, config, tmp_path / "tokenizer")
    assert not (tmp_path / "tokenizer").exists()
