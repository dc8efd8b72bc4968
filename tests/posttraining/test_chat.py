"""The chat template: what it marks, what it refuses, and that it survives saving."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmtrain.conversations.records import Conversation, Message, Preference, Prompt
from llmtrain.errors import CheckpointError, DataError
from llmtrain.posttraining.answers import encode_prompts
from llmtrain.posttraining.chat import ChatTokenizer, load_chat_tokenizer
from llmtrain.posttraining.pairs import encode_pairs
from llmtrain.posttraining.sft_data import encode_conversations
from llmtrain.tokenizer.chat_template import CHAT_TEMPLATE
from llmtrain.tokenizer.sentencepiece_tokenizer import Tokenizer
from llmtrain.tokenizer.special_tokens import BOS_ID, EOS_ID, PAD_ID

QUESTION, ANSWER = Message("user", "How  many?\n"), Message("assistant", " Two, <i>naïve</i> 🙂 ")
TURNS = (Message("system", "Be short."), QUESTION, ANSWER, Message("user", "Why?"), Message("assistant", "So."))


def said(chat: ChatTokenizer, *messages: Message) -> list[int]:
    encoded = chat.encode(messages)
    return [token for token, flag in zip(encoded.input_ids, encoded.is_said, strict=True) if flag]


def test_what_is_marked_is_the_words_of_the_assistant_and_the_end(
    chat: ChatTokenizer, plain_tokenizer: Tokenizer
) -> None:
    assert said(chat, QUESTION, ANSWER) == [*plain_tokenizer.encode(ANSWER.content), EOS_ID]


def test_a_conversation_is_its_symbols_and_its_words(chat: ChatTokenizer, plain_tokenizer: Tokenizer) -> None:
    symbols = chat.tokenizer.get_vocab()
    expected = [BOS_ID]
    for message in TURNS:
        end = EOS_ID if message.role == "assistant" else symbols["<|end|>"]
        expected += [symbols[f"<|{message.role}|>"], *plain_tokenizer.encode(message.content), end]
    assert chat.encode(TURNS).input_ids == expected


def test_every_turn_of_the_assistant_is_marked(chat: ChatTokenizer, plain_tokenizer: Tokenizer) -> None:
    words = [[*plain_tokenizer.encode(text), EOS_ID] for text in (ANSWER.content, "So.")]
    assert said(chat, *TURNS) == words[0] + words[1]


@pytest.mark.parametrize("turns", [2, 4])
def test_a_prompt_is_how_its_conversation_begins(turns: int, chat: ChatTokenizer) -> None:
    prompt, encoded = chat.encode_prompt(TURNS[:turns]), chat.encode(TURNS[: turns + 1])
    assert encoded.input_ids[: len(prompt)] == prompt
    assert encoded.is_said[len(prompt) - 1 : len(prompt) + 1] == [0, 1]
    assert all(encoded.is_said[len(prompt) :])


def test_a_response_is_decoded_without_its_end_and_padding(chat: ChatTokenizer, plain_tokenizer: Tokenizer) -> None:
    ids = [*plain_tokenizer.encode(ANSWER.content), EOS_ID, PAD_ID, PAD_ID]
    assert chat.decode(ids) == ANSWER.content


@pytest.mark.parametrize("text", ["</s>", "<pad>", "<s>", "<|assistant|>", "<|end|>"])
def test_a_text_that_spells_a_special_token_is_found(text: str, chat: ChatTokenizer) -> None:
    assert chat.find_special([QUESTION, Message("assistant", f"a{text}b")]) == text
    assert chat.find_special([Message("user", text), ANSWER]) == text


@pytest.mark.parametrize("text", ["", "< /s>", "<|assistant", "</s", "<0x0A>", "s"])
def test_a_text_that_almost_spells_one_is_not(text: str, chat: ChatTokenizer) -> None:
    assert chat.find_special([Message("user", text)]) is None


def test_all_chat_symbols_are_special(chat: ChatTokenizer) -> None:
    for symbol in ("<unk>", "<|system|>", "<|user|>", "<|fim_prefix|>"):
        assert chat.find_special([Message("user", symbol)]) == symbol


def test_saved_and_read_again_it_gives_the_same_ids(chat: ChatTokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    chat.save(tmp_path)
    again = load_chat_tokenizer(tmp_path)
    assert again.tokenizer.chat_template == CHAT_TEMPLATE
    assert again.encode(TURNS) == chat.encode(TURNS)
    assert again.encode_prompt(TURNS[:2]) == chat.encode_prompt(TURNS[:2])
    assert (again.pad_id, again.eos_id) == (PAD_ID, EOS_ID)
    # What a user of the saved folder does.
    stock = AutoTokenizer.from_pretrained(tmp_path)
    rows = [{"role": message.role, "content": message.content} for message in TURNS[:2]]
    assert stock.apply_chat_template(rows, add_generation_prompt=True)["input_ids"] == chat.encode_prompt(TURNS[:2])


def change(source: Path, folder: Path, drop: str | None = None, **settings: Any) -> Path:
    """A copy of a tokenizer with other settings, perhaps without a symbol."""
    text = (source / "tokenizer.json").read_text()
    if drop is not None:
        text = text.replace(drop, "<|another|>")
    (folder / "tokenizer.json").write_text(text)
    before = json.loads((source / "tokenizer_config.json").read_text())
    kept = {name: value for name, value in (before | settings).items() if value is not None}
    (folder / "tokenizer_config.json").write_text(json.dumps(kept))
    return folder


NO_END = (
    "its chat template marks no '</s>' at the end of what the assistant says, so models would never learn to stop. "
    "Move it before {% endgeneration %}."
)
REFUSED = [
    (
        {"chat_template": CHAT_TEMPLATE.replace("{% generation %}", "").replace("{% endgeneration %}", "")},
        "its chat template does not mark what the assistant says. Put the content and the end of its messages between "
        "{% generation %} and {% endgeneration %}.",
    ),
    (
        {
            "chat_template": CHAT_TEMPLATE.replace(
                " + eos_token }}{% endgeneration %}", " }}{% endgeneration %}{{ eos_token }}"
            )
        },
        NO_END,
    ),
    (
        {
            "chat_template": CHAT_TEMPLATE.replace(
                "message['content'] + eos_token", "message['content'] + 'x' + eos_token"
            )
        },
        "its chat template marks ' Four. x</s>' in place of ' Four. </s>'.",
    ),
    (
        {"chat_template": CHAT_TEMPLATE.replace("message['content'] + eos_token", "eos_token + message['content']")},
        NO_END,
    ),
    (
        {
            "chat_template": CHAT_TEMPLATE.replace(
                "message['content'] + eos_token", "message['content'] + (eos_token if loop.last else '')"
            )
        },
        NO_END,
    ),
    (
        {
            "chat_template": CHAT_TEMPLATE.replace(
                "{{ '<|assistant|>' }}{% generation %}", "{% generation %}{{ '<|assistant|>' }}"
            )
        },
        "its chat template marks '<|assistant|> Four. </s>' in place of ' Four. </s>'.",
    ),
    (
        {
            "chat_template": CHAT_TEMPLATE.replace(
                "{{ message['content'] + eos_token }}",
                "{{ ('!' if messages[0]['role'] == 'system' else '') + message['content'] + eos_token }}",
            )
        },
        "its chat template marks '! Four. </s>' in place of ' Four. </s>'.",
    ),
    (
        {"pad_token": "</s>"},
        "pad_token = eos_token = '</s>'. The end of a response would be masked as padding, and models would never "
        "learn to stop. Give it a padding token of its own.",
    ),
    (
        {"eos_token": None},
        "eos_token = None, pad_token = '<pad>'. Post-training needs both. Add them to the tokenizer and its model.",
    ),
    (
        {"pad_token": None},
        "eos_token = '</s>', pad_token = None. Post-training needs both. Add them to the tokenizer and its model.",
    ),
    (
        {"drop": "<|user|>"},
        "no chat template, and no token '<|user|>' for ours. Give the tokenizer a chat template with {% generation %} "
        "marks.",
    ),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED)
def test_a_tokenizer_that_would_teach_wrong_things_is_refused(
    settings: dict[str, Any], message: str, tokenizer_files: Path, tmp_path: Path
) -> None:
    folder = change(tokenizer_files, tmp_path, **settings)
    with pytest.raises(CheckpointError) as caught:
        load_chat_tokenizer(folder)
    assert str(caught.value) == f"{folder}: {message}"


def test_a_template_that_begins_prompts_otherwise_is_refused(tokenizer_files: Path, tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace(
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}", "{% if add_generation_prompt %}{{ '<|system|>' }}"
    )
    folder = change(tokenizer_files, tmp_path, chat_template=template)
    with pytest.raises(CheckpointError, match="its chat template begins a prompt otherwise than a conversation: ids"):
        load_chat_tokenizer(folder)


def test_a_template_that_refuses_the_role_of_the_system_is_taken(tokenizer_files: Path, tmp_path: Path) -> None:
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    loaded = load_chat_tokenizer(change(tokenizer_files, tmp_path, chat_template=refuses + CHAT_TEMPLATE))
    assert loaded.encode(TURNS[1:3]).input_ids[-1] == EOS_ID


def test_a_template_that_cannot_be_rendered_is_refused(tokenizer_files: Path, tmp_path: Path) -> None:
    folder = change(tokenizer_files, tmp_path, chat_template="{% for %}")
    with pytest.raises(CheckpointError, match="its chat template cannot be rendered: "):
        load_chat_tokenizer(folder)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no tokenizer that `transformers` reads"):
        load_chat_tokenizer(tmp_path)


def test_a_template_of_its_own_is_kept(tokenizer_files: Path, tmp_path: Path) -> None:
    template = CHAT_TEMPLATE.replace("'<|end|>'", "'\\n<|end|>'")
    loaded = load_chat_tokenizer(change(tokenizer_files, tmp_path, chat_template=template))
    assert loaded.tokenizer.chat_template == template


def test_every_symbol_that_a_text_could_turn_into_a_token_is_looked_for(chat: ChatTokenizer) -> None:
    symbols = {i: token.content for i, token in chat.tokenizer.added_tokens_decoder.items()}
    assert len(symbols) > 8
    for i, symbol in symbols.items():
        message = Message("user", f"a{symbol}b")
        usual = chat.encode_prompt([Message("user", "ab")]).count(i)
        assert chat.encode_prompt([message]).count(i) == usual + 1
        assert chat.find_special([message]) == symbol


HALF, SYSTEM = Message("user", "a\ud83d"), Message("system", "Be short.")


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ((HALF, ANSWER), "\\ud83d is half of a surrogate pair and no character"),
        ((SYSTEM, QUESTION, ANSWER), "no system role"),
    ],
)
def test_a_record_that_cannot_be_encoded_is_named(
    messages: tuple[Message, ...], problem: str, tokenizer_files: Path, tmp_path: Path
) -> None:
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    chat = load_chat_tokenizer(change(tokenizer_files, tmp_path, chat_template=refuses + CHAT_TEMPLATE))
    encodings: list[Callable[[], object]] = [
        lambda: encode_conversations(chat, [Conversation("a", "web", messages)], 90, "refuse", "all"),
        lambda: encode_pairs(chat, [Preference("a", "web", messages[:-1], "Yes", "No")], 90, "refuse"),
        lambda: encode_prompts(chat, [Prompt("a", "web", messages[:-1], None)], 90),
    ]
    for encode in encodings:
        with pytest.raises(DataError) as caught:
            encode()
        assert str(caught.value) == (
            f"web: record a cannot be encoded by the chat template: {problem}. Mend the record or remove it."
        )


def test_half_a_surrogate_pair_in_an_answer_is_named(chat: ChatTokenizer) -> None:
    with pytest.raises(DataError, match=r"^web: record b cannot be encoded by the chat template: \\ud83d is half"):
        encode_pairs(chat, [Preference("b", "web", (QUESTION,), "Yes", "\ud83d")], 90, "refuse")


@pytest.mark.parametrize("text", ["{}", "[]", "{", '{"model": {"type": "BPE"}}'])
def test_a_tokenizer_of_another_shape_is_refused(text: str, tokenizer_files: Path, tmp_path: Path) -> None:
    folder = change(tokenizer_files, tmp_path)
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(CheckpointError, match="no tokenizer that `transformers` reads"):
        load_chat_tokenizer(folder)


def test_a_text_longer_than_the_model_reads_is_no_warning_of_the_tokenizer(
    tokenizer_files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("transformers.tokenization_utils_base")
    logger.addHandler(caplog.handler)
    try:
        encoded = load_chat_tokenizer(tokenizer_files).encode([QUESTION, Message("assistant", "long " * 200)])
    finally:
        logger.removeHandler(caplog.handler)
    assert len(encoded.input_ids) > 96
    assert caplog.text == ""
