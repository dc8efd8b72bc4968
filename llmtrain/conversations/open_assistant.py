"""Message trees as in OpenAssistant's `*.trees.jsonl`: a prompt, its replies with ranks, their replies, and so on.

The best reply has rank 0. A conversation is the path of the best replies; a preference is made of any two replies of
different rank to one prompt, with all that was said before.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from llmtrain.conversations.messages import join_names
from llmtrain.conversations.records import Conversation, Message, Preference, Role, identify
from llmtrain.conversations.row import Row, show

_ROLES: dict[str, Role] = {"prompter": "user", "assistant": "assistant"}
_MAX_DEPTH = 200


@dataclass(frozen=True)
class _Node:
    message: Message
    rank: int | None
    replies: tuple["_Node", ...]
    """In order of rank, those without one last."""


def parse_best_path(row: Row, source: str, left_out: Counter[str]) -> Iterator[Conversation]:
    """The path of the best replies down to the last one of the assistant; a tree without one is counted."""
    node: _Node | None = _parse_tree(row)
    messages: list[Message] = []
    while node:
        messages.append(node.message)
        node = node.replies[0] if node.replies else None
    if messages and messages[-1].role == "user":
        messages.pop()
    if not messages:
        left_out["no_reply"] += 1
        return
    yield Conversation(identify(messages), source, tuple(messages))


def parse_pairs(row: Row, source: str, left_out: Counter[str]) -> Iterator[Preference]:
    """Pairs of replies of different rank, at every prompt of the tree; a tree without any is counted."""
    tree, count = _parse_tree(row), 0
    for prompt, better, worse in _find_pairs(tree, ()) if tree else ():
        count += 1
        if better.strip() == worse.strip():
            left_out["chosen_equals_rejected"] += 1
        else:
            yield Preference(identify(prompt, better, worse), source, prompt, better, worse)
    if not count:
        left_out["no_ranked_replies"] += 1


def _find_pairs(node: _Node, before: tuple[Message, ...]) -> Iterator[tuple[tuple[Message, ...], str, str]]:
    path = (*before, node.message)
    if node.message.role == "user":
        ranked = [reply for reply in node.replies if reply.rank is not None]
        for better, worse in combinations(ranked, 2):
            if better.rank != worse.rank:
                yield path, better.message.content, worse.message.content
    for reply in node.replies:
        yield from _find_pairs(reply, path)


def _parse_tree(row: Row) -> _Node | None:
    """The tree, without deleted messages and what follows them; None if its prompt is deleted."""
    return _parse_node(row, "prompt", row.find("prompt"), "prompter", 0)


def _parse_node(row: Row, key: str, value: object, role: str, depth: int) -> _Node | None:
    entry: dict[str, Any] = row.check_object(key, value, ("text", "role"))
    if entry["role"] not in _ROLES:
        remedy = f"Use {join_names(list(_ROLES), 'or')}."
        raise row.refuse(f"{key}.role", f"= {show(entry['role'])}: not a role", remedy, "unknown_role")
    if entry["role"] != role:
        remedy = "Let prompter and assistant reply to each other; the prompter begins."
        raise row.refuse(f"{key}.role", f"= '{entry['role']}': '{role}' comes here", remedy, "role_order")
    if entry.get("deleted"):
        return None
    if depth >= _MAX_DEPTH:
        raise row.refuse(key, f"lies more than {_MAX_DEPTH} replies deep", "Cut the tree.", "too_deep")
    rank = entry.get("rank")
    if rank is not None and type(rank) is not int:
        raise row.refuse(f"{key}.rank", f"= {show(rank)}: not a whole number", "Write one, or null.", "wrong_type")
    text = row.check_text(f"{key}.text", entry["text"])
    replies = entry.get("replies") or []
    if not isinstance(replies, list):
        raise row.refuse(f"{key}.replies", f"= {show(replies)}: not a list", "Write a list of messages.", "wrong_type")
    next_role = "assistant" if role == "prompter" else "prompter"
    parsed = [_parse_node(row, f"{key}.replies[{i}]", reply, next_role, depth + 1) for i, reply in enumerate(replies)]
    kept = sorted((node for node in parsed if node), key=_order)
    return _Node(Message(_ROLES[role], text), rank, tuple(kept))


def _order(node: _Node) -> tuple[bool, int]:
    return node.rank is None, node.rank or 0
