"""What a rule has found: where, what is wrong, what to do."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Trouble:
    """One mistake at one place of a document, as a rule sees it."""

    path: str
    said: str
    advice: str


@dataclass(frozen=True)
class Finding:
    """A trouble with the file that it is in and the rule that found it."""

    rule: str
    file: str
    path: str
    said: str
    advice: str

    def __str__(self) -> str:
        return f"{self.file}: {self.path}: {self.said}; {self.advice} [{self.rule}]"


def as_findings(rule: str, file: str, troubles: Iterable[Trouble]) -> Iterator[Finding]:
    """Each trouble under the name of its rule and file."""
    for trouble in troubles:
        yield Finding(rule, file, trouble.path or "(the whole document)", trouble.said, trouble.advice)
