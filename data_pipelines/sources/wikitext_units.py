"""Units of measurement as Wikipedia's template `convert` writes them: names, symbols, factors, usual counterparts.

Source: https://en.wikipedia.org/wiki/Template:Convert (units and default conversions); factors from NIST SP 811,
appendix B.8.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class WikiUnit:
    """One unit: value in the unit * factor + offset = value in the SI unit of its quantity."""

    symbol: str
    singular: str
    plural: str
    factor: float
    counterpart: str
    """Key of the unit it is converted to when the page names none."""
    offset: float = 0.0


# Key | symbol | singular | plural | factor | counterpart [| offset]. `~` joins further keys of the same unit.
_TABLE = """
mm|mm|millimetre|millimetres|0.001|in
cm|cm|centimetre|centimetres|0.01|in
m|m|metre|metres|1|ft
km|km|kilometre|kilometres|1000|mi
um~μm~µm|μm|micrometre|micrometres|1e-6|in
nm|nm|nanometre|nanometres|1e-9|in
in~inch|in|inch|inches|0.0254|mm
ft~foot~feet|ft|foot|feet|0.3048|m
yd|yd|yard|yards|0.9144|m
mi~mile|mi|mile|miles|1609.344|km
nmi|nmi|nautical mile|nautical miles|1852|km
fathom|fathom|fathom|fathoms|1.8288|m
furlong|furlong|furlong|furlongs|201.168|m
AU~au|AU|astronomical unit|astronomical units|149597870700|km
ly|ly|light-year|light-years|9.4607304725808e15|pc
pc|pc|parsec|parsecs|3.0856775814913673e16|ly
mm2|mm²|square millimetre|square millimetres|1e-6|sqin
cm2|cm²|square centimetre|square centimetres|1e-4|sqin
m2|m²|square metre|square metres|1|sqft
km2|km²|square kilometre|square kilometres|1e6|sqmi
ha|ha|hectare|hectares|1e4|acre
sqin~in2|sq in|square inch|square inches|0.00064516|cm2
sqft~ft2|sq ft|square foot|square feet|0.09290304|m2
sqyd~yd2|sq yd|square yard|square yards|0.83612736|m2
sqmi~mi2|sq mi|square mile|square miles|2589988.110336|km2
acre~acres|acres|acre|acres|4046.8564224|ha
cm3~cc|cm³|cubic centimetre|cubic centimetres|1e-6|cuin
m3|m³|cubic metre|cubic metres|1|cuft
km3|km³|cubic kilometre|cubic kilometres|1e9|cumi
cuin~in3|cu in|cubic inch|cubic inches|1.6387064e-5|cm3
cuft~ft3|cu ft|cubic foot|cubic feet|0.028316846592|m3
cuyd|cu yd|cubic yard|cubic yards|0.764554857984|m3
cumi~mi3|cu mi|cubic mile|cubic miles|4168181825.44058|km3
acre.ft~acreft|acre⋅ft|acre-foot|acre-feet|1233.48183754752|m3
L~l|L|litre|litres|0.001|impgal
mL~ml|mL|millilitre|millilitres|1e-6|usfloz
usgal~USgal~gal~U.S.gal|US gal|US gallon|US gallons|0.003785411784|L
impgal|imp gal|imperial gallon|imperial gallons|0.00454609|L
usfloz~USfloz|US fl oz|US fluid ounce|US fluid ounces|2.95735295625e-5|mL
impfloz|imp fl oz|imperial fluid ounce|imperial fluid ounces|2.84130625e-5|mL
oilbbl~bbl|bbl|barrel|barrels|0.158987294928|m3
g|g|gram|grams|0.001|oz
mg|mg|milligram|milligrams|1e-6|gr
kg|kg|kilogram|kilograms|1|lb
t~tonne|t|tonne|tonnes|1000|LT ST
gr|gr|grain|grains|6.479891e-5|mg
oz|oz|ounce|ounces|0.028349523125|g
lb~lbs~pound|lb|pound|pounds|0.45359237|kg
st~stone|st|stone|stone|6.35029318|kg
LT~long ton|long tons|long ton|long tons|1016.0469088|t
ST~short ton|short tons|short ton|short tons|907.18474|t
km/h~kph~kmh|km/h|kilometre per hour|kilometres per hour|0.2777777777777778|mph
mph|mph|mile per hour|miles per hour|0.44704|km/h
kn~knot|kn|knot|knots|0.5144444444444445|km/h
m/s|m/s|metre per second|metres per second|1|ft/s
ft/s~fps|ft/s|foot per second|feet per second|0.3048|m/s
km/s|km/s|kilometre per second|kilometres per second|1000|mi/s
mi/s|mi/s|mile per second|miles per second|1609.344|km/s
m3/s|m³/s|cubic metre per second|cubic metres per second|1|cuft/s
cuft/s~ft3/s|cu ft/s|cubic foot per second|cubic feet per second|0.028316846592|m3/s
C~°C~degC|°C|degree Celsius|degrees Celsius|1|F|273.15
F~°F~degF|°F|degree Fahrenheit|degrees Fahrenheit|0.5555555555555556|C|255.3722222222222
K|K|kelvin|kelvins|1|C
Pa|Pa|pascal|pascals|1|psi
kPa|kPa|kilopascal|kilopascals|1000|psi
MPa|MPa|megapascal|megapascals|1e6|psi
hPa~mbar|hPa|hectopascal|hectopascals|100|inHg
bar|bar|bar|bars|1e5|psi
atm|atm|standard atmosphere|standard atmospheres|101325|kPa
psi|psi|pound per square inch|pounds per square inch|6894.757293168|kPa
inHg|inHg|inch of mercury|inches of mercury|3386.389|hPa
J|J|joule|joules|1|cal
kJ|kJ|kilojoule|kilojoules|1000|kcal
MJ|MJ|megajoule|megajoules|1e6|kWh
cal|cal|calorie|calories|4.184|J
kcal~Cal|kcal|kilocalorie|kilocalories|4184|kJ
kWh|kWh|kilowatt hour|kilowatt hours|3.6e6|MJ
W|W|watt|watts|1|hp
kW|kW|kilowatt|kilowatts|1000|hp
MW|MW|megawatt|megawatts|1e6|hp
hp|hp|horsepower|horsepower|745.6998715822702|kW
N|N|newton|newtons|1|lbf
kN|kN|kilonewton|kilonewtons|1000|lbf
lbf|lbf|pound-force|pounds-force|4.4482216152605|N
Nm|N⋅m|newton-metre|newton-metres|1|lbft
lbft~lb.ft|lb⋅ft|pound-foot|pound-feet|1.3558179483314|Nm
/km2~PD/km2|/km²|inhabitant per square kilometre|inhabitants per square kilometre|1e-6|/sqmi
/sqmi~PD/sqmi~/mi2|/sq mi|inhabitant per square mile|inhabitants per square mile|3.861021585424458e-7|/km2
kg/m3|kg/m³|kilogram per cubic metre|kilograms per cubic metre|1|lb/cuft
lb/cuft|lb/cu ft|pound per cubic foot|pounds per cubic foot|16.018463373960|kg/m3
g/cm3|g/cm³|gram per cubic centimetre|grams per cubic centimetre|1000|lb/cuin
lb/cuin|lb/cu in|pound per cubic inch|pounds per cubic inch|27679.904710203|g/cm3
"""


def _read_table() -> dict[str, WikiUnit]:
    units: dict[str, WikiUnit] = {}
    for line in _TABLE.strip().splitlines():
        keys, symbol, singular, plural, factor, counterpart, *offset = line.split("|")
        unit = WikiUnit(symbol, singular, plural, float(factor), counterpart, float(offset[0]) if offset else 0.0)
        units |= dict.fromkeys(keys.split("~"), unit)
    return units


UNITS = _read_table()
