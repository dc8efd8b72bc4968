# ruff: noqa: RUF001  signs as the page shows them
"""Templates of Wikipedia whose text belongs to the sentence around them, and what they show.

In: a template's name, its positional and its named arguments as text. Out: the text that readers of the page see, or
nothing for templates that are not known here: citations, maintenance notices, navigation, infoboxes.

Source: the documentation of each template, https://en.wikipedia.org/wiki/Template:NAME.
"""

import re
from collections.abc import Callable

from data_pipelines.sources.wikitext_convert import render_convert
from data_pipelines.sources.wikitext_numbers import (
    CURRENCIES,
    Named,
    group_digits,
    write_age,
    write_as_of,
    write_chemical,
    write_chemical_formula,
    write_date,
    write_death_date,
    write_formatnum,
    write_fraction,
    write_ordinal,
    write_percentage,
    write_power,
    write_subscript,
    write_superscript,
    write_val,
)

_LANGUAGES = {
    "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian", "bn": "Bengali", "ca": "Catalan",
    "cs": "Czech", "cy": "Welsh", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "et": "Estonian", "eu": "Basque", "fa": "Persian", "fi": "Finnish", "fr": "French", "ga": "Irish",
    "gd": "Scottish Gaelic", "gl": "Galician", "grc": "Ancient Greek", "he": "Hebrew", "hi": "Hindi",
    "hr": "Croatian", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian", "is": "Icelandic", "it": "Italian",
    "ja": "Japanese", "ka": "Georgian", "kk": "Kazakh", "ko": "Korean", "la": "Latin", "lt": "Lithuanian",
    "lv": "Latvian", "mk": "Macedonian", "mn": "Mongolian", "ms": "Malay", "mt": "Maltese", "ne": "Nepali",
    "nl": "Dutch", "no": "Norwegian", "pa": "Punjabi", "pl": "Polish", "ps": "Pashto", "pt": "Portuguese",
    "ro": "Romanian", "ru": "Russian", "sa": "Sanskrit", "si": "Sinhala", "sk": "Slovak", "sl": "Slovene",
    "sq": "Albanian", "sr": "Serbian", "sv": "Swedish", "sw": "Swahili", "syr": "Syriac", "ta": "Tamil",
    "te": "Telugu", "th": "Thai", "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek",
    "vi": "Vietnamese", "yi": "Yiddish", "zh": "Chinese",
}  # fmt: skip
# What IPAc-en takes beside sounds.
_NO_SOUNDS = {"lang", "local", "pron", "us", "uk", "gb", "au", "ca", "ie", "nz", "audio", "also", "alsouk", "alsous"}
_LINES = re.compile(r"\n[\x01*#;:\s]*")


def render_template(name: str, values: list[str], named: Named, title: str = "") -> str | None:
    """What a template shows.

    Args:
        name: in lower case, words with single spaces.
        values: positional arguments.
        named: other arguments by lower-case name.
        title: of the page.

    Returns:
        The text; None for a template whose text is none of the article.
    """
    if name in SYMBOLS:
        return SYMBOLS[name]
    if name in ("pagename", "fullpagename", "subpagename", "basepagename"):
        return title
    if name in ("height", "weight"):
        return _write_measure(named)
    if name == "su":
        return write_superscript(named.get("p", "")) + write_subscript(named.get("b", ""))
    if name.startswith(("lang-", "ipa-")) and values:
        return _write_language(name.partition("-")[2], values) if name[0] == "l" else values[0]
    word, colon, value = name.partition(":")
    if colon:
        return _write_function(word, value, values)
    if name in CURRENCIES and values:
        return CURRENCIES[name] + group_digits(values[0])
    write = TEMPLATES.get(name)
    return write(values, named) if write is not None and any(values) else None


def is_known(name: str) -> bool:
    """Whether the arguments of a template are worth rendering."""
    return (
        name in TEMPLATES
        or name in CURRENCIES
        or name in SYMBOLS
        or name in _BY_NAME
        or ":" in name
        or name.startswith(("lang-", "ipa-"))
    )


_BY_NAME = {"pagename", "fullpagename", "subpagename", "basepagename", "height", "weight", "su"}


def _write_function(word: str, value: str, values: list[str]) -> str | None:
    # Parser functions get their first argument after a colon, inside of the name; it was lowered with the name.
    first = values[0] if values else value
    match word:
        case "formatnum":
            return write_formatnum([value, *values], {})
        case "lc" | "lcfirst":
            return value
        case "uc":
            return value.upper()
        case "ucfirst":
            return value[:1].upper() + value[1:]
        case "lang":
            return first
    return None


def _write_first(values: list[str], named: Named) -> str:
    return values[0]


def _write_second(values: list[str], named: Named) -> str:
    return values[1] if len(values) > 1 else ""


def _write_last(values: list[str], named: Named) -> str:
    return values[-1]


def _write_second_or_first(values: list[str], named: Named) -> str:
    return (values[1] if len(values) > 1 else "") or values[0]


def _write_joined(values: list[str], named: Named) -> str:
    return "".join(values)


def _write_words(values: list[str], named: Named) -> str:
    return " ".join(filter(None, values))


def _write_row(values: list[str], named: Named) -> str:
    return " · ".join(filter(None, values))


def _write_items(values: list[str], named: Named) -> str:
    return "".join(f"\n\x01*{value}" for value in values if value) + "\n"


def _write_flat_list(values: list[str], named: Named) -> str:
    return " · ".join(part.strip() for part in _LINES.split("\n" + values[0].strip()) if part.strip())


def _write_block(values: list[str], named: Named) -> str:
    text = values[0]
    author = (values[1] if len(values) > 1 else "") or named.get("author", "") or named.get("sign", "")
    return f"\n\n{text}{f' — {author}' if author else ''}\n\n"


def _write_quoted(values: list[str], named: Named) -> str:
    return f'"{values[0]}"'


def _write_language(code: str, values: list[str]) -> str:
    name = _LANGUAGES.get(code, "")
    return f"{name}: {values[0]}" if name else values[0]


def _write_langx(values: list[str], named: Named) -> str:
    return _write_language(values[0], values[1:]) if len(values) > 1 else ""


def _write_nihongo(values: list[str], named: Named) -> str:
    extra = ", ".join(filter(None, values[1:4]))
    return f"{values[0]} ({extra})" if values[0] and extra else values[0] or extra


def _write_sounds(values: list[str], named: Named) -> str:
    sounds = "".join(value for value in values if value.lower() not in _NO_SOUNDS)
    return f"/{sounds.replace('_', ' ')}/" if sounds else ""


def _write_respelling(values: list[str], named: Named) -> str:
    return "-".join(filter(None, values)).replace("-_-", " ")


def _write_circa(values: list[str], named: Named) -> str:
    return " – ".join(f"c. {value}" for value in values[:2] if value)


def _write_flourished(values: list[str], named: Named) -> str:
    return f"fl. {'–'.join(filter(None, values[:2]))}"


def _write_reign(values: list[str], named: Named) -> str:
    return f"r. {'–'.join(filter(None, values[:2]))}"


def _write_marriage(values: list[str], named: Named) -> str:
    years = "–".join(filter(None, values[1:3]))
    return f"{values[0]} (m. {years})" if years else values[0]


def _write_foreign_link(values: list[str], named: Named) -> str:
    old = len(values) > 1 and re.fullmatch(r"[a-z]{2,3}", values[0])  # language first
    return named.get("lt") or (values[-1] if old else values[0])


def _write_ship(values: list[str], named: Named) -> str:
    hull = values[1] if len(values) > 1 else ""
    return values[0] + (f" ({hull})" if hull else "")


def _write_us_ship(values: list[str], named: Named) -> str:
    return f"USS {_write_ship(values, named)}"


def _write_coordinates(values: list[str], named: Named) -> str:
    # Those of the title stand at the corner of the page, not in the text.
    if "title" in named.get("display", "") and "inline" not in named.get("display", ""):
        return ""
    parts = []
    for value in values:
        if not re.fullmatch(r"[NSEW]|[-−]?[0-9.]{1,12}", value.upper()):
            break
        parts.append(value.upper())
    if not any(part.isalpha() for part in parts):
        return ", ".join(f"{part}°" for part in parts[:2])
    shown, place = "", 0
    for part in parts:
        shown += f"{part} " if part.isalpha() else part + "°′″"[min(place, 2)]
        place = 0 if part.isalpha() else place + 1
    return shown.strip()


def _write_measure(named: Named) -> str:
    pairs = (("m", "ftin"), ("cm", "ftin"), ("kg", "lb"), ("lb", "kg"), ("st", "kg"))
    for unit, target in pairs:
        if named.get(unit):
            return render_convert([named[unit], unit, target], {"abbr": "on"})
    if named.get("ft"):
        return render_convert([named["ft"], "ft", named.get("in") or "0", "in", "m"], {"abbr": "on"})
    return ""


def _write_converted(values: list[str], named: Named) -> str:
    return render_convert(values, named)


def _write_converted_short(values: list[str], named: Named) -> str:
    return render_convert(values, named, abbreviated=True)


def _write_angled(values: list[str], named: Named) -> str:
    return f"⟨{values[0]}⟩"


def _write_nuclide(values: list[str], named: Named) -> str:
    return "-".join(values[:2])


def _write_currency(values: list[str], named: Named) -> str:
    code = values[1].lower() if len(values) > 1 else "usd"
    return CURRENCIES.get(code, f"{code.upper()} ") + group_digits(values[0])


def _write_pages(values: list[str], named: Named) -> str:
    return f"p. {values[0]}" if len(values) == 1 else f"pp. {'–'.join(values[:2])}"


def _write_volume(values: list[str], named: Named) -> str:
    return f"vol. {values[0]}"


SYMBOLS = {
    "·": " · ", "•": " • ", "dot": " · ", "bullet": " • ", "!": "|", "=": "=", "'": "'", "'s": "'s", "' \"": "' \"",
    "nbsp": " ", "space": " ", "spaces": " ", "thinsp": " ", "hairsp": " ", "zwj": "", "zwnj": "", "zwsp": "",
    "shy": "", "wbr": "", "snd": " – ", "spnd": " – ", "sndash": " – ", "spaced ndash": " – ", "spaced en dash": " – ",
    "dash": " – ", "ndash": "–", "en dash": "–", "endash": "–", "mdash": "—", "em dash": "—", "mdashb": "—",
    "spaced mdash": " — ", "spaced em dash": " — ", "okina": "ʻ", "hamza": "ʼ", "ayin": "ʽ", "pi": "π",
    "pipe": "|", "colon": ":", "(": "(", ")": ")", "((": "{{", "))": "}}", "bracket": "[", "minus": "−", "x": "×",
    "times": "×", "plusminus": "±", "pm": "±", "sharp": "♯", "flat": "♭", "natural": "♮", "break": "\n", "br": "\n",
    "crlf": "\n", "pb": "\n\n", "paragraph break": "\n\n", "-": "\n", "clear": "\n", "yes": "Yes", "no": "No",
    "ya": "Yes", "na": "N/A", "n/a": "N/A", "tba": "TBA", "tbd": "TBD", "unk": "Unknown", "hbar": "ħ", "ell": "ℓ",
    "eqm": '"', "hair space": " ",
}  # fmt: skip

_GROUPS: dict[Callable[[list[str], Named], str], str] = {
    _write_first: (
        "nowrap,nobr,nwr,nowrap begin,small,smaller,smalldiv,big,larger,large,smallcaps,sc,sc1,sc2,allcaps,aut,abbr,"
        "abbrlink,abbreviation,tooltip,hover title,h:title,ipa,ipalink,ipa link,unicode,sic,typo,not a typo,"
        "proper name,"
        "notatypo,chem name,as written,nobold,noitalic,normal,em,strong,bold,italic,italics,italic title,"
        "vanchor,visible anchor,keypress,key press,key,kbd,code,mono,monospace,tt,codett,var,"
        "samp,nts,ntsh,number table sorting,"
        "math,mvar,bigmath,gaps,linktext,flag,flagcountry,flagu,flagathlete,sup sub,"
        "longitem,nastaliq,script/nastaliq,script/arabic,script/hebrew,polytonic,hebrew,heb,music,"
        "pad,center,left,right,block indent,blockindent,indent,in5,quote box,underline,u,strikethrough,s,"
        "highlight,midsize,nihongo2,nihongo krt,zh-full,asiantitle,vr,noflag,team,as ref,railgauge,"
        "plural,tlit,interp,subst,title,abs,ordered,script,lk,nuclide link"
    ),
    _write_second: "lang,script,color,colour,fontcolor,font color,resize,font,legend,native name,rtl-lang,wikt-lang,"
    "background color,bgcolor,color box,href,native phrase,text color,linkcolor",
    _write_last: "transl,transliteration,font color link",
    _write_second_or_first: "wiktlink,wikt,sortname link,sort,hs,wict,lsj,see below,see above,sort under,section link",
    _write_joined: "gaps,gapnum,nospace,linkedtext",
    _write_words: "sortname,hyphenate,zhi",
    _write_row: "hlist,horizontal list,dotlist,flatlist row",
    _write_items: "unbulleted list,ubl,ublist,vunblist,bulleted list,ordered list,collapsible list,bullet list",
    _write_flat_list: "flatlist",
    _write_block: "quote,blockquote,cquote,quotation,bquote,centered pull quote,pull quote,rquote,poemquote,poem quote,"
    "plainlist,plain list,verse translation,quote frame,columns-list,col-list,div col list",
    _write_quoted: "\",'',\"',quoted,double quote,dquote",
    _write_langx: "langx,lang-x",
    _write_nihongo: "nihongo,nihongo foot",
    _write_sounds: "ipac-en,ipac-de,ipac-pl",
    _write_respelling: "respell,respelling",
    _write_circa: "circa,c.,ca,c,ca.",
    _write_flourished: "floruit,fl.,fl",
    _write_reign: "reign,r.",
    _write_marriage: "marriage,married",
    _write_foreign_link: "ill,interlanguage link,illm,ill2,link-interwiki,interlanguage link multi",
    _write_ship: "ship,hms link,jsub",
    _write_us_ship: "uss",
    _write_coordinates: "coord,coordinates",
    _write_converted: "convert,conv",
    _write_converted_short: "cvt,convert/abbr",
    _write_angled: "angbr,angle bracket,angbr ipa",
    _write_nuclide: "simplenuclide,simplenuclide2,nuclide,nuclide2,simplenuclide link",
    _write_currency: "currency,currency amount,money",
    _write_pages: "p.,pp.",
    _write_volume: "vol.,volume",
    write_formatnum: "formatnum,format number,fnum,commas,digits,format price",
    write_val: "val",
    write_fraction: "frac,fraction,sfrac,sfraction,frac2",
    write_power: "e,x10^,esp",
    write_ordinal: "ordinal,ord,nth",
    write_percentage: "percentage,pct",
    write_chemical: "chem,chemical formula",
    write_chemical_formula: "chem2",
    write_date: "birth date,birth-date,birth date and age,birth year and age,bda,dob,death date,death-date,death year,"
    "start date,"
    "start date and age,end date,end date and age,film date,release date,date,dts,launch date,birth year",
    write_death_date: "death date and age,death year and age,dda",
    write_age: "age,age in years,age nts",
    write_as_of: "as of,asof,since",
}

TEMPLATES = {name: write for write, names in _GROUPS.items() for name in names.split(",")}
TEMPLATES["sup"] = lambda values, named: write_superscript(values[0])
TEMPLATES["sub"] = lambda values, named: write_subscript(values[0])
TEMPLATES["radic"] = lambda values, named: f"√{values[0]}"
TEMPLATES["sqrt"] = TEMPLATES["radic"]
TEMPLATES["overline"] = _write_first
