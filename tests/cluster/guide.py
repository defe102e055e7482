"""cluster/README.md as its test reads it: the commands, the settings and the names that stand in it."""

import re
import shlex
from dataclasses import dataclass

from committed import CLUSTER

TEXT = (CLUSTER / "README.md").read_text(encoding="utf-8")
LANGUAGES = ("sh", "toml")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NESTED = re.compile(r"\$\((.*)\)")


@dataclass(frozen=True)
class Command:
    """One command, as a shell would start it."""

    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return self.words[0]

    def __str__(self) -> str:
        return shlex.join(self.words)

    def value(self, option: str) -> str:
        """What stands behind an option, "" where it is not given."""
        for place, word in enumerate(self.words):
            if word == option:
                return self.words[place + 1]
            if word.startswith(f"{option}="):
                return word.partition("=")[2]
        return ""

    def values(self, option: str) -> list[str]:
        return [self.words[place + 1] for place, word in enumerate(self.words) if word == option]


def blocks(language: str) -> list[str]:
    return [text for found, text in _FENCE.findall(TEXT) if found == language]


def languages() -> set[str]:
    return {found for found, _ in _FENCE.findall(TEXT)}


def commands_of(line: str) -> list[Command]:
    """The commands of a line: those of a pipe, and before them what is put into it by $(...)."""
    found = []
    if nested := _NESTED.search(line):
        found = commands_of(nested[1])
        line = line[: nested.start()] + "SUBSTITUTED" + line[nested.end() :]
    return found + [Command(tuple(shlex.split(part))) for part in line.split(" | ")]


def commands() -> list[Command]:
    """Every command of the guide, in its order."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line.strip()]
    return [command for line in lines for command in commands_of(line)]


def prose() -> str:
    """The guide without its blocks."""
    return _FENCE.sub("", TEXT)
