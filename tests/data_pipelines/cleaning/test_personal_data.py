import base64
import json
import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.cleaning.personal_data import EMAIL, IP_ADDRESS, MaskPersonalData
from data_pipelines.cleaning.secrets import SECRET, compute_entropy
from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import MaskPersonalDataStep
from tests.helpers.texts import stdlib_texts

ALPHABET = string.ascii_letters + string.digits
MIN_RECALL = 0.98


def mask(text: str, **values: bool) -> str:
    subject = Subject(text)
    MaskPersonalData(MaskPersonalDataStep(name="mask_personal_data", **values))(subject)
    return subject.text


def draw(random_: random.Random, count: int, alphabet: str = ALPHABET) -> str:
    return "".join(random_.choices(alphabet, k=count))


def encode(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def plant(seed: int) -> dict[str, str]:
    """One value of each kind, with what it must become."""
    r = random.Random(seed)
    a, b, c, d = r.choice([23, 52, 81, 151, 193]), r.randrange(256), r.randrange(256), r.randrange(10, 255)
    token = f"{encode({'alg': 'HS256'})}.{encode({'sub': draw(r, 12)})}.{draw(r, 43)}"
    body = "\n".join(draw(r, 64) for _ in range(12))
    return {
        f"{draw(r, 6, string.ascii_lowercase)}.{draw(r, 5, string.ascii_lowercase)}@{draw(r, 7).lower()}.com": EMAIL,
        f"{draw(r, 4).lower()}+tag@mail.{draw(r, 5, string.ascii_lowercase)}.co.uk": EMAIL,
        f"{a}.{b}.{c}.{d}": IP_ADDRESS,
        f"2a02:{r.randrange(4096):x}::{r.randrange(65536):x}": IP_ADDRESS,
        f"2607:f8b0:4005:80a:0:0:{r.randrange(1, 65536):x}:200e": IP_ADDRESS,
        f"AKIA{draw(r, 16, string.ascii_uppercase + '234567')}": SECRET,
        f"ghp_{draw(r, 36)}": SECRET,
        f"github_pat_{draw(r, 22)}_{draw(r, 59)}": SECRET,
        f"glpat-{draw(r, 20)}": SECRET,
        f"xoxb-{draw(r, 12, string.digits)}-{draw(r, 24)}": SECRET,
        f"https://hooks.slack.com/services/T{draw(r, 8, string.digits)}/B{draw(r, 8, string.digits)}/{draw(r, 24)}": (
            f"https://hooks.slack.com/services/{SECRET}"
        ),
        f"AIza{draw(r, 35)}": SECRET,
        f"sk_live_{draw(r, 24)}": SECRET,
        f"sk-proj-{draw(r, 47)}1": SECRET,
        f"hf_{draw(r, 34, string.ascii_letters)}": SECRET,
        f"npm_{draw(r, 36)}": SECRET,
        f"SG.{draw(r, 22)}.{draw(r, 43)}": SECRET,
        token: SECRET,
        f"api_key = '{draw(r, 31)}7'": f"api_key = '{SECRET}'",
        f'"client_secret": "{draw(r, 39)}4"': f'"client_secret": "{SECRET}"',
        f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----": (
            f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----"
        ),
    }


@pytest.mark.parametrize("frame", ["{}", "see {}, or ask\n", 'value = "{}"\n', "<{}>", "({})", "log: {}\n"])
def test_planted_values_are_found(frame: str) -> None:
    expected = [(frame.format(value), frame.format(masked)) for n in range(40) for value, masked in plant(n).items()]
    found = sum(mask(text) == masked for text, masked in expected)
    assert found >= MIN_RECALL * len(expected), [text for text, masked in expected if mask(text) != masked][:5]


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1 and 0.0.0.0, 10.20.30.40, 192.168.17.34, 172.16.254.1, 169.254.10.20",
        "192.0.2.44, 198.51.100.23 and 203.0.113.99 are for documentation",
        "version 12.34.56.78, v12.34.56.78, Firefox/12.34.56.78, pkg==12.34.56.78, pkg>=21.10.33.44",
        "nets 12.34.56.78.90 and 1.3.6.1.4.1.311.60.21 are object identifiers",
        "Release: 12.34.56.78",
        "section 8.2.4.44 and 7.1.4.34, 1.1.1.1, 8.8.8.8, 300.12.13.14",
        "\n12.10.33.14 Numbered heading",
        "\n- 17.21.10.11 The clearerr function",
        "::1, fe80::1ff:fe23:4567:890a, 2001:db8::8a2e:370:7334, fd00::12",
        "std::vector<int> a::b; x[2001:2010:3]; at 2021:10:12 12:30:45",
        "user@example.com, me@example.org, you@mail.example.co.uk, x@localhost, a@b.test, info@yourdomain.com",
        "git@github.com:llm/train.git, ssh://git@gitlab.com/x",
        "icon@2x.png, lodash@4.17.21, @decorator.name, a @ b.T, result = w@self.data, matrix@other.transpose()",
        "AKIAIOSFODNN7EXAMPLE, ghp_short, hf_model_name, sk-learn, xoxb-",
        "password = 'changeme'; api_key = os.environ['API_KEY']; token = \"your-token-goes-here-12345\"",
        "secret = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa1'; access_key: str = 'my_configuration_key_name'",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA\n-----END PUBLIC KEY-----",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "uuid 123e4567-e89b-12d3-a456-426614174000, 1_000_000.000, 3.14159, 2024-01-31T12:30:45.123456",
        "",
    ],
)
def test_what_is_no_personal_data_stays(text: str) -> None:
    subject = Subject(text)
    MaskPersonalData(MaskPersonalDataStep(name="mask_personal_data"))(subject)
    assert subject.text is text


def test_code_loses_nothing_but_addresses() -> None:
    lines = changed = 0
    for text in stdlib_texts():
        pairs = list(zip(text.split("\n"), mask(text).split("\n"), strict=True))
        lines += len(pairs)
        changed += sum(before != after and "@" not in before for before, after in pairs)
    assert changed == 0
    assert lines > 5_000


def test_each_kind_can_be_left_alone() -> None:
    text = f"me@my-host.com 81.2.33.44 ghp_{'aB3' * 12}"
    assert mask(text) == f"{EMAIL} {IP_ADDRESS} {SECRET}"
    assert mask(text, emails=False) == f"me@my-host.com {IP_ADDRESS} {SECRET}"
    assert mask(text, ip_addresses=False) == f"{EMAIL} 81.2.33.44 {SECRET}"
    assert mask(text, secrets=False) == text.replace("me@my-host.com", EMAIL).replace("81.2.33.44", IP_ADDRESS)


def test_addresses_at_the_end_of_a_sentence_and_with_ports_are_masked() -> None:
    assert mask("ask me@my-host.com. Or 81.2.33.44.") == f"ask {EMAIL}. Or {IP_ADDRESS}."
    assert mask("http://81.2.33.44:8080/x") == f"http://{IP_ADDRESS}:8080/x"
    assert mask("see 2a02:26f0::17: it answers") == f"see {IP_ADDRESS}: it answers"


def test_the_result_does_not_depend_on_what_came_before() -> None:
    texts = [value for seed in range(3) for value in plant(seed)]
    step = MaskPersonalData(MaskPersonalDataStep(name="mask_personal_data"))
    subjects = [Subject(text) for text in (*texts, *reversed(texts))]
    for subject in subjects:
        step(subject)
    masked = [subject.text for subject in subjects]
    assert masked[: len(texts)] == masked[len(texts) :][::-1]


PIECES = st.sampled_from(
    [piece for seed in range(2) for piece in plant(seed)] + [".", "@", ":", "/", "'", "=", "key", " "]
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=12).map("".join))
def test_masking_twice_changes_nothing(text: str) -> None:
    assert mask(mask(text)) == mask(text)


def test_entropy_is_that_of_the_characters() -> None:
    assert compute_entropy("aaaa") == 0
    assert compute_entropy("abcdefgh") == 3
