"""What a check has found: one line each."""

from dataclasses import dataclass
from enum import StrEnum

from rich.text import Text


class Level(StrEnum):
    """How much a finding matters; a problem is what would stop the run, or make it worthless."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was seen, what to do about it."""

    level: Level
    subject: str
    said: str
    advice: str = ""

    def __str__(self) -> str:
        advice = f"; {self.advice}" if self.advice else ""
        return f"{self.level:<8} {self.subject:<10} {self.said}{advice}"

    def styled(self) -> Text:
        """The line with its level in colour, where there are colours."""
        text = Text(str(self))
        text.stylize(_STYLES[self.level], 0, len(self.level))
        return text


def ok(subject: str, said: str) -> Finding:
    return Finding(Level.OK, subject, said)


def warning(subject: str, said: str, advice: str = "") -> Finding:
    return Finding(Level.WARNING, subject, said, advice)


def problem(subject: str, said: str, advice: str = "") -> Finding:
    return Finding(Level.PROBLEM, subject, said, advice)
