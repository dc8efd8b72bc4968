from pathlib import Path

import pytest

from llmtrain.errors import DataError
from llmtrain.tokenizer.sentencepiece_tokenizer import MANIFEST_NAME, MODEL_NAME, Tokenizer
from llmtrain.tokenizer.special_tokens import CONTROL_SYMBOLS
from tests.helpers.texts import stdlib_texts
from tests.tokenizer.fuzz import fuzz_texts


def test_text_survives_encoding_and_decoding(tokenizer: Tokenizer) -> None:
    for text in (*stdlib_texts(), *fuzz_texts(500)):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_raw_text_never_gives_special_tokens(tokenizer: Tokenizer) -> None:
    text = "<s></s><pad><unk>" + "".join(CONTROL_SYMBOLS)
    specials = {tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unknown_id}
    specials |= {tokenizer.processor.piece_to_id(symbol) for symbol in CONTROL_SYMBOLS}
    assert len(specials) == 4 + len(CONTROL_SYMBOLS)
    assert not specials & set(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_special_tokens_have_fixed_ids_and_no_text(tokenizer: Tokenizer) -> None:
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id, tokenizer.unknown_id) == (1, 2, 3, 0)
    assert tokenizer.decode([tokenizer.bos_id, *tokenizer.encode("x"), tokenizer.eos_id]) == "x"


def test_threads_give_the_same_ids(tokenizer: Tokenizer) -> None:
    texts = list(stdlib_texts())
    assert tokenizer.encode_batch(texts, 2) == [tokenizer.encode(text) for text in texts]


def test_a_missing_tokenizer_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Make it with `llmtrain data prepare CONFIG`"):
        Tokenizer.load(tmp_path)


def test_a_damaged_model_is_refused(tokenizer_folder: Path, tmp_path: Path) -> None:
    content = bytearray((tokenizer_folder / MODEL_NAME).read_bytes())
    content[-10] ^= 1
    (tmp_path / MODEL_NAME).write_bytes(content)
    (tmp_path / MANIFEST_NAME).write_bytes((tokenizer_folder / MANIFEST_NAME).read_bytes())
    with pytest.raises(DataError, match=r"tokenizer\.model: sha256 is .* damaged or replaced"):
        Tokenizer.load(tmp_path)
