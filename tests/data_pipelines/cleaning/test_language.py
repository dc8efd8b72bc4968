# ruff: noqa: RUF001 -- letters of many scripts on purpose
import pytest

from data_pipelines.cleaning.language import IdentifyLanguage, find_languages, identify_language
from data_pipelines.cleaning.subject import Subject
from llmtrain.config.cleaning import IdentifyLanguageStep
from llmtrain.errors import ConfigError

# Article 1 of the Universal Declaration of Human Rights.
TEXTS = {
    "en": "All human beings are born free and equal in dignity and rights. They are endowed with reason.",
    "de": "Alle Menschen sind frei und gleich an Würde und Rechten geboren. Sie sind mit Vernunft und Gewissen begabt.",
    "fr": "Tous les êtres humains naissent libres et égaux en dignité et en droits. Ils sont doués de raison.",
    "es": "Todos los seres humanos nacen libres e iguales en dignidad y derechos, dotados como están de razón.",
    "it": "Tutti gli esseri umani nascono liberi ed eguali in dignità e diritti. Essi sono dotati di ragione.",
    "pt": "Todos os seres humanos nascem livres e iguais em dignidade e em direitos. São dotados de razão.",
    "nl": "Alle mensen worden vrij en gelijk in waardigheid en rechten geboren. Zij zijn begiftigd met verstand.",
    "sv": "Alla människor är födda fria och lika i värde och rättigheter. De har utrustats med förnuft och samvete.",
    "pl": "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw. Są oni obdarzeni rozumem.",
    "ru": "Все люди рождаются свободными и равными в своем достоинстве и правах. Они наделены разумом и совестью.",
    "tr": "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar. Akıl ve vicdana sahiptirler.",
    "ar": "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق. وقد وهبوا عقلا وضميرا.",
    "zh": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。",
    "ko": "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다. 인간은 이성과 양심을 부여받았다.",
}


def judge(text: str, keep: list[str], min_score: float = 0.65) -> tuple[str | None, str]:
    subject = Subject(text, "old")
    step = IdentifyLanguage(IdentifyLanguageStep(name="identify_language", keep=keep, min_score=min_score))
    return step(subject), subject.language


@pytest.mark.parametrize("language", TEXTS)
def test_the_language_of_a_text_is_noted(language: str) -> None:
    assert judge(TEXTS[language], []) == (None, language)
    assert identify_language(TEXTS[language]) == identify_language(TEXTS[language])


def test_capitals_and_line_ends_make_no_difference() -> None:
    assert identify_language(TEXTS["de"].upper())[0] == "de"
    assert identify_language(TEXTS["de"].replace(" ", "\n\n")) == identify_language(TEXTS["de"])


def test_only_wanted_languages_are_kept() -> None:
    assert judge(TEXTS["de"], ["en", "de"]) == (None, "de")
    assert judge(TEXTS["fr"], ["en", "de"])[0] == "identify_language: other_language"


def test_an_uncertain_language_is_none() -> None:
    assert judge("123 456\n", ["en"], 0.9)[0] == "identify_language: low_score"
    assert judge("123 456\n", [], 0.9) == (None, "")
    assert judge("\n", []) == (None, "")


def test_an_unknown_code_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(
        ConfigError, match=r"identify_language: keep = \['english'\] is not known\. Allowed: .*de, .*en"
    ):
        judge("", ["english", "de"])
    assert len(find_languages()) == 176
    assert set(TEXTS) <= find_languages()
