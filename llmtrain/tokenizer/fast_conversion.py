"""The exact twin of a SentencePiece model as a Hugging Face fast tokenizer.

In: a SentencePiece model trained with identity normalisation and without a dummy prefix. Out: tokenizer.json and
tokenizer_config.json, which `transformers.AutoTokenizer` reads. Same ids, same text, proven by `check_parity`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, decoders, models, normalizers, processors
from tokenizers import Tokenizer as FastTokenizer

from llmtrain.errors import DataError
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from llmtrain.tokenizer.special_tokens import BOS, BOS_ID, EOS, PAD, UNKNOWN, UNKNOWN_ID

_NORMAL, _CONTROL, _UNIGRAM, _SPACE = 1, 3, 1, "\u2581"
_UNLIKELY = -1e4

# Text that tokenizers disagree on, if they disagree: spaces and newlines at every place, names of special tokens,
# scripts, combining marks, emoji with joiners, control characters, byte fallback.
PROBES = (
    "",
    " ",
    "  two  spaces  ",
    "\n\n\tdef f(x):\n\t\treturn x  # tab\r\n",
    "<s></s><pad><unk><|user|> <|end|>",
    "naïve café e\u0301 \u00a0 \u200b \ufeff",
    "日本語 한국어 العربية हिन्दी",
    "🙂👩‍👩‍👧 \U0001f1e9\U0001f1ea",
    "0123456789 3.14e-10 0xDEADBEEF",
    "\x01\x02\x7f \x1b[0m",
    "a" * 300,
    "<0x41> <0xFF>",
)


def convert_to_fast(tokenizer: Tokenizer) -> FastTokenizer:
    """Build the twin.

    Raises:
        DataError: the model was trained with settings that have no exact twin.
    """
    model = sentencepiece_model_pb2.ModelProto.FromString(tokenizer.processor.serialized_model_proto())
    settings = model.normalizer_spec
    if settings.name != "identity" or settings.add_dummy_prefix or settings.remove_extra_whitespaces:
        raise DataError(
            f"tokenizer: normaliser '{settings.name}', dummy prefix {settings.add_dummy_prefix}, extra whitespace "
            f"removed {settings.remove_extra_whitespaces}: no exact Hugging Face twin exists. Train it with "
            "`llmtrain data prepare`."
        )
    pieces = [(piece.piece, piece.score) for piece in model.pieces]
    kinds = [piece.type for piece in model.pieces]
    fast = FastTokenizer(_build_model(pieces, kinds, is_unigram=model.trainer_spec.model_type == _UNIGRAM))
    fast.normalizer = normalizers.Replace(" ", _SPACE)
    fast.decoder = decoders.Sequence([decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()])
    controls = [piece for (piece, _), kind in zip(pieces, kinds, strict=True) if kind == _CONTROL]
    fast.add_special_tokens([AddedToken(piece, special=True, normalized=False) for piece in (UNKNOWN, *controls)])
    fast.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, BOS_ID)]
    )
    # Special tokens come from chat templates and templates of ours, never from raw text.
    fast.encode_special_tokens = True
    return fast


def save_fast(tokenizer: Tokenizer, folder: Path, model_max_length: int | None = None) -> None:
    """Write tokenizer.json and tokenizer_config.json.

    Args:
        tokenizer: the original.
        folder: where to.
        model_max_length: positions of the model it goes with.
    """
    convert_to_fast(tokenizer).save(str(folder / "tokenizer.json"))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "unk_token": UNKNOWN,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
        "padding_side": "left",
    }
    if model_max_length is not None:
        settings["model_max_length"] = model_max_length
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def load_fast(folder: Path) -> FastTokenizer:
    """The saved twin, as `transformers` uses it with the saved settings: special tokens in raw text are split."""
    fast = FastTokenizer.from_file(str(folder / "tokenizer.json"))
    fast.encode_special_tokens = True  # not part of tokenizer.json
    return fast


def check_parity(tokenizer: Tokenizer, fast: FastTokenizer, texts: Iterable[str]) -> int:
    """Compare ids and decoded text of both tokenizers on the probes and on `texts`.

    Returns:
        How many texts were compared.

    Raises:
        DataError: they differ; the first difference is shown.
    """
    count = 0
    for text in (*PROBES, *texts):
        expected = tokenizer.encode(text)
        found = fast.encode(text, add_special_tokens=False).ids
        if found != expected:
            place = next((i for i, pair in enumerate(zip(expected, found, strict=False)) if pair[0] != pair[1]), 0)
            raise DataError(
                f"tokenizer: {text[:80]!r} has from token {place} on ids {expected[place : place + 8]} in "
                f"SentencePiece, {found[place : place + 8]} in its Hugging Face twin."
            )
        decoded, original = fast.decode(expected, skip_special_tokens=False), tokenizer.decode(expected)
        if decoded != original:
            raise DataError(f"tokenizer: ids {expected} are {original!r} in SentencePiece, {decoded!r} in its twin.")
        count += 1
    return count


def _build_model(pieces: list[tuple[str, float]], kinds: list[int], is_unigram: bool) -> models.Model:
    if is_unigram:
        # SentencePiece never matches control and byte pieces in text; the twin would, were they not so unlikely.
        scores = [
            (piece, score if kind == _NORMAL else _UNLIKELY) for (piece, score), kind in zip(pieces, kinds, strict=True)
        ]
        return models.Unigram(scores, unk_id=UNKNOWN_ID, byte_fallback=True)
    ids = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = []
    for i, (piece, score) in enumerate(pieces):
        if kinds[i] != _NORMAL:
            continue
        for cut in range(1, len(piece)):
            left, right = ids.get(piece[:cut]), ids.get(piece[cut:])
            if left is not None and right is not None and kinds[left] == kinds[right] == _NORMAL:
                merges.append((-score, left, right))
    merges.sort()
    names = [(pieces[left][0], pieces[right][0]) for _, left, right in merges]
    return models.BPE(ids, names, unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True)
