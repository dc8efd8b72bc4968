"""Conversations -> tokens, by the chat template of the model's tokenizer, and the checks that make that safe.

    messages -> template -> input_ids, and which of them the assistant says

A text that spells a special token ("</s>", "<|assistant|>") would be read as that token, so such records are left out
and counted, and never reach the template.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmtrain.conversations.records import Conversation, Message, Preference, Prompt
from llmtrain.errors import CheckpointError, DataError
from llmtrain.tokenizer.chat_template import CHAT_TEMPLATE
from llmtrain.tokenizer.special_tokens import CHAT_SYMBOLS

PROBE = (
    Message("user", "What is 2 + 2?\n"),
    Message("assistant", " Four. "),
    Message("user", "naïve café 日本語 🙂"),
    Message("assistant", "x = [1,\n\t2]"),
)
"""Turns that show how a template and its tokenizer treat white space, letters of many bytes and symbols."""


@dataclass(frozen=True)
class Encoded:
    """One conversation as tokens."""

    input_ids: list[int]
    """Token ids."""
    is_said: list[int]
    """1 where the assistant speaks, the end of its message included."""


class ChatTokenizer:
    """A Hugging Face tokenizer with a chat template that marks what the assistant says."""

    def __init__(self, tokenizer: Any, folder: Path) -> None:
        self.tokenizer = tokenizer
        self.folder = folder
        self.pad_id: int = tokenizer.pad_token_id
        self.eos_id: int = tokenizer.eos_token_id
        # Those with a role of their own (end, padding), and all others that no text may spell, such as our symbols.
        special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
        self._special = sorted(special | set(filter(None, tokenizer.all_special_tokens)), key=len, reverse=True)

    def encode(self, messages: Sequence[Message]) -> Encoded:
        """A conversation that ends with the assistant."""
        rendered = self.tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in messages],
            return_dict=True,
            return_assistant_tokens_mask=True,
        )
        return Encoded(list(rendered["input_ids"]), list(rendered["assistant_masks"]))

    def encode_prompt(self, messages: Sequence[Message]) -> list[int]:
        """A conversation that ends with the user, and the token after which the assistant speaks."""
        rendered = self.tokenizer.apply_chat_template(
            [{"role": message.role, "content": message.content} for message in messages],
            add_generation_prompt=True,
            return_dict=True,
        )
        return list(rendered["input_ids"])

    def decode(self, ids: Sequence[int]) -> str:
        """Text of a response, without special tokens."""
        return str(self.tokenizer.decode([i for i in ids if i != self.pad_id], skip_special_tokens=True))

    def find_special(self, messages: Sequence[Message]) -> str | None:
        """A special token that a text spells out."""
        return next((text for text in self._special for message in messages if text in message.content), None)

    def save(self, folder: Path) -> None:
        """Write the tokenizer with its template."""
        self.tokenizer.save_pretrained(folder)


@contextmanager
def naming(record: Conversation | Preference | Prompt) -> Iterator[None]:
    """Name the record that cannot be encoded inside.

    Raises:
        DataError: a template or a tokenizer refuses it.
    """
    from jinja2 import TemplateError

    try:
        yield
    except (TemplateError, TypeError, ValueError) as error:
        texts = [message.content for message in record.prompt]
        if isinstance(record, Conversation):
            texts.append(record.messages[-1].content)
        elif isinstance(record, Preference):
            texts += [record.chosen, record.rejected]
        half = next((character for character in "".join(texts) if "\ud800" <= character <= "\udfff"), None)
        problem = str(error) if half is None else f"\\u{ord(half):04x} is half of a surrogate pair and no character"
        raise DataError(
            f"{record.source}: record {record.id} cannot be encoded by the chat template: {problem}. Mend the record "
            "or remove it."
        ) from error


def load_chat_tokenizer(folder: Path) -> ChatTokenizer:
    """Read the tokenizer of a model, with our chat template if it has none and knows our symbols.

    Raises:
        CheckpointError: there is none; it has no end, pads with its end, has no usable template; each says what to do.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, split_special_tokens=False)
    except Exception as error:  # tokenizers raises bare ones, and others where a file has another shape
        raise CheckpointError(f"{folder}: no tokenizer that `transformers` reads: {error!r}") from error
    # It would warn of texts longer than its model reads: here they are left out, cut or refused, and counted.
    tokenizer.deprecation_warnings["sequence-length-is-longer-than-the-specified-maximum"] = True
    if tokenizer.eos_token_id is None or tokenizer.pad_token_id is None:
        raise CheckpointError(
            f"{folder}: eos_token = {tokenizer.eos_token!r}, pad_token = {tokenizer.pad_token!r}. Post-training needs "
            "both. Add them to the tokenizer and its model."
        )
    if tokenizer.eos_token_id == tokenizer.pad_token_id:
        raise CheckpointError(
            f"{folder}: pad_token = eos_token = {tokenizer.eos_token!r}. The end of a response would be masked as "
            "padding, and models would never learn to stop. Give it a padding token of its own."
        )
    if tokenizer.chat_template is None:
        missing = [symbol for symbol in CHAT_SYMBOLS if symbol not in tokenizer.get_vocab()]
        if missing:
            raise CheckpointError(
                f"{folder}: no chat template, and no token {missing[0]!r} for ours. Give the tokenizer a chat template "
                "with {% generation %} marks."
            )
        tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.padding_side = "right"
    chat = ChatTokenizer(tokenizer, folder)
    _check_template(chat)
    return chat


def _check_template(chat: ChatTokenizer) -> None:
    """The template marks what the assistant says, with its end, and a prompt is how a conversation begins.

    Raises:
        CheckpointError: it does not.
    """
    from jinja2 import TemplateError

    try:
        chat.encode(PROBE)
        chat.encode_prompt(PROBE[:1])
    except Exception as error:  # Jinja raises what a template raises
        raise CheckpointError(f"{chat.folder}: its chat template cannot be rendered: {error}") from error
    _check_probe(chat, PROBE)
    with_system = (Message("system", "Be short."), *PROBE)
    try:
        chat.encode(with_system)
    except (
        TemplateError,
        TypeError,
        ValueError,
    ):  # a template may refuse the role; a record that has it is named when it comes
        return
    _check_probe(chat, with_system)


def _check_probe(chat: ChatTokenizer, probe: Sequence[Message]) -> None:
    encoded = chat.encode(probe)
    pairs = zip(encoded.input_ids, encoded.is_said, strict=True)
    turns = [[token for token, _ in run] for flag, run in itertools.groupby(pairs, key=lambda pair: pair[1]) if flag]
    if not turns:
        raise CheckpointError(
            f"{chat.folder}: its chat template does not mark what the assistant says. Put the content and the end of "
            "its messages between {% generation %} and {% endgeneration %}."
        )
    texts = [message.content for message in probe if message.role == "assistant"]
    if any(turn[-1] != chat.eos_id for turn in turns):
        raise CheckpointError(
            f"{chat.folder}: its chat template marks no {chat.tokenizer.eos_token!r} at the end of what the assistant "
            "says, so models would never learn to stop. Move it before {% endgeneration %}."
        )
    for turn, text in itertools.zip_longest(turns, texts):
        if turn is None or text is None or not _says(chat, turn, text):
            shown = None if turn is None else chat.tokenizer.decode(turn, skip_special_tokens=False)
            wanted = None if text is None else text + chat.tokenizer.eos_token
            raise CheckpointError(f"{chat.folder}: its chat template marks {shown!r} in place of {wanted!r}.")
    for place, message in enumerate(probe):
        if message.role != "user":
            continue
        prompt = chat.encode_prompt(probe[: place + 1])
        if encoded.input_ids[: len(prompt)] != prompt:
            raise CheckpointError(
                f"{chat.folder}: its chat template begins a prompt otherwise than a conversation: ids {prompt[-4:]} "
                f"against {encoded.input_ids[max(0, len(prompt) - 4) : len(prompt)]}."
            )


def _says(chat: ChatTokenizer, turn: Sequence[int], text: str) -> bool:
    """Whether ids are the words and the end, and nothing else."""
    if list(turn) == [*chat.tokenizer.encode(text, add_special_tokens=False), chat.eos_id]:
        return True
    # Tokens may reach over the border, and a template may trim.
    said = str(chat.tokenizer.decode(turn[:-1], skip_special_tokens=False, clean_up_tokenization_spaces=False))
    return said.replace(" ", "") == text.replace(" ", "")
