# ruff: noqa: RUF001  signs as the page shows them
"""Template `convert` (and `cvt`): "10 kilometres (6.2 mi)", with the converted value.

Source: https://en.wikipedia.org/wiki/Template:Convert, sections on rounding, ranges and display. Approximated are
mixed units other than feet and inches, and fractions, which are written as decimals after conversion.
"""

import math
import re
from fractions import Fraction

from data_pipelines.sources.wikitext_units import UNITS, WikiUnit

_RANGES = {
    "-": "–",
    "–": "–",
    "to": " to ",
    "to(-)": " to ",
    "and": " and ",
    "or": " or ",
    "&": " & ",
    "x": " by ",
    "by": " by ",
    "×": " × ",
    "*": " × ",
    "xx": " × ",
    "+/-": " ± ",
    "±": " ± ",
    "and(-)": " and ",
}
_NUMBER = re.compile(r"[-+−]?(?:[0-9][0-9,]*(?:\.[0-9]*)?|\.[0-9]+)(?:e[-+]?[0-9]{1,3})?\Z", re.IGNORECASE)
_FRACTION = re.compile(r"(?:([-−]?[0-9]{1,9})[+ ])?([-−]?[0-9]{1,9})(?://|/|⁄)([0-9]{1,9})\Z")
_MAX_DIGITS = 40
_HEAD = {"in", "on"}


def render_convert(values: list[str], named: dict[str, str], *, abbreviated: bool = False) -> str:
    """What the template shows.

    Args:
        values: positional arguments: value, [range word, value ...], unit, [target unit], [decimals].
        named: `abbr`, `disp`, `order`, `sigfig`, `sp`, `adj`.
        abbreviated: units as symbols unless `abbr` says otherwise (`cvt`).

    Returns:
        The value, its unit and the value in the other unit; arguments that are not understood are put out as they are.
    """
    numbers, joints, rest = _split(values)
    if not numbers or not rest:
        return " ".join(values[:2])
    written, key, rest = numbers, rest[0], rest[1:]
    inches = ""
    if key in ("ft", "foot") and len(rest) >= 2 and rest[1] in ("in", "inch") and _read(rest[0]) is not None:
        inches, rest = rest[0], rest[2:]
    unit = UNITS.get(key)
    targets, places = _read_targets(rest, unit)
    if unit is None:
        return f"{_join(written, joints)} {key}"
    amounts = [_read(number) or 0.0 for number in written]
    if inches:
        amounts = [amounts[0] + (_read(inches) or 0.0) / 12]
    # Temperatures are never spelled out on the page.
    short = bool(unit.offset) or named.get("abbr", "on" if abbreviated else "") in _HEAD
    source = _write_source(written, joints, unit, inches, named, short=short)
    finest = UNITS["in"] if inches else unit
    outputs = [
        _write_target(
            amounts,
            [f"{inches}.0"] if inches.isdecimal() else [inches] if inches else written,
            joints,
            (unit, finest),
            target,
            places,
            named,
        )
        for target in targets
    ]
    return _show(source, "; ".join(filter(None, outputs)), named)


def _split(values: list[str]) -> tuple[list[str], list[str], list[str]]:
    numbers, joints, rest = values[:1], [], values[1:]
    while len(rest) >= 2 and rest[0] in _RANGES and _read(rest[1]) is not None:
        joints.append(_RANGES[rest[0]])
        numbers.append(rest[1])
        rest = rest[2:]
    return (numbers, joints, rest) if numbers and _read(numbers[0]) is not None else ([], [], rest)


def _read(text: str) -> float | None:
    text = text.strip()
    if len(text) > _MAX_DIGITS:
        return None
    if _NUMBER.match(text):
        return float(text.replace(",", "").replace("−", "-"))
    if (match := _FRACTION.match(text)) and int(match[3]):
        whole, part = int((match[1] or "0").replace("−", "-")), Fraction(int(match[2].replace("−", "-")), int(match[3]))
        return float(whole - part if whole < 0 else whole + part)
    return None


def _read_targets(rest: list[str], unit: WikiUnit | None) -> tuple[list[str], int | None]:
    places = next((int(value.replace("−", "-")) for value in rest[:2] if re.fullmatch(r"[-−]?[0-9]", value)), None)
    named = rest[0] if rest and not re.fullmatch(r"[-−]?[0-9]?", rest[0]) else (unit.counterpart if unit else "")
    if named in UNITS or named in ("ftin", "ft in"):
        return [named.replace("ftin", "ft in")], places
    return [key for key in named.split() if key in UNITS], places


def _write_source(
    written: list[str], joints: list[str], unit: WikiUnit, inches: str, named: dict[str, str], *, short: bool
) -> str:
    if inches:
        pair = (" ft ", " in") if short else (" feet ", " inches")
        return f"{written[0]}{pair[0]}{inches}{pair[1]}"
    shown = _join([_group(number) for number in written], joints)
    if named.get("adj") == "on" and not short:
        return f"{shown}-{_spell(unit.singular, named)}"
    name = unit.symbol if short else unit.singular if written == ["1"] else unit.plural
    return f"{shown}{'' if name.startswith('/') else ' '}{_spell(name, named)}"


def _write_target(
    amounts: list[float],
    written: list[str],
    joints: list[str],
    units: tuple[WikiUnit, WikiUnit],
    key: str,
    places: int | None,
    named: dict[str, str],
) -> str:
    unit, finest = units
    target = UNITS["ft" if key == "ft in" else key]
    results = [(amount * unit.factor + unit.offset - target.offset) / target.factor for amount in amounts]
    if key == "ft in":
        total = [round(abs(result) * 12) for result in results]
        return _join([f"{value // 12} ft {value % 12} in" for value in total], joints)
    digits = int(named["sigfig"]) if re.fullmatch(r"[1-9]", named.get("sigfig", "")) else None
    scale = finest.factor / target.factor
    shown = [
        _round(result, _find_places(result, written[min(index, len(written) - 1)], scale, unit, places, digits))
        for index, result in enumerate(results)
    ]
    if len(shown) > 1 and len(set(shown)) == 1:
        shown, joints = shown[:1], []
    name = target.symbol
    if named.get("abbr") in ("off", "none"):
        name = _spell(target.singular if shown == ["1"] else target.plural, named)
    return f"{_join(shown, joints)}{'' if name.startswith('/') else ' '}{name}"


def _find_places(
    result: float, written: str, scale: float, unit: WikiUnit, places: int | None, digits: int | None
) -> int:
    # As many digits as the input has, but two at least; a factor of 2 to 20 takes one decimal away, and so on.
    if places is not None:
        return places
    size = math.floor(math.log10(abs(result))) if result and math.isfinite(result) else 0
    if digits is not None:
        return digits - 1 - size
    plain = written.replace(",", "").lower().partition("e")[0]
    whole, _, decimals = plain.partition(".")
    given = len(decimals) if decimals else -(len(whole) - len(whole.rstrip("0")))
    if unit.offset:
        return max(given, 0)
    return max(given - math.floor(math.log10(scale / 2)) - 1, 1 - size)


def _round(value: float, places: int) -> str:
    if not math.isfinite(value):
        return str(value)
    places = max(-_MAX_DIGITS, min(places, _MAX_DIGITS))
    # Halves go away from zero, as on the page.
    step = 10.0 ** max(-places, 0)
    rounded = math.copysign(math.floor(abs(value) / step + 0.5) * step, value) if places <= 0 else round(value, places)
    shown = f"{rounded:,.{max(places, 0)}f}"
    return shown.replace("-", "−") if rounded else shown.lstrip("-")


def _group(number: str) -> str:
    plain = number.replace("−", "-")
    if re.fullmatch(r"-?[0-9]{4,40}(\.[0-9]+)?", plain):
        whole, point, decimals = plain.partition(".")
        number = f"{int(whole):,}{point}{decimals}"
    return number.replace("-", "−")


def _join(numbers: list[str], joints: list[str]) -> str:
    return "".join(a + b for a, b in zip(numbers, [*joints, ""], strict=False))


def _spell(name: str, named: dict[str, str]) -> str:
    return name.replace("metre", "meter").replace("litre", "liter") if named.get("sp") == "us" else name


def _show(source: str, output: str, named: dict[str, str]) -> str:
    if not output:
        return source
    if named.get("order") == "flip" or named.get("disp") == "flip":
        source, output = output, source
    match named.get("disp", "b"):
        case "or":
            return f"{source} or {output}"
        case "out" | "output only":
            return output
        case "number" | "output number only":
            return output.split(" ")[0]
        case "comma":
            return f"{source}, {output}"
        case "sqbr":
            return f"{source} [{output}]"
        case "unit" | "unit2":
            return source.partition(" ")[2]
        case _:
            return f"{source} ({output})"
