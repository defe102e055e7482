"""Numbers with units: read in many spellings, brought to one unit a dimension, compared as rounded."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MASS = {"kg": 1e6, "g": 1e3, "gr": 1e3, "gm": 1e3, "gram": 1e3, "grams": 1e3, "mg": 1.0, "mgs": 1.0}
_MASS |= {"milligram": 1.0, "milligrams": 1.0, "mcg": 1e-3, "ug": 1e-3, "microgram": 1e-3, "micrograms": 1e-3}
_MASS |= {
    "ng": 1e-6,
    "pg": 1e-9,
    "kilogram": 1e6,
    "kilograms": 1e6,
    "kgs": 1e6,
    "lb": 453592.0,
    "lbs": 453592.0,
}
_VOLUME = {
    "ml": 1.0,
    "mls": 1.0,
    "cc": 1.0,
    "l": 1e3,
    "liter": 1e3,
    "liters": 1e3,
    "litre": 1e3,
    "litres": 1e3,
}
_VOLUME |= {"dl": 100.0, "ul": 1e-3, "milliliter": 1.0, "milliliters": 1.0, "millilitres": 1.0}
_LENGTH = {"mm": 1.0, "cm": 10.0, "cms": 10.0, "m": 1000.0, "meter": 1e3, "meters": 1e3, "um": 1e-3}
_LENGTH |= {"millimeter": 1.0, "millimeters": 1.0, "centimeter": 10.0, "centimeters": 10.0}
_LENGTH |= {"millimetres": 1.0, "centimetres": 10.0, "metres": 1e3}
_TIME = {"min": 1.0, "mins": 1.0, "minute": 1.0, "minutes": 1.0, "h": 60.0, "hr": 60.0, "hrs": 60.0}
_TIME |= {"hour": 60.0, "hours": 60.0, "day": 1440.0, "days": 1440.0, "week": 10080.0, "weeks": 10080.0}
_TIME |= {"wk": 10080.0, "wks": 10080.0}
_LONG_TIME = {"month": 1.0, "months": 1.0, "mo": 1.0, "year": 12.0, "years": 12.0, "yr": 12.0, "yrs": 12.0}
_LONG_TIME |= {"y": 12.0}
_OTHERS = {
    "pressure": {"mmhg": 1.0, "mm hg": 1.0, "cmh2o": 1.0, "cm h2o": 1.0},
    "temperature": dict.fromkeys(("°c", "° c", "c", "celsius", "degrees celsius", "degrees c"), 1.0),
    "share": {"%": 1.0, "percent": 1.0, "per cent": 1.0},
    "rate": dict.fromkeys(("bpm", "beats", "breaths", "beats per minute"), 1.0),
    "units": dict.fromkeys(("iu", "u", "unit", "units"), 1.0) | {"miu": 1e-3, "mu": 1e-3},
    "moles": {"mmol": 1.0, "umol": 1e-3, "mol": 1e3, "nmol": 1e-6, "pmol": 1e-9, "mmoles": 1.0},
    "equivalents": {"meq": 1.0},
    "radiation": {"gy": 1.0, "cgy": 0.01},
    "tablets": dict.fromkeys(("tablet", "tablets", "capsule", "capsules", "pills", "drops", "puffs"), 1.0),
    "voltage": {"hz": 1.0, "mv": 1.0, "kv": 1.0, "ms": 1.0, "msec": 1.0},
}
UNITS: dict[str, tuple[str, float]] = {
    spelling: (dimension, factor)
    for dimension, spellings in {
        "mass": _MASS,
        "volume": _VOLUME,
        "length": _LENGTH,
        "time": _TIME,
        "long time": _LONG_TIME,
        **_OTHERS,
    }.items()
    for spelling, factor in spellings.items()
}
_FAHRENHEIT = ("°f", "° f", "fahrenheit", "degrees fahrenheit", "degrees f")
_DIVISORS = {"kg": "kg", "m2": "m2", "m²": "m2", "m^2": "m2"} | dict.fromkeys(_VOLUME, "volume")
_NUMBER_WORDS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
        "sixteen seventeen eighteen nineteen twenty".split()
    )
} | {
    "thirty": "30",
    "forty": "40",
    "fifty": "50",
    "sixty": "60",
    "seventy": "70",
    "eighty": "80",
    "ninety": "90",
}

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+"
_SPELT = "|".join(sorted([*UNITS, *_FAHRENHEIT], key=len, reverse=True)).replace("%", r"\%")
_QUANTITY = re.compile(
    rf"(?<![\w.,])(?P<numbers>(?:{_NUMBER})(?:\s*(?:-|to|/|x|×|and|or|±)\s*(?:{_NUMBER}))*)"
    rf"\s?-?\s?(?P<unit>{_SPELT})(?![a-z0-9°])(?P<by>(?:\s?(?:/|per)\s?(?:[a-z]+[2²]?|m\^2|24 ?h))*)"
)
_WORD_NUMBERS = re.compile(
    rf"\b({'|'.join(_NUMBER_WORDS)})(?=[\s-]+(?:{_SPELT})\b)"
    r"|\ban?(?=[\s-]+(?:day|week|month|year|hour|minute)s?\b)"
)
_BARE = re.compile(rf"(?<![\w.])(?:{_NUMBER})")
_BY = re.compile(r"(?:/|per)\s?([a-z]+[2²]?|m\^2|24 ?h)")


@dataclass(frozen=True)
class Quantity:
    """A number in the base unit of its dimension, and where it stands in the spelt text."""

    value: float
    dimension: str
    """"mass", "mass/volume", "mass/kg", …; a division by time is left out."""
    half_digit: float
    """Half of its last digit: it may be the rounding of any number so near."""
    start: int
    end: int

    def may_round(self, other: "Quantity") -> bool:
        """Whether this is `other`, or `other` rounded."""
        near = max(self.half_digit, 1e-6 * abs(self.value))
        return self.dimension == other.dimension and abs(self.value - other.value) <= near * 1.0001


def find_quantities(spelt: str) -> list[Quantity]:
    """All numbers with a unit in a text of `spell_numbers`, in order.

    Each number of a range or a product counts by itself.
    """
    found = []
    for match in _QUANTITY.finditer(spelt):
        dimension, factor, offset = _unit_of(match["unit"], match["by"])
        for number in re.findall(_NUMBER, match["numbers"]):
            plain = number.replace(",", "")
            decimals = len(plain.partition(".")[2])
            value = (float(plain) + offset) * factor
            found.append(
                Quantity(value, dimension, 0.5 * 10**-decimals * factor, match.start(), match.end("unit"))
            )
    return found


def spell_numbers(normalized: str) -> str:
    """The text with digits for number words before units, as in "two weeks" and "a month".

    Its length does not stay the same.
    """
    return _WORD_NUMBERS.sub(lambda match: _NUMBER_WORDS.get(match.group(), "1"), normalized)


def find_bare_numbers(spelt: str, quantities: Sequence[Quantity]) -> set[float]:
    """The numbers of the text that stand in none of its quantities."""
    kept, end = [], 0
    for quantity in quantities:
        # Several numbers of one range stand at the same place.
        kept.append(spelt[end : quantity.start])
        end = max(end, quantity.end)
    kept.append(spelt[end:])
    return {float(number.replace(",", "")) for number in _BARE.findall(" ".join(kept))}


def find_unsupported(
    quantities: Sequence[Quantity], text: str, source: Iterable[Quantity], bare_in_source: set[float]
) -> list[Quantity]:
    """Those of `quantities` that `source` has not.

    A number that the source has without any unit passes: a note may well add the unit.
    """
    by_dimension: dict[str, list[Quantity]] = {}
    for quantity in source:
        by_dimension.setdefault(quantity.dimension, []).append(quantity)
    return [
        quantity
        for quantity in quantities
        if not any(quantity.may_round(other) for other in by_dimension.get(quantity.dimension, ()))
        and not _stands_bare(quantity, text, bare_in_source)
    ]


def _stands_bare(quantity: Quantity, text: str, bare_in_source: set[float]) -> bool:
    numbers = re.findall(_NUMBER, text[quantity.start : quantity.end])
    return any(float(number.replace(",", "")) in bare_in_source for number in numbers)


def _unit_of(unit: str, by: str) -> tuple[str, float, float]:
    """(dimension, factor, what is added to the number before it is multiplied)."""
    if unit in _FAHRENHEIT:
        return "temperature", 5 / 9, -32.0
    dimension, factor = UNITS[unit]
    for divisor in _BY.findall(by):
        kind = _DIVISORS.get(divisor)
        if kind is not None:
            dimension = f"{dimension}/{kind}"
            factor /= _VOLUME.get(divisor, 1.0)
    return dimension, factor, 0.0
