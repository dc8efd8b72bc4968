from pathlib import Path

import pytest

from data_pipelines.sources.html import extract_text

PAGE = b"""<!DOCTYPE html><html><head><title>Two  words</title><style>p {}</style><script>if (a < b) {}</script></head>
<body><nav>Home</nav><!-- note --><h1>Heading</h1>
<p>One <b>bold</b>
line.</p><p>Next &amp; last&nbsp;one<br>after a break</p>
<ul><li>first<li>second</ul><pre>def f():
    return  1
</pre><table><tr><td>a</td><td>b</td></tr></table><a href="file:/usr/lib/x.py">/usr/lib/x.py</a>tail</body></html>"""


def test_blocks_are_lines_preformatted_text_stays_and_scripts_go() -> None:
    assert extract_text(PAGE) == (
        "Two words\n\nHeading\n\nOne bold line.\n\nNext & last one\nafter a break\n\nfirst\nsecond\n\n"
        "def f():\n    return  1\n\na b\n\ntail"
    )


@pytest.mark.parametrize(
    ("html", "charset"),
    [
        ("<p>née €</p>".encode(), None),
        ("\ufeff<p>née €</p>".encode(), None),
        ("<meta charset='utf-8'><p>née €</p>".encode(), None),
        ("<meta http-equiv=content-type content='text/html; charset=windows-1252'><p>née €</p>".encode("cp1252"), None),
        ("<?xml version='1.0' encoding='utf-8'?><html><body><p>née €</p></body></html>".encode(), None),
        ("<p>née €</p>".encode("cp1252"), "iso-8859-1"),
        ("<meta charset='utf-8'><p>née €</p>".encode("iso8859-15"), "iso-8859-15"),
        ("<meta charset='nonsense'><p>née €</p>".encode(), "hex"),
        ("<form accept-charset='latin1'></form><p>née €</p>".encode(), None),
        ("<title>née €</title>".encode() + b"<!--" + b"c" * 3000 + b"--><meta charset='utf-8'>", None),
    ],
)
def test_the_server_decides_the_encoding_then_the_page_then_it_is_utf_8(html: bytes, charset: str | None) -> None:
    assert extract_text(html, charset) == "née €"


def test_damaged_bytes_cost_themselves_and_nothing_after_them() -> None:
    html = b"<p>good</p>" + b"<p>fill</p>" * 3000 + b"<p>bad \xff\x00 byte</p><p>end</p>"
    text = extract_text(html)
    assert text.startswith("good\n\nfill")
    assert text.endswith("byte\n\nend")
    assert text.count("fill") == 3000


def test_no_text_is_lost_in_deep_nesting_and_long_text() -> None:
    deep = b"<div>" * 1500 + b"deep" + b"</div>" * 1500 + b"<p>end</p>"
    assert extract_text(deep) == "deep\n\nend"
    unclosed = b"<p>start</p>" + b"<font>x " * 1500
    assert extract_text(unclosed).count("x") == 1500
    long = b"<p>" + b"word " * 2_200_000 + b"</p><p>end</p>"
    assert extract_text(long).count("word") == 2_200_000


@pytest.mark.parametrize("html", [b"", b" \n", b"<!-- only a comment -->"])
def test_a_page_without_an_element_is_no_html(html: bytes) -> None:
    with pytest.raises(ValueError, match="not HTML"):
        extract_text(html)


def test_what_is_nested_too_deeply_is_refused_and_not_cut() -> None:
    with pytest.raises(ValueError, match="nested more than 2000 levels deep"):
        extract_text(b"<div>" * 100_000 + b"lost")


def test_unclosed_and_empty_elements_give_their_text() -> None:
    assert extract_text(b"<p>one<b>two<p>three<table><tr><td>x<td>y") == "onetwo\n\nthree\n\nx y"
    assert extract_text(b"<frameset><frame src=x></frameset>") == ""
    assert extract_text(b"<a>no address</a><a href>empty</a>") == "no addressempty"


def test_entities_that_a_page_defines_are_not_expanded() -> None:
    laughs = b"<!DOCTYPE html [<!ENTITY a 'ha'>" + b"".join(
        b"<!ENTITY %c '%s'>" % (98 + number, b"&%c;" % (97 + number) * 10) for number in range(12)
    )
    text = extract_text(laughs + b"]><html><body><p>&m; said the page</p></body></html>")
    assert "said the page" in text
    assert len(text) < 2000


def test_external_entities_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("hunter2")
    page = f"<?xml version='1.0'?><!DOCTYPE html [<!ENTITY x SYSTEM 'file://{tmp_path}/secret'>]><p>It is &x;</p>"
    assert "hunter2" not in extract_text(page.encode())
