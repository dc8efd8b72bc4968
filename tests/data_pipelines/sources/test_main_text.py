import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.sources.main_text import extract_main_text

PAGE = """<html><head><title>T</title><script>var x = "<p>no</p>";</script></head><body>
<nav><a href="/">Home</a> <a href="/b">Shop</a></nav><div class="sidebar"><a href="/c">Cheap flights</a></div>
<main><h1>A heading</h1><p>First paragraph of the page, with a <a href="/x">link</a> and&nbsp;more.</p>
<ul><li>The first item is a sentence.<ul><li>It has one below it.</li></ul></li>
<li>The second item is one, too.</li></ul>
<ol><li>first</li></ol>
<pre>def f():
    return 1
</pre><table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table></main>
<footer>Copyright, imprint, cookies</footer></body></html>"""


def test_the_main_text_keeps_lists_code_and_tables_and_leaves_out_what_is_around_it() -> None:
    text = extract_main_text(PAGE.encode())
    assert "First paragraph of the page, with a link and more." in text
    assert "\n- The first item is a sentence.\n" in text
    assert "\n- The second item is one, too.\n" in text
    assert "def f():\n    return 1\n" in text
    assert text.split()[-4:] == ["a", "b", "1", "2"]
    for around in ("Home", "Shop", "flights", "imprint", "var x"):
        assert around not in text


def test_pages_are_decoded_as_the_server_or_the_page_says() -> None:
    page = "<p>Ein schöner Satz über das Wetter in München, lang genug für einen Absatz.</p>"
    said = '<meta charset="latin-1">' + page
    expected = "Ein schöner Satz über das Wetter in München, lang genug für einen Absatz."
    for html, charset in ((page.encode("utf-16"), "utf-16"), (said.encode("latin-1"), None), (page.encode(), None)):
        assert extract_main_text(html, charset) == expected


def test_a_page_without_text_gives_none() -> None:
    assert [extract_main_text(html) for html in (b"", b"<html></html>", b"<script>x</script>")] == ["", "", ""]


@pytest.mark.parametrize(
    "html",
    [
        b"<div>" * 200_000,
        b"<DIV>" * 3000 + b"</DIV>" * 3000,
        b"<SCRIPT>x</script>" + b"<div>" * 3000,
        b"<x-y>" * 2500,
    ],
)
def test_a_page_that_is_nested_too_deeply_is_refused_at_once(html: bytes) -> None:
    started = time.process_time()
    with pytest.raises(ValueError, match="nested more than 2,000 levels deep"):
        extract_main_text(html)
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    "html",
    [
        b"<p>x" * 50_000,
        b"<ul>" + b"<li>x" * 50_000,
        b"<div>x</div>" * 20_000,
        b"<table><tr><td>" * 1_000 + b"x",
        b"<p>&amp;" * 20_000,
        b"<!DOCTYPE x [<!ENTITY a '&b;&b;'><!ENTITY b '&c;&c;'>]><p>" + b"&a;" * 10_000,
        b"<p " + b"a=b " * 50_000 + b">x",
        b"<script>" * 50_000,
        b"<!--" * 50_000,
        b"<p>\xff\xfe\xed\xa0\x80 invalid",
    ],
)
def test_hostile_pages_take_little_time(html: bytes) -> None:
    started = time.process_time()
    assert isinstance(extract_main_text(html), str)
    assert time.process_time() - started < 2


def test_a_charset_that_makes_half_characters_is_survived() -> None:
    assert extract_main_text(b"<p>a \\ud800 b and some more words to be a paragraph</p>", "unicode_escape")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(["<div>", "</div>", "<p>", "<pre>", "<table>", "<td>", "text ", "&lt;", "<!--", "<a b"]))
)
def test_no_page_breaks_it(parts: list[str]) -> None:
    text = extract_main_text("".join(parts).encode())
    assert text == text.strip("\n")
