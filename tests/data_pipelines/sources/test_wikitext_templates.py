# ruff: noqa: RUF001
"""Golden renderings: what Wikipedia shows for the example of each template."""

import pytest

from data_pipelines.sources.wikitext import render_wikitext


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("{{convert|10|km|mi}}", "10 kilometres (6.2 mi)"),
        ("{{convert|1|mi}}", "1 mile (1.6 km)"),
        ("{{cvt|10|km|mi}}", "10 km (6.2 mi)"),
        ("{{convert|10|km|mi|abbr=on}}", "10 km (6.2 mi)"),
        ("{{convert|10|km|mi|sp=us}}", "10 kilometers (6.2 mi)"),
        ("{{convert|20|-|25|cm|in}}", "20–25 centimetres (7.9–9.8 in)"),
        ("{{convert|5|ft|10|in|m}}", "5 feet 10 inches (1.78 m)"),
        ("{{convert|37|C|F}}", "37 °C (99 °F)"),
        ("{{convert|-40|F}}", "−40 °F (−40 °C)"),
        ("{{convert|51.6|km2|sqmi}}", "51.6 square kilometres (19.9 sq mi)"),
        ("{{convert|100|acre|ha|disp=or}}", "100 acres or 40 ha"),
        ("{{convert|60|mph|km/h|order=flip}}", "97 km/h (60 miles per hour)"),
        ("{{convert|100|kg|lb|sigfig=4}}", "100 kilograms (220.5 lb)"),
        ("{{convert|12|mi|km|1}}", "12 miles (19.3 km)"),
        ("{{convert|2|t}}", "2 tonnes (2.0 long tons; 2.2 short tons)"),
        ("{{convert|10|parrots}}", "10 parrots"),
        ("{{convert|many|km}}", "many km"),
        ("{{lang|grc|λόγος}}, {{langx|de|Wort}}", "λόγος, German: Wort"),
        ("{{formatnum:1234567.5}} {{val|30000|u=C}} {{val|1.5|0.2|e=9|u=m}}", "1,234,567.5 30,000 C 1.5±0.2×10⁹ m"),
        ("{{birth date|1932|4|4|df=yes}}; {{start date|1969|7}}", "4 April 1932; July 1969"),
        ("{{death date and age|1986|12|29|1932|4|4}}", "December 29, 1986 (aged 54)"),
        ("{{as of|2009|5|lc=y}}, {{circa|1500}}, {{floruit|450}}", "as of May 2009, c. 1500, fl. 450"),
        ("{{frac|1|2}} {{frac|3|1|2}} {{ordinal|22}} {{ordinal|11}}", "1/2 3 1/2 22nd 11th"),
        ("{{USD|1000}} {{GBP|5}} {{IPA|ä}} {{angbr|x}}", "US$1,000 £5 ä ⟨x⟩"),
        ("{{chem|S|O|4|2-}} {{chem2|H2O}} H<sub>2</sub>O 10<sup>9</sup> 4<sup>th</sup>", "SO₄²⁻ H₂O H₂O 10⁹ 4th"),
        ("a{{snd}}b {{'}}c{{nbsp}}d{{·}}e", "a – b 'c d · e"),
        (
            "{{nihongo|Aikido|合気道|aikidō}} {{ill|Anna|de|Anna X}} {{flag|Turkey}}",
            "Aikido (合気道, aikidō) Anna Turkey",
        ),
        ("{{marriage|Ann|1919|1955}} {{height|m=1.78}}", "Ann (m. 1919–1955) 1.78 m (5 ft 10 in)"),
        ("{{coord|8|8|N|165|1|W}} {{coord|1|2|display=title}}", "8°8′N 165°1′W"),
        ("{{hlist|a|b}}{{plainlist|\n* c\n* d\n}}{{flatlist|\n* e\n* f\n}}", "a · b\n\n- c\n- d\n\ne · f"),
        ("{{nowrap|1=a=b}} {{PAGENAME}} {{uc:abc}} __TOC__{{main|Other}}", "a=b Title ABC"),
        ("a<ref>r</ref>, b ({{efn|x}}, c) ({{sfn|d}}) e {{cn}}.", "a, b (c) e."),
        ("<math>x^2</math> <code>f()</code> <pre>a ''b''</pre>", "$x^2$ f() `a ''b''`"),
        ("<syntaxhighlight lang=c>\nint  x;\n\n\n\ny;\n</syntaxhighlight>", "```c\nint  x;\n\n\n\ny;\n```"),
        ("# a\n# b\n#* c\n# d\n;t: d", "1. a\n2. b\n  - c\n3. d\nt: d"),
        ("== A ==\n=== B ===\n== C ==\nx", "## C\n\nx"),
        ("{|\n|+ cap\n! h !! i\n|-\n| a || b\n|-\n| ||\n|}", "cap\nh | i\na | b"),
        ('{| class="infobox"\n| a\n|}b', "b"),
    ],
)
def test_templates_and_markup_show_what_the_page_shows(wikitext: str, text: str) -> None:
    assert render_wikitext(wikitext, "Title") == text
