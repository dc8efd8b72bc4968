"""Public formats of conversations, preferences and prompts: telling them apart, and one row -> records.

messages            messages: [{role, content}, ...]                        conversations, prompts
prompt_completion   prompt, completion or response                          conversations, prompts
prompt              prompt                                                  prompts
alpaca              instruction, input, output                              conversations, prompts
sharegpt            conversations: [{from, value}, ...]                     conversations, prompts
open_assistant      message_tree_id, prompt: a tree of ranked replies       conversations, preferences, prompts
hh_rlhf             chosen, rejected: transcripts                           preferences, prompts
ultrafeedback       prompt, chosen, rejected: text and lists of messages    preferences, prompts
preference          prompt (or none), chosen, rejected: either              preferences, prompts
"""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import get_args

from llmtrain.config.records import RecordFormat
from llmtrain.conversations import conversation_formats, open_assistant, preference_formats
from llmtrain.conversations.messages import join_names, parse_prompt
from llmtrain.conversations.records import Conversation, Preference, Prompt, identify
from llmtrain.conversations.row import Row

# Columns that tell a format. Where several fit, one whose columns are all among another's gives way to it.
_COLUMNS: list[tuple[RecordFormat, frozenset[str]]] = [
    ("messages", frozenset({"messages"})),
    ("prompt", frozenset({"prompt"})),
    ("prompt_completion", frozenset({"prompt", "completion"})),
    ("prompt_completion", frozenset({"prompt", "response"})),
    ("alpaca", frozenset({"instruction", "output"})),
    ("sharegpt", frozenset({"conversations"})),
    ("open_assistant", frozenset({"message_tree_id", "prompt"})),
    ("preference", frozenset({"chosen", "rejected"})),
    ("preference", frozenset({"prompt", "chosen", "rejected"})),
    ("ultrafeedback", frozenset({"prompt", "chosen", "rejected", "messages"})),
    ("ultrafeedback", frozenset({"prompt", "chosen", "rejected", "score_chosen", "score_rejected"})),
]
_Conversations = Callable[[Row, str, Counter[str]], Iterator[Conversation]]
_Preferences = Callable[[Row, str, Counter[str]], Iterator[Preference]]
_CONVERSATIONS: dict[RecordFormat, _Conversations] = {
    "messages": conversation_formats.parse_messages_row,
    "prompt_completion": conversation_formats.parse_prompt_completion,
    "alpaca": conversation_formats.parse_alpaca,
    "sharegpt": conversation_formats.parse_sharegpt,
    "open_assistant": open_assistant.parse_best_path,
}
_PREFERENCES: dict[RecordFormat, _Preferences] = {
    "open_assistant": open_assistant.parse_pairs,
    "hh_rlhf": preference_formats.parse_hh_rlhf,
    "ultrafeedback": preference_formats.parse_preference,
    "preference": preference_formats.parse_preference,
}


def tell_format(row: Row) -> RecordFormat:
    """The format of a row, from its columns; transcripts and other texts in `chosen` are told by how they begin.

    Raises:
        RowError: no format fits, or several do.
    """
    columns = frozenset(row.values)
    fits = [(name, needs) for name, needs in _COLUMNS if needs <= columns]
    names = sorted({name for name, needs in fits if not any(needs < others for _, others in fits)})
    if names == ["preference"] and "prompt" not in columns and preference_formats.is_transcript(row.values["chosen"]):
        return "hh_rlhf"
    if len(names) == 1:
        return next(name for name, _ in fits if name == names[0])
    if names:
        raise row.refuse_columns(f"fit {join_names(names, 'and')}", f"Set format to {join_names(names, 'or')}.")
    known = join_names(get_args(RecordFormat), "or")
    raise row.refuse_columns("fit no format that is known", f"Name them as {known} does: docs/conversations.md.")


def parse_conversations(row: Row, form: RecordFormat, source: str, left_out: Counter[str]) -> Iterator[Conversation]:
    """Conversations of a row.

    Args:
        row: to parse.
        form: its format.
        source: name that the records carry.
        left_out: counts, by reason, what of the row is no record without anything being wrong.

    Raises:
        RowError: something is wrong with the row, or its format holds no conversations.
    """
    if form not in _CONVERSATIONS:
        raise _refuse_kind(row, form, "conversations", list(_CONVERSATIONS))
    return _CONVERSATIONS[form](row, source, left_out)


def parse_preferences(row: Row, form: RecordFormat, source: str, left_out: Counter[str]) -> Iterator[Preference]:
    """Preferences of a row; arguments and errors as of `parse_conversations`."""
    if form not in _PREFERENCES:
        raise _refuse_kind(row, form, "preferences", list(_PREFERENCES))
    return _PREFERENCES[form](row, source, left_out)


def parse_prompts(row: Row, form: RecordFormat, source: str, left_out: Counter[str]) -> Iterator[Prompt]:
    """Prompts of a row of any format; arguments and errors as of `parse_conversations`.

    The reference of a conversation is its last answer, that of a preference the chosen one.
    """
    match form:
        case "prompt":
            messages = parse_prompt(row, "prompt", row.find("prompt"))
            yield Prompt(
                row.identity or identify(messages), source, messages, row.text("reference", is_optional=True) or None
            )
        case "messages":
            yield conversation_formats.parse_messages_prompt(row, source)
        case "hh_rlhf" | "ultrafeedback" | "preference":
            for pair in parse_preferences(row, form, source, left_out):
                yield Prompt(pair.id, source, pair.prompt, pair.chosen)
        case _:
            for conversation in parse_conversations(row, form, source, left_out):
                yield Prompt(conversation.id, source, conversation.prompt, conversation.messages[-1].content)


def _refuse_kind(row: Row, form: str, kind: str, formats: list[RecordFormat]) -> Exception:
    problem, remedy = f"format {form} holds no {kind}", f"Use {join_names(formats, 'or')}."
    return row.refuse_columns(problem, remedy)
