import pytest

from data_pipelines.sources.wikitext import render_wikitext

ARTICLE = """{{Infobox city|name=Bern}}
'''Bern''' ({{IPA|bɛrn}}) is the ''[[Capital city|capital]]'' of [[Switzerland]].<ref>Some book</ref>
It covers {{convert|51.6|km2|sqmi}} &amp; lies on the {{lang|de|Aare}}.<!-- check --> [http://bern.ch Its site].
[[File:Bern.jpg|thumb|A picture]]
{| class="wikitable"
| a || b
|}
== History ==
* founded {{start date|1191|3|1}}<br>by a duke
* {{nowrap|no wrap}} {{unknown template|gone}}

== See also ==

== References ==
<references />
[[Category:Cities]] [[de:Bern]]
"""


def test_prose_headings_lists_and_values_stay_the_rest_goes() -> None:
    text = render_wikitext(ARTICLE)
    assert text == (
        "Bern (bɛrn) is the capital of Switzerland.\n"
        "It covers 51.6 square kilometres (19.9 sq mi) & lies on the Aare. Its site.\n\n"
        "a | b\n\n"
        "## History\n\n"
        "- founded March 1, 1191\nby a duke\n- no wrap"
    )


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("Before <ref>never closed. After", "Before <ref>never closed. After"),
        ("Before '''bold never closed", "Before bold never closed"),
        ("Before {{template never closed", "Before {{template never closed"),
        ("Before [[link never closed", "Before [[link never closed"),
        ("Before {| table never closed", "Before {| table never closed"),
        ("Before <!-- comment never closed", "Before <!-- comment never closed"),
        ("<nowiki>[[a]] {{b}}</nowiki> end", "[[a]] {{b}} end"),
        (
            "{{convert|10|to|20|km}} {{lang|de}} {{lang-de|Wort}} {{nowrap}}",
            "10 to 20 kilometres (6.2 to 12 mi) German: Wort",
        ),
        ("a &bogus; &#x110000; &nbsp;b", "a &bogus; &#x110000; \u00a0b"),
        ("", ""),
    ],
)
def test_what_is_not_closed_stays_as_it_is(wikitext: str, text: str) -> None:
    assert render_wikitext(wikitext) == text


@pytest.mark.parametrize(
    ("opening", "closing"), [("{{nowrap|", "}}"), ("[[a|", "]]"), ("<div>", "</div>"), ("<ref>", "</ref>")]
)
def test_deep_nesting_ends_with_the_text_around_it(opening: str, closing: str) -> None:
    text = render_wikitext(f"start {opening * 3000}x{closing * 3000} end")
    assert text.startswith("start")
    assert text.endswith("end")


@pytest.mark.parametrize("opening", ["{{a|", "{{{a|", "[[a|", "[http://x ", "\n{| a\n|", "<b>", "\n* <ref name=x>"])
def test_thousands_that_are_never_closed_are_refused_at_once(opening: str) -> None:
    with pytest.raises(ValueError, match=r"is missing [\d,]+ times"):
        render_wikitext("start " + opening * 100_000)
    assert render_wikitext("start " + opening * 100).startswith("start")


def test_line_breaks_and_empty_tags_need_no_end() -> None:
    assert render_wikitext("<br>word<ref name=x />" * 1000).count("word") == 1000


def test_a_long_article_is_read_whole() -> None:
    assert render_wikitext("The [[city]] is '''big'''. " * 20_000).count("city is big") == 20_000
