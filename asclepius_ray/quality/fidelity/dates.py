"""Calendar dates, and days counted from an event ("day 5", "the third postoperative day")."""

import re
from dataclasses import dataclass

_MONTHS = {
    name: number
    for number, names in enumerate(
        "january jan|february feb|march mar|april apr|may|june jun|july jul|august aug|september sep sept"
        "|october oct|november nov|december dec".split("|"),
        start=1,
    )
    for name in names.split()
}
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_YEAR = r"(?:19|20)\d\d"
_ORDINALS = {
    word: number
    for number, word in enumerate(
        "first second third fourth fifth sixth seventh eighth ninth tenth".split(), 1
    )
}
_CALENDAR = (
    re.compile(rf"\b(?P<y>{_YEAR})[-/.](?P<m>\d\d?)[-/.](?P<d>\d\d?)\b"),
    re.compile(rf"\b(?P<d>\d\d?)[-/.](?P<m>\d\d?)[-/.](?P<y>{_YEAR})\b"),
    re.compile(rf"\b(?P<name>{_MONTH})\.?\s+(?P<d>\d\d?)(?:st|nd|rd|th)?\b(?:,?\s+(?P<y>{_YEAR})\b)?"),
    re.compile(
        rf"\b(?P<d>\d\d?)(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<name>{_MONTH})\b(?:\.?,?\s+(?P<y>{_YEAR})\b)?"
    ),
    re.compile(rf"\b(?P<name>{_MONTH})\.?,?\s+(?:of\s+)?(?P<y>{_YEAR})\b"),
    re.compile(rf"(?<![\w./-])(?P<y>{_YEAR})(?![\w/-]|\.\d|\s*(?:mg|ml|g|iu|m|%|cm|mm|u)\b)"),
)
_DAY = re.compile(
    r"\b(?:day|pod|week|month)s?\s*#?\s*(?P<after>\d{1,3})\b(?!\s*(?:mg|ml|g|%|times)\b)"
    r"|\b(?:(?P<before>\d{1,3})(?:st|nd|rd|th)|(?P<word>" + "|".join(_ORDINALS) + r"))\s+"
    r"(?:\w+\s+){0,2}?(?:day|week|month)\b"
)
_COUNTED = re.compile(r"\b(\d{1,3})[\s-]+(?:\w+\s+)?(?:days?|weeks?|months?|wks?)\b")


@dataclass(frozen=True)
class Date:
    """A calendar date; 0 = not given."""

    year: int
    month: int
    day: int

    def agrees_with(self, other: "Date") -> bool:
        """Whether `other` gives all that this gives, day and month in either order."""
        if self.year and self.year != other.year:
            return False
        mine, theirs = (self.month, self.day), (other.month, other.day)
        in_order = all(not own or own == its for own, its in zip(mine, theirs, strict=True))
        return in_order or (all(mine) and mine == theirs[::-1])


def find_dates(normalized: str) -> list[Date]:
    """The calendar dates in the text; each part of it is read once, as the fullest date that it holds."""
    found, text = [], normalized
    for pattern in _CALENDAR:
        for match in pattern.finditer(text):
            groups = match.groupdict()
            month = _MONTHS.get(groups.get("name") or "") or int(groups.get("m") or 0)
            found.append(Date(int(groups.get("y") or 0), month, int(groups.get("d") or 0)))
        text = pattern.sub(lambda match: " " * len(match.group()), text)
    return found


def find_counted_days(normalized: str) -> set[int]:
    """The numbers in "day 5", "5th day", "POD 5", "fifth postoperative day"."""
    days = set()
    for match in _DAY.finditer(normalized):
        number = match["after"] or match["before"]
        days.add(int(number) if number else _ORDINALS[match["word"]])
    return days


def find_durations(normalized: str) -> set[int]:
    """The numbers in "5 days": what a note may call the fifth day."""
    return {int(number) for number in _COUNTED.findall(normalized)}
