import pytest

from data_pipelines.cleaning.mend import mend
from data_pipelines.cleaning.subject import Subject
from data_pipelines.cleaning.unicode import RepairUnicode
from tests.helpers.texts import stdlib_texts


def repair(text: str) -> str:
    subject = Subject(text)
    RepairUnicode()(subject)
    return subject.text


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("sch\u00f6n und gro\u00df\n", 1),
        ("The Mona Lisa doesn\u2019t have eyebrows.\n", 1),
        ("Caf\u00e9 twice\n", 2),
        ("\u043f\u0440\u0438\u0432\u0435\u0442\n", 1),
    ],
)
def test_text_decoded_with_the_wrong_encoding_is_repaired(text: str, times: int) -> None:
    broken = text
    for _ in range(times):
        broken = broken.encode().decode("cp1252")
    assert broken != text
    assert repair(broken) == text
    assert repair(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "html = '&lt;b&gt; &amp; &eacute; é'\n",
        "\u201ccurly\u201d \u2018quotes\u2019\n",
        "\ufb01ne ligatures and \uff37\uff49\uff44\uff45 letters\n",
        "ROT = {'Ã': 'A', 'Â': 'A'}\n",
        "中文 and עברית and العربية\n",
        "a line\nends with\u2028another mark\n",
    ],
)
def test_text_that_is_as_its_author_wrote_it_stays(text: str) -> None:
    subject = Subject(text)
    RepairUnicode()(subject)
    assert subject.text is text


def test_code_is_not_changed() -> None:
    for text in map(mend, stdlib_texts()):
        assert repair(text) == text
