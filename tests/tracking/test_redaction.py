import pytest

from llmtrain.tracking.redaction import redact


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tracking_uri: https://ada:lovelace@mlflow.example:5000", "tracking_uri: https://***@mlflow.example:5000"),
        ("https://ada:p@ss@mlflow.example/x", "https://***@mlflow.example/x"),
        ("api_key: sk-12345", "api_key: ***"),
        ("a: 1\nhub_token: hf_abc\nb: 2", "a: 1\nhub_token: ***\nb: 2"),
        ("db_password=hunter2", "db_password=***"),
        ("http://host/path?token=abc", "http://host/path?token=***"),
    ],
)
def test_secrets_are_masked(text: str, expected: str) -> None:
    assert redact(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "train_tokens: 1000000",
        "train_tokens: null",
        "tokenizer:",
        "max_new_tokens: 64",
        "loss_chunk_tokens: 1024",
        "tracking_uri: http://127.0.0.1:5000",
        "mail ada@example.org",
    ],
)
def test_counts_of_tokens_and_plain_addresses_stay(text: str) -> None:
    assert redact(text) == text
