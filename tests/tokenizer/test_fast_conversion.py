import json
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer as FastTokenizer

from llmtrain.errors import DataError
from llmtrain.tokenizer.fast_conversion import PROBES, check_parity, convert_to_fast
from llmtrain.tokenizer.sentencepiece_tokenizer import MODEL_NAME, Tokenizer
from tests.helpers.texts import stdlib_texts
from tests.tokenizer.fuzz import fuzz_texts


def test_the_twin_gives_the_same_ids_and_the_same_text(tokenizer: Tokenizer) -> None:
    texts = [*fuzz_texts(2000), *stdlib_texts()]
    assert check_parity(tokenizer, convert_to_fast(tokenizer), texts) == len(PROBES) + len(texts)


def test_the_saved_twin_is_read_by_transformers_with_the_same_ids(tokenizer_folder: Path, tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    fast = AutoTokenizer.from_pretrained(str(tokenizer_folder))
    assert (fast.bos_token_id, fast.eos_token_id, fast.pad_token_id) == (1, 2, 3)
    for text in (*PROBES, *fuzz_texts(300)):
        assert fast(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(text)
        assert fast(text)["input_ids"] == [tokenizer.bos_id, *tokenizer.encode(text)]
        assert fast.decode(tokenizer.encode(text)) == text


def test_a_difference_is_shown(tokenizer_folder: Path, tokenizer: Tokenizer) -> None:
    wrong = json.loads((tokenizer_folder / "tokenizer.json").read_text())
    wrong["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "_"}
    with pytest.raises(DataError, match="in its Hugging Face twin"):
        check_parity(tokenizer, FastTokenizer.from_str(json.dumps(wrong)), [])


def test_a_model_with_other_settings_has_no_twin(tmp_path: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(stdlib_texts()[0].splitlines()),
        model_prefix=str(tmp_path / "tokenizer"),
        vocab_size=300,
        minloglevel=2,
    )
    with pytest.raises(DataError, match="normaliser 'nmt_nfkc', dummy prefix True"):
        convert_to_fast(Tokenizer((tmp_path / MODEL_NAME).read_bytes()))
