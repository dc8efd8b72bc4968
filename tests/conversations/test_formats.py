"""One row of each public format, as it stands in the data sets that made it known."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from llmtrain.config.records import RecordFormat
from llmtrain.conversations.formats import parse_conversations, parse_preferences, parse_prompts, tell_format
from llmtrain.conversations.records import Message
from llmtrain.conversations.row import Row, RowError

QUESTION, ANSWER = Message("user", "What is 2 + 2?"), Message("assistant", "4.")
SYSTEM = Message("system", "Be brief.")
Q = {"role": "user", "content": "What is 2 + 2?"}
A = {"role": "assistant", "content": "4."}
S = {"role": "system", "content": "Be brief."}
WORSE = {"role": "assistant", "content": "5."}
TREE: dict[str, Any] = {
    "message_tree_id": "t1",
    "tree_state": "ready_for_export",
    "prompt": {
        "message_id": "t1",
        "text": "What is 2 + 2?",
        "role": "prompter",
        "replies": [
            {"text": "5.", "role": "assistant", "rank": 1, "replies": []},
            {
                "text": "4.",
                "role": "assistant",
                "rank": 0,
                "replies": [
                    {
                        "text": "And 3 + 3?",
                        "role": "prompter",
                        "rank": None,
                        "replies": [
                            {"text": "6.", "role": "assistant", "rank": None, "deleted": False},
                            {"text": "7.", "role": "assistant", "rank": 0, "deleted": True},
                        ],
                    }
                ],
            },
            {"text": "22.", "role": "assistant", "rank": 2},
        ],
    },
}
HH = "\n\nHuman: What is 2 + 2?\n\nAssistant:"

CONVERSATION_ROWS: list[tuple[RecordFormat, dict[str, Any], tuple[Message, ...]]] = [
    ("messages", {"messages": [S, Q, A]}, (SYSTEM, QUESTION, ANSWER)),
    ("messages", {"messages": [{"role": "system", "content": ""}, Q, A]}, (QUESTION, ANSWER)),
    ("prompt_completion", {"prompt": "What is 2 + 2?", "completion": "4."}, (QUESTION, ANSWER)),
    ("prompt_completion", {"prompt": "What is 2 + 2?", "response": "4.", "n": 1}, (QUESTION, ANSWER)),
    ("prompt_completion", {"prompt": [S, Q], "completion": [A]}, (SYSTEM, QUESTION, ANSWER)),
    ("alpaca", {"instruction": "What is 2 + 2?", "input": "", "output": "4.", "text": "..."}, (QUESTION, ANSWER)),
    (
        "alpaca",
        {"instruction": "Add.", "input": "2 and 2", "output": "4."},
        (Message("user", "Add.\n\n2 and 2"), ANSWER),
    ),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "system", "value": "Be brief."},
                {"from": "human", "value": "What is 2 + 2?"},
                {"from": "gpt", "value": "4."},
            ]
        },
        (SYSTEM, QUESTION, ANSWER),
    ),
    ("open_assistant", TREE, (QUESTION, ANSWER, Message("user", "And 3 + 3?"), Message("assistant", "6."))),
]
PREFERENCE_ROWS: list[tuple[RecordFormat, dict[str, Any], tuple[Message, ...]]] = [
    ("hh_rlhf", {"chosen": f"{HH} 4.", "rejected": f"{HH} 5."}, (QUESTION,)),
    (
        "hh_rlhf",
        {"chosen": f"\n\nHuman: Hi\n\nAssistant: Ho{HH} 4.", "rejected": f"\n\nHuman: Hi\n\nAssistant: Ho{HH} 5."},
        (Message("user", "Hi"), Message("assistant", "Ho"), QUESTION),
    ),
    (
        "ultrafeedback",
        {
            "prompt": "What is 2 + 2?",
            "prompt_id": "p",
            "chosen": [Q, A],
            "rejected": [Q, WORSE],
            "messages": [Q, A],
            "score_chosen": 9.0,
            "score_rejected": 2.0,
        },
        (QUESTION,),
    ),
    ("preference", {"prompt": "What is 2 + 2?", "chosen": "4.", "rejected": "5."}, (QUESTION,)),
    ("preference", {"prompt": [S, Q], "chosen": [A], "rejected": [WORSE]}, (SYSTEM, QUESTION)),
    ("preference", {"prompt": [S, Q], "chosen": [S, Q, A], "rejected": [S, Q, WORSE]}, (SYSTEM, QUESTION)),
    ("preference", {"chosen": [Q, A], "rejected": [Q, WORSE]}, (QUESTION,)),
    ("preference", {"chosen": "What is 2 + 2? 4.", "rejected": "What is 2 + 2? 5."}, (QUESTION,)),
]


def row(values: dict[str, Any]) -> Row:
    return Row("data.jsonl", 3, json.loads(json.dumps(values)))


@pytest.mark.parametrize(("form", "values", "messages"), CONVERSATION_ROWS)
def test_a_row_is_told_by_its_columns_and_becomes_a_conversation(
    form: RecordFormat, values: dict[str, Any], messages: tuple[Message, ...]
) -> None:
    assert tell_format(row(values)) == form
    (conversation,) = parse_conversations(row(values), form, "mine", Counter())
    assert conversation.messages == messages
    assert conversation.source == "mine"
    (prompt,) = parse_prompts(row(values), form, "mine", Counter())
    assert (prompt.messages, prompt.reference) == (messages[:-1], messages[-1].content)


@pytest.mark.parametrize(("form", "values", "prompt"), PREFERENCE_ROWS)
def test_a_row_is_told_by_its_columns_and_becomes_a_preference(
    form: RecordFormat, values: dict[str, Any], prompt: tuple[Message, ...]
) -> None:
    assert tell_format(row(values)) == form
    (pair,) = parse_preferences(row(values), form, "mine", Counter())
    assert (pair.prompt, pair.chosen, pair.rejected) == (prompt, "4.", "5.")
    (asked,) = parse_prompts(row(values), form, "mine", Counter())
    assert (asked.messages, asked.reference) == (prompt, "4.")


def test_pairs_of_a_tree_are_all_replies_of_different_rank() -> None:
    pairs = list(parse_preferences(row(TREE), "open_assistant", "mine", Counter()))
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("4.", "5."), ("4.", "22."), ("5.", "22.")]
    assert {pair.prompt for pair in pairs} == {(QUESTION,)}


@pytest.mark.parametrize("deleted", [{"deleted": True}, {"replies": []}])
def test_a_tree_without_a_reply_is_counted(deleted: dict[str, Any]) -> None:
    tree = row({"message_tree_id": "t", "prompt": TREE["prompt"] | deleted})
    left_out: Counter[str] = Counter()
    assert list(parse_conversations(tree, "open_assistant", "mine", left_out)) == []
    assert list(parse_preferences(tree, "open_assistant", "mine", left_out)) == []
    assert left_out == {"no_reply": 1, "no_ranked_replies": 1}


def test_prompts_may_stand_alone_with_or_without_a_reference() -> None:
    rows: list[dict[str, Any]] = [
        {"prompt": "What is 2 + 2?"},
        {"prompt": [Q], "reference": "4."},
        {"messages": [Q], "reference": None},
    ]
    forms = [tell_format(row(values)) for values in rows]
    assert forms == ["prompt", "prompt", "messages"]
    prompts = [next(parse_prompts(row(v), f, "mine", Counter())) for v, f in zip(rows, forms, strict=True)]
    assert [prompt.reference for prompt in prompts] == [None, "4.", None]
    assert {prompt.messages for prompt in prompts} == {(QUESTION,)}


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": "Hello", "chosen": "4.", "rejected": " 4. "},
        {"chosen": "What is it? 4.", "rejected": "What is it? 4."},
        {"chosen": f"{HH} 4.", "rejected": f"{HH} 4."},
    ],
)
def test_chosen_equal_to_rejected_is_left_out_and_counted(values: dict[str, Any]) -> None:
    left_out: Counter[str] = Counter()
    assert list(parse_preferences(row(values), tell_format(row(values)), "mine", left_out)) == []
    assert left_out == {"chosen_equals_rejected": 1}


def test_a_row_keeps_its_id_and_gets_one_of_its_content_otherwise() -> None:
    def identity(values: dict[str, Any]) -> str:
        return next(parse_conversations(row(values), "messages", "mine", Counter())).id

    assert identity({"messages": [Q, A], "id": 7}) == "7"
    content = '[[{"role":"user","content":"What is 2 + 2?"},{"role":"assistant","content":"4."}]]'
    expected = hashlib.sha256(content.encode()).hexdigest()[:16]
    assert identity({"messages": [Q, A]}) == identity({"messages": [Q, A], "id": None, "note": 1}) == expected


Parse = Callable[[Row, RecordFormat, str, Counter[str]], Iterator[Any]]
MESSAGES: list[tuple[Parse, RecordFormat, dict[str, Any], str]] = [
    (
        parse_conversations,
        "messages",
        {"messages": [Q, {"role": "bot", "content": "4."}]},
        "key 'messages[1].role' = 'bot': not a role. Use system, user or assistant.",
    ),
    (
        parse_conversations,
        "messages",
        {"messages": [Q, A, S]},
        "key 'messages[2].role' = 'system': not the first. Put the system message first.",
    ),
    (
        parse_conversations,
        "messages",
        {"messages": [Q, Q, A]},
        "key 'messages[1].role' = 'user': follows another one of this role. Let user and assistant speak by turns: "
        "join the two.",
    ),
    (
        parse_conversations,
        "messages",
        {"messages": [Q]},
        "key 'messages': ends with role 'user'. A conversation ends with the assistant's answer.",
    ),
    (
        parse_conversations,
        "messages",
        {"messages": [A]},
        "key 'messages': begins with role 'assistant'. After the system message the user begins.",
    ),
    (parse_conversations, "messages", {"messages": [S]}, "key 'messages': holds no message of the user. Write one."),
    (
        parse_conversations,
        "messages",
        {"messages": []},
        "key 'messages' = []: empty. Write at least one message, or remove the row.",
    ),
    (
        parse_conversations,
        "messages",
        {"messages": "Hi"},
        "key 'messages' = 'Hi': text, not a list. Write a list of messages.",
    ),
    (
        parse_conversations,
        "messages",
        {"messages": [Q, "4."]},
        "key 'messages[1]' = '4.': text, not an object. Write role and content.",
    ),
    (
        parse_conversations,
        "messages",
        {"messages": [Q, {"role": "assistant"}]},
        "key 'messages[1].content': missing. There is role. Write role and content.",
    ),
    (
        parse_conversations,
        "messages",
        {"messages": [Q, {"role": "assistant", "content": " \n"}]},
        "key 'messages[1].content' = ' \\n': empty. Write its text, or remove the row.",
    ),
    (
        parse_conversations,
        "messages",
        {"messages": [Q, {"role": "assistant", "content": ["x" * 99]}]},
        f"key 'messages[1].content' = ['{'x' * 58}...: a list, not text. Write a string.",
    ),
    (
        parse_conversations,
        "alpaca",
        {"instruction": "Add.", "input": ""},
        "key 'output': missing. The row has input, instruction: add it, or set another format.",
    ),
    (
        parse_conversations,
        "alpaca",
        {"instruction": "Add.", "output": True},
        "key 'output' = True: true or false, not text. Write a string.",
    ),
    (
        parse_conversations,
        "prompt_completion",
        {"prompt": "a", "completion": "b", "response": "c"},
        "key 'completion': stands beside 'response'. Keep one of the two.",
    ),
    (
        parse_conversations,
        "prompt_completion",
        {"prompt": [Q, A], "completion": "b"},
        "key 'prompt': ends with role 'assistant'. A prompt ends with what the user says.",
    ),
    (
        parse_conversations,
        "prompt_completion",
        {"prompt": "a", "completion": [Q, A]},
        "key 'completion': holds user, assistant. Write one message of the assistant.",
    ),
    (
        parse_conversations,
        "sharegpt",
        {"conversations": [{"from": "user", "value": "Hi"}]},
        "key 'conversations[0].from' = 'user': not a role. Use human, gpt or system.",
    ),
    (
        parse_conversations,
        "open_assistant",
        {"message_tree_id": "t", "prompt": {"text": "Hi", "role": "human"}},
        "key 'prompt.role' = 'human': not a role. Use prompter or assistant.",
    ),
    (
        parse_conversations,
        "open_assistant",
        {"prompt": {"text": "Hi", "role": "prompter", "replies": [{"text": "Ho", "role": "prompter"}]}},
        "key 'prompt.replies[0].role' = 'prompter': 'assistant' comes here. Let prompter and assistant reply to each "
        "other; the prompter begins.",
    ),
    (
        parse_preferences,
        "open_assistant",
        {"prompt": {"text": "Hi", "role": "prompter", "rank": "first"}},
        "key 'prompt.rank' = 'first': not a whole number. Write one, or null.",
    ),
    (
        parse_preferences,
        "open_assistant",
        {"prompt": {"text": "Hi", "role": "prompter", "replies": "Ho"}},
        "key 'prompt.replies' = 'Ho': not a list. Write a list of messages.",
    ),
    (
        parse_preferences,
        "hh_rlhf",
        {"chosen": "Hello", "rejected": f"{HH} 5."},
        "key 'chosen' = 'Hello': does not begin with '\\n\\nHuman:'. Write it as HH-RLHF does.",
    ),
    (
        parse_preferences,
        "hh_rlhf",
        {"chosen": f"{HH} 4.", "rejected": "\n\nHuman: Hi\n\nAssistant: 5."},
        "key 'rejected': answers another prompt than 'chosen'. Let them differ in the last answer alone.",
    ),
    (
        parse_preferences,
        "hh_rlhf",
        {"chosen": HH, "rejected": f"{HH} 5."},
        "key 'chosen[1]' = '': empty. Write its text, or remove the row.",
    ),
    (
        parse_preferences,
        "preference",
        {"prompt": "Hi", "chosen": "a", "rejected": [A]},
        "key 'rejected' = [{'role': 'assistant', 'content': '4.'}]: of another type than 'chosen'. Write both alike.",
    ),
    (
        parse_preferences,
        "preference",
        {"prompt": "Hi", "chosen": [Q, A], "rejected": [Q, WORSE]},
        "key 'chosen': holds another prompt than 'prompt'. Let the list be the answer alone, or the prompt and the "
        "answer.",
    ),
    (
        parse_preferences,
        "preference",
        {"chosen": "4 it is", "rejected": "5 it is"},
        "key 'chosen': and 'rejected' begin with no words in common, so there is no prompt. Add a column prompt.",
    ),
    (
        parse_preferences,
        "alpaca",
        {"instruction": "a", "output": "b"},
        "columns instruction, output: format alpaca holds no preferences. Use open_assistant, hh_rlhf, ultrafeedback "
        "or preference.",
    ),
    (
        parse_conversations,
        "preference",
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        "columns chosen, prompt, rejected: format preference holds no conversations. Use messages, prompt_completion, "
        "alpaca, sharegpt or open_assistant.",
    ),
    (
        parse_prompts,
        "messages",
        {"messages": [S]},
        "key 'messages': holds no message of the user. Write one.",
    ),
]


@pytest.mark.parametrize(("parse", "form", "values", "message"), MESSAGES)
def test_a_wrong_row_is_refused_by_file_row_and_key(
    parse: Parse, form: RecordFormat, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(RowError) as caught:
        list(parse(row(values), form, "mine", Counter()))
    assert str(caught.value) == f"data.jsonl: row 3: {message}"


def test_a_tree_that_is_too_deep_is_refused() -> None:
    tree: dict[str, Any] = {"text": "end", "role": "prompter"}
    for depth in range(202):
        tree = {"text": "a", "role": "prompter" if depth % 2 else "assistant", "replies": [tree]}
    tree = {"message_tree_id": "t", "prompt": tree}
    with pytest.raises(RowError, match=r"lies more than 200 replies deep\. Cut the tree\.") as caught:
        list(parse_conversations(row(tree), "open_assistant", "mine", Counter()))
    assert caught.value.reason == "too_deep"


FORMATS = "messages, prompt_completion, prompt, alpaca, sharegpt, open_assistant, hh_rlhf, ultrafeedback or preference"
UNKNOWN = f"fit no format that is known. Name them as {FORMATS} does: docs/conversations.md."


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (["question", "answer"], f"columns answer, question: {UNKNOWN}"),
        ([], f"columns none: {UNKNOWN}"),
        (
            ["messages", "chosen", "rejected"],
            "columns chosen, messages, rejected: fit messages and preference. Set format to messages or preference.",
        ),
        (
            ["instruction", "output", "prompt", "completion"],
            "columns completion, instruction, output, prompt: fit alpaca and prompt_completion. Set format to alpaca "
            "or prompt_completion.",
        ),
    ],
)
def test_columns_that_fit_no_format_or_several_are_refused(columns: list[str], message: str) -> None:
    with pytest.raises(RowError) as caught:
        tell_format(row(dict.fromkeys(columns, "x")))
    assert str(caught.value) == f"data.jsonl: row 3: {message}"
