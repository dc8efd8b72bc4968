"""The tokenizer: a SentencePiece model and its manifest in a folder."""

import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import sentencepiece

from llmtrain.errors import DataError
from llmtrain.tokenizer.special_tokens import BOS_ID, EOS_ID, PAD_ID, UNKNOWN_ID

MODEL_NAME = "tokenizer.model"
MANIFEST_NAME = "manifest.json"


class Tokenizer:
    """Encodes text to ids and back, exactly: `decode(encode(text)) == text` for text without U+2581 and NUL."""

    bos_id, eos_id, pad_id, unknown_id = BOS_ID, EOS_ID, PAD_ID, UNKNOWN_ID

    def __init__(self, model: bytes) -> None:
        self.sha256 = hashlib.sha256(model).hexdigest()
        self.processor = sentencepiece.SentencePieceProcessor(model_proto=model)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load from a folder written by `llmtrain data prepare`.

        Raises:
            DataError: a file is missing, or the model is not the one the manifest describes.
        """
        remedy = "Make it with `llmtrain data prepare CONFIG`."
        try:
            model = (folder / MODEL_NAME).read_bytes()
            manifest: dict[str, Any] = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise DataError(f"tokenizer {folder}: cannot be read: {error}. {remedy}") from error
        digest = hashlib.sha256(model).hexdigest()
        if digest != manifest.get("sha256"):
            raise DataError(
                f"tokenizer {folder / MODEL_NAME}: sha256 is {digest}, the manifest says {manifest.get('sha256')}: "
                f"damaged or replaced. {remedy}"
            )
        return cls(model)

    @classmethod
    def load_verified(cls, folder: Path) -> Self:
        """As `load`, with a look at every byte of the other files as well: those of its twin for `transformers`.

        Raises:
            DataError: a file is missing or not the one the manifest describes.
        """
        tokenizer = cls.load(folder)
        manifest: dict[str, Any] = json.loads((folder / MANIFEST_NAME).read_text(encoding="utf-8"))
        for name, expected in manifest.get("files", {}).items():
            path = folder / name
            found = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
            if found != expected:
                told = f"sha256 is {found}, the manifest says {expected}: damaged or replaced" if found else "missing"
                raise DataError(f"tokenizer {path}: {told}. Make it with `llmtrain data prepare CONFIG`.")
        return tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return int(self.processor.get_piece_size())

    def find_control_id(self, symbol: str) -> int:
        """Id of a control symbol, e.g. `<|fim_prefix|>`.

        Raises:
            DataError: this tokenizer has no such symbol.
        """
        number = int(self.processor.piece_to_id(symbol))
        if not self.processor.is_control(number):
            raise DataError(
                f"tokenizer {self.sha256[:12]}: has no control symbol {symbol!r}. Train it anew: remove the folder "
                "'tokenizer' and run `llmtrain data prepare`."
            )
        return number

    def encode(self, text: str) -> list[int]:
        """Ids of a text; no special token is added, and none can come from the text."""
        ids: list[int] = self.processor.encode(text)
        return ids

    def encode_batch(self, texts: Sequence[str], threads: int) -> list[list[int]]:
        """Ids of many texts, encoded on several threads."""
        ids: list[list[int]] = self.processor.encode(list(texts), num_threads=threads)
        return ids

    def render(self, ids: Sequence[int]) -> str:
        """Text of ids for people: special tokens are spelled out."""
        parts: list[str] = []
        for is_special, group in itertools.groupby(ids, self.processor.is_control):
            run = list(group)
            parts += [self.processor.id_to_piece(number) for number in run] if is_special else [self.decode(run)]
        return "".join(parts)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids; special tokens give nothing."""
        text: str = self.processor.decode(list(ids))
        return text
