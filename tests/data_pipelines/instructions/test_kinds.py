"""What each kind makes of a text, word by word."""

import pytest

from data_pipelines.document import Document
from data_pipelines.instructions.definition import find_definitions
from data_pipelines.instructions.docstring import find_docstring_tasks
from data_pipelines.instructions.explain import find_explanations
from data_pipelines.instructions.manual import find_manual_entries
from data_pipelines.instructions.section import find_sections
from llmtrain.config.instructions import InstructionsConfig
from tests.data_pipelines.instructions.conftest import ARTICLE, LIFE, PAGE

CONFIG = InstructionsConfig()
CODE = '''
class Stack:
    @property
    def top(self):
        """Return the last item."""
        # the last one

        return self.items[-1]

    def push(self, item):
        """Adds an item at the end"""
        self.items.append(item)

    def later(self):
        """Do something, some day."""
        raise NotImplementedError

    def empty(self):
        """There is nothing here."""

    def long(self):
        """Return many lines.

        And more.
        """
        return 1


async def fetch(url):
    """Try to fetch a page of `url`."""
    return await get(url)

def same(a): """Same as a."""; return a

def flag(a):
    """True if a is set."""
    return bool(a)
'''


def pairs(maker: str, text: str, origin: str = "x", language: str = "") -> list[tuple[str, str]]:
    document = Document(text, origin, "MIT", language)
    makers = {
        "definition": find_definitions,
        "section": find_sections,
        "docstring": find_docstring_tasks,
        "explain": find_explanations,
        "manual": find_manual_entries,
    }
    return [(draft.prompt, draft.answer) for draft in makers[maker](document, CONFIG)]


def test_definitions_ask_what_a_thing_is() -> None:
    assert pairs("definition", ARTICLE) == [
        (
            "What is the abacus?",
            "The abacus (plural abaci), also called a counting frame, is a calculating tool.",
        ),
        ("What is a counting board?", "A counting board is a board on which counters were moved."),
    ]


def test_definitions_ask_who_a_person_is() -> None:
    assert pairs("definition", LIFE) == [
        (
            "Who was Ada Byron?",
            "Ada Byron (10 December 1815 \u2013 27 November 1852) was an English mathematician and writer.",
        ),
        ("Who was Byron?", "Byron was a gifted translator, and her notes were longer than the text."),
    ]


@pytest.mark.parametrize(
    ("sentence", "question"),
    [
        ("Insects are a class of animals.", "What are insects?"),
        ("Insects (Latin for cut up) are the largest group.", "What are insects?"),
        ("An insect is an animal with six legs.", "What is an insect?"),
        ("American Entomology is a journal about insects.", "What is American Entomology?"),
        ("Karl Marx was a German philosopher who wrote on it.", "Who was Karl Marx?"),
        ("The American Civil War (1861\u20131865) was a war.", None),
        ("The book is a classic of its kind.", None),
        ("This is a group of animals.", None),
        ("He was a collector of insects.", None),
        ("A fine example is the beetle of Egypt.", None),
        ("In 1900 insects were a rare sight.", None),
        ("Using Insects is a way to catch fish.", None),
        ("Bees are not a class of animals.", None),
        ("Insects are those which have six legs, a feature.", None),
    ],
)
def test_only_sentences_that_stand_alone_are_definitions(sentence: str, question: str | None) -> None:
    text = f"# Insects\n\nOf insects, some insects and other insects much is known.\n\n{sentence}\n"
    assert pairs("definition", text) == ([(question, sentence)] if question else [])


def test_sections_begin_with_what_stands_below_their_heading() -> None:
    made = pairs("section", ARTICLE)
    assert [answer for _, answer in made] == [
        "The abacus (plural abaci), also called a counting frame, is a calculating tool. It was in use in the U.S. "
        "long before 1900, e.g. in schools. Dr. J. R. Smith wrote about it (see p. 3. of his book).",
        "The normal method of calculation in ancient Rome was by moving counters on a smooth table. Originally "
        "pebbles were used.",
    ]
    assert made[0][0] == "Tell me about abacus."
    assert "Roman abacus" in made[1][0]
    assert "Abacus" in made[1][0]


def test_short_functions_are_written_from_their_description() -> None:
    assert pairs("docstring", CODE, language="python") == [
        (
            "Write a Python function `fetch` that tries to fetch a page of `url`.",
            "async def fetch(url):\n    return await get(url)",
        ),
        ("Write a Python function `flag`. True if a is set.", "def flag(a):\n    return bool(a)"),
        (
            "Write a Python method `top` that returns the last item.",
            "def top(self):\n    # the last one\n    return self.items[-1]",
        ),
        (
            "Write a Python method `push` that adds an item at the end.",
            "def push(self, item):\n    self.items.append(item)",
        ),
    ]


def test_short_functions_are_explained_by_their_description() -> None:
    made = pairs("explain", CODE, language="python")
    assert made[1] == ("What does this Python function do?\n\ndef flag(a):\n    return bool(a)", "True if a is set.")
    assert len(made) == 4


@pytest.mark.parametrize("text", ["def f(:\n", "print 'old'\n", "a\0b", "(" * 5000])
def test_what_is_no_python_of_today_gives_nothing(text: str) -> None:
    assert pairs("docstring", text, language="python") == []


def test_code_is_never_run() -> None:
    text = 'raise SystemExit\ndef f(x):\n    """Return the value x."""\n    return x\n'
    assert len(pairs("docstring", text, language="python")) == 1


def test_manuals_tell_what_names_do() -> None:
    assert pairs("manual", PAGE, "http://pydoc.localhost/shelf.html") == [
        ("What does `open` of `shelf` do?", "Open a shelf and return it. The mode is that of a file."),
        (
            "What is the Shelf class?",
            "The Shelf class is a mapping of names to objects that are kept on disk.",
        ),
        (
            "What does the shelf.size property return?",
            "The shelf.size property returns the number of books that stand on it.",
        ),
    ]


@pytest.mark.parametrize("origin", ["http://[bad/x.html", "http://\u2100.com/x.html"])
def test_an_address_that_cannot_be_parsed_is_one_of_another_site(origin: str) -> None:
    assert pairs("manual", PAGE, origin) == pairs("manual", PAGE, "http://a.org/x.html")


@pytest.mark.parametrize("maker", ["definition", "section", "docstring", "explain", "manual"])
def test_kinds_keep_to_their_own_documents(maker: str) -> None:
    texts = {"definition": ARTICLE, "section": ARTICLE, "docstring": CODE, "explain": CODE, "manual": PAGE}
    languages = {"docstring": "python", "explain": "python"}
    for other, text in texts.items():
        has_records = bool(pairs(maker, text, language=languages.get(other, "")))
        assert has_records == (text == texts[maker])
    assert pairs(maker, texts[maker], language="fr") == []
