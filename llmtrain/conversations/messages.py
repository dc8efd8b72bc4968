"""Lists of messages in a row: roles, their order, and where a list has to end."""

from collections.abc import Mapping, Sequence

from llmtrain.conversations.records import ROLES, Message, Role
from llmtrain.conversations.row import Row, show

OWN_ROLES: dict[str, Role] = {role: role for role in ROLES}
_REASON = "role_order"


def parse_messages(
    row: Row,
    key: str,
    value: object,
    keys: tuple[str, str] = ("role", "content"),
    roles: Mapping[str, Role] = OWN_ROLES,
) -> tuple[Message, ...]:
    """A list of messages in an order that makes sense.

    Args:
        row: where the list stands.
        key: of the list in the row.
        value: the list.
        keys: of the role and the text in a message.
        roles: names of the format -> ours.

    Returns:
        The messages: a system message first or none, then user and assistant by turns. An empty system message is as
        good as none and is left out.

    Raises:
        RowError: the list is something else.
    """
    messages = []
    for index, item in enumerate(row.check_list(key, value)):
        place = f"{key}[{index}]"
        entry = row.check_object(place, item, keys)
        name, content = entry[keys[0]], entry[keys[1]]
        if not isinstance(name, str) or name not in roles:
            remedy = f"Use {join_names(list(roles), 'or')}."
            raise row.refuse(f"{place}.{keys[0]}", f"= {show(name)}: not a role", remedy, "unknown_role")
        if roles[name] == "system" and index == 0 and isinstance(content, str) and not content.strip():
            continue
        messages.append(Message(roles[name], row.check_text(f"{place}.{keys[1]}", content)))
    check_order(row, key, messages)
    return tuple(messages)


def check_order(row: Row, key: str, messages: Sequence[Message]) -> None:
    """Hold the order of roles; a list may begin and end with either side.

    Raises:
        RowError: a system message is not the first, or one side speaks twice in a row.
    """
    before = ""
    for index, message in enumerate(messages):
        place = f"{key}[{index}].role"
        if message.role == "system" and index:
            raise row.refuse(place, "= 'system': not the first", "Put the system message first.", _REASON)
        if message.role == before:
            problem = f"= '{message.role}': follows another one of this role"
            raise row.refuse(place, problem, "Let user and assistant speak by turns: join the two.", _REASON)
        before = message.role


def check_conversation(row: Row, key: str, messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages from the user's first to the assistant's last.

    Raises:
        RowError: they begin or end otherwise.
    """
    return _check_ends(row, key, messages, "assistant", "A conversation ends with the assistant's answer.")


def check_prompt(row: Row, key: str, messages: Sequence[Message]) -> tuple[Message, ...]:
    """Messages from the user's first to the user's last.

    Raises:
        RowError: they begin or end otherwise.
    """
    return _check_ends(row, key, messages, "user", "A prompt ends with what the user says.")


def _check_ends(row: Row, key: str, messages: Sequence[Message], last: Role, remedy: str) -> tuple[Message, ...]:
    _check_start(row, key, messages)
    if messages[-1].role != last:
        raise row.refuse(key, f"ends with role '{messages[-1].role}'", remedy, _REASON)
    return tuple(messages)


def parse_prompt(row: Row, key: str, value: object) -> tuple[Message, ...]:
    """A prompt: a text, which the user says, or a list of messages.

    Raises:
        RowError: it is neither.
    """
    if isinstance(value, list):
        return check_prompt(row, key, parse_messages(row, key, value))
    return (Message("user", row.check_text(key, value)),)


def parse_answer(row: Row, key: str, value: object) -> str:
    """An answer: a text, or a list of one message of the assistant.

    Raises:
        RowError: it is neither.
    """
    if not isinstance(value, list):
        return row.check_text(key, value)
    messages = parse_messages(row, key, value)
    if len(messages) != 1 or messages[0].role != "assistant":
        told = ", ".join(message.role for message in messages)
        raise row.refuse(key, f"holds {told}", "Write one message of the assistant.", _REASON)
    return messages[0].content


def join_names(names: Sequence[str], word: str) -> str:
    """Names in a sentence: `a, b or c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} {word} {names[-1]}"


def _check_start(row: Row, key: str, messages: Sequence[Message]) -> None:
    spoken = [message for message in messages if message.role != "system"]
    if not spoken:
        raise row.refuse(key, "holds no message of the user", "Write one.", _REASON)
    if spoken[0].role != "user":
        raise row.refuse(
            key, f"begins with role '{spoken[0].role}'", "After the system message the user begins.", _REASON
        )
