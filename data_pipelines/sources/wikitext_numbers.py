# ruff: noqa: RUF001, RUF002  signs as the page shows them
"""Templates of Wikipedia that write numbers, dates, ages, sums of money and formulas."""

import datetime
import re

Named = dict[str, str]

# As the English Wikipedia writes them.
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
_SUPERSCRIPTS = str.maketrans("0123456789+-−()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁽⁾ⁿ")
_SUBSCRIPTS = str.maketrans("0123456789+-−()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₍₎")
_RAISED = re.compile(r"[0-9+\-−()n]+")
_LOWERED = re.compile(r"[0-9+\-−()]+")
_ORDINAL_ENDINGS = {"st", "nd", "rd", "th"}
_INTEGER = re.compile(r"-?[0-9]{1,9}")
CURRENCIES = {
    "usd": "US$", "us$": "US$", "$": "$", "gbp": "£", "£": "£", "pound sterling": "£", "euro": "€", "eur": "€",
    "€": "€", "jpy": "¥", "¥": "¥", "cny": "CN¥", "rmb": "CN¥", "inr": "₹", "indian rupee": "₹", "₹": "₹",
    "aud": "A$", "a$": "A$", "cad": "C$", "c$": "C$", "nzd": "NZ$", "hk$": "HK$", "krw": "₩", "rub": "₽",
    "brl": "R$", "chf": "CHF ", "sek": "SEK ", "nok": "NOK ", "dkk": "DKK ", "₱": "₱", "php": "₱", "try": "₺",
}  # fmt: skip


def write_superscript(text: str) -> str:
    """Raised text in one line: 10⁹, x^{ab}, 4th."""
    return _shift(text, _RAISED, _SUPERSCRIPTS, "^", plain=_ORDINAL_ENDINGS)


def write_subscript(text: str) -> str:
    """Lowered text in one line: H₂O, x_{ab}."""
    return _shift(text, _LOWERED, _SUBSCRIPTS, "_", plain=set())


def _shift(text: str, shiftable: re.Pattern[str], letters: dict[int, int], mark: str, plain: set[str]) -> str:
    text = text.strip()
    if shiftable.fullmatch(text):
        return text.translate(letters)
    if not text or text in plain or text[0] in "[(⟨\x04" or " " in text:
        return text
    return f"{mark}{text}" if len(text) == 1 else f"{mark}{{{text}}}"


def group_digits(text: str) -> str:
    """1234567.5 -> 1,234,567.5; what is no number stays."""
    match = re.fullmatch(r"([-−]?)([0-9]+)(\.[0-9]+)?", text.strip())
    if not match or len(match[2]) > 300:
        return text
    digits = f"{int(match[2]):,}" if len(match[2]) > 3 and match[2][0] != "0" else match[2]
    return f"{match[1]}{digits}{match[3] or ''}"


def write_formatnum(values: list[str], named: Named) -> str:
    """`formatnum`; with R as second argument the digits stay ungrouped."""
    return values[0].replace(",", "") if values[1:2] == ["R"] else group_digits(values[0])


def write_val(values: list[str], named: Named) -> str:
    """`val`: 1.5±0.2×10⁹ m/s."""
    shown = group_digits(values[0])
    if len(values) == 2:
        shown += values[1] if values[1].startswith("(") else f"±{values[1]}"
    elif len(values) > 2:
        shown += f" +{values[1]}/−{values[2].lstrip('-−+')}"
    if exponent := named.get("e"):
        shown += f"×10{write_superscript(exponent)}"
    unit = named.get("u") or named.get("ul") or ""
    per = named.get("up") or named.get("upl") or ""
    joint = "" if unit in ("%", "°") or not unit else " "
    return f"{named.get('p', '')}{shown}{named.get('s', '')}{joint}{unit}{'/' if per else ''}{per}"


def write_fraction(values: list[str], named: Named) -> str:
    """`frac` and `sfrac`: 1/2 or 3 1/2."""
    match values:
        case [bottom]:
            return f"1/{bottom}"
        case [top, bottom]:
            return f"{top}/{bottom}"
        case [whole, top, bottom, *_]:
            return f"{whole} {top}/{bottom}"
    return ""


def write_power(values: list[str], named: Named) -> str:
    """`e`: ×10⁻²⁰."""
    return f"×10{write_superscript(values[0])}"


def write_ordinal(values: list[str], named: Named) -> str:
    """`ordinal`: 22nd."""
    if not _INTEGER.fullmatch(values[0]):
        return values[0]
    number = abs(int(values[0]))
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return values[0] + ending


def write_percentage(values: list[str], named: Named) -> str:
    """`percentage`: part, whole, decimals."""
    try:
        part, whole = (float(value.replace(",", "")) for value in values[:2])
        places = min(int(values[2]), 9) if len(values) > 2 else 0
        return f"{100 * part / whole:.{max(places, 0)}f}%"
    except (ValueError, ZeroDivisionError):
        return "%"


def write_chemical(values: list[str], named: Named) -> str:
    """`chem`: symbols, numbers and charges one after the other: SO₄²⁻."""
    return "".join(
        write_superscript(value)
        if re.fullmatch(r"[0-9]*[+\-−]", value)
        else write_subscript(value)
        if re.fullmatch(r"[0-9]+", value)
        else value
        for value in values
    )


def write_chemical_formula(values: list[str], named: Named) -> str:
    """`chem2`: SO4(2-) -> SO₄²⁻."""
    text = re.sub(r"\(([0-9]*[+\-−])\)", lambda match: match[1].translate(_SUPERSCRIPTS), values[0])
    text = re.sub(r"(?<=[A-Za-z)\]])[0-9]+", lambda match: match[0].translate(_SUBSCRIPTS), text)
    return re.sub(r"[+\-−]\Z", lambda match: match[0].translate(_SUPERSCRIPTS), text).replace("->", "→")


def write_date(values: list[str], named: Named) -> str:
    """Year, month, day: April 4, 1932; with `df` 4 April 1932."""
    parts = [int(value) if _INTEGER.fullmatch(value) else None for value in values[:3]]
    match parts:
        case [int(year), int(month), int(day)] if 1 <= month <= 12:
            name = _MONTHS[month - 1]
            day_first = named.get("df", "").lower() in ("y", "yes", "1", "true")
            return f"{day} {name} {year}" if day_first else f"{name} {day}, {year}"
        case [int(year), int(month), *_] if 1 <= month <= 12:
            return f"{_MONTHS[month - 1]} {year}"
    return values[0]


def write_death_date(values: list[str], named: Named) -> str:
    """`death date and age`: day of death, then day of birth: December 29, 1986 (aged 54)."""
    age = _compute_age(values[3:6], values[:3])
    return write_date(values[:3], named) + (f" (aged {age})" if age is not None else "")


def write_age(values: list[str], named: Named) -> str:
    """`age` between two dates. Up to the present day it would change with the day of reading: empty."""
    age = _compute_age(values[:3], values[3:6])
    return "" if age is None else str(age)


def write_as_of(values: list[str], named: Named) -> str:
    """`as of`: As of May 2009."""
    if "alt" in named:
        return named["alt"]
    start = "since" if named.get("since") else "as of"
    start = start if named.get("lc") else start.capitalize()
    return f"{start} {write_date(values, {**named, 'df': named.get('df', 'y')})}"


def _compute_age(born: list[str], died: list[str]) -> int | None:
    try:
        start, end = (datetime.date(*(int(part) for part in [*date, "1", "1"][:3])) for date in (born, died))
    except (ValueError, TypeError, OverflowError):
        return None
    years = end.year - start.year - ((end.month, end.day) < (start.month, start.day))
    return years if len(born) == len(died) == 3 and years >= 0 else None
