"""cluster/README.md as its test reads it: the commands, the settings and the names that stand in it."""

import re
import shlex
from dataclasses import dataclass

from committed import CLUSTER

TEXT = (CLUSTER / "README.md").read_text(encoding="utf-8")
LANGUAGES = ("sh", "toml")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NESTED = re.compile(r"\$\((.*)\)")
WITHOUT_RAY = (
    ("asclepius", "cluster"),
    ("asclepius", "estimate"),
    ("asclepius", "status"),
    ("asclepius", "report"),
    ("asclepius", "keys"),
    ("asclepius", "purge"),
)
"""What needs neither Ray nor a cluster: test_guide.py runs it."""
ON_ONE_MACHINE = (
    ("make", "quickstart"),
    ("asclepius", "doctor"),
    ("asclepius", "run"),
    ("asclepius", "submit", "pipeline", "jobs/runs/quickstart.toml"),
    ("ray", "get-auth-token"),
    ("ray", "start"),
    ("ray", "job"),
    ("ray", "stop"),
    ("export", "RAY_AUTH_MODE=token"),
    ("mkdir",),
    ("set", "-a;"),
    ("openssl",),
)
"""What Ray on one machine is enough for: tests/drills/test_guide_on_one_machine.py runs it."""
ELSEWHERE = (
    ("aws",),
    ("gcloud",),
    ("helm",),
    ("kubectl",),
    ("base64",),
    ("pip",),
    ("ray", "up"),
    ("ray", "dashboard"),
    ("ray", "down"),
    ("export", "RAY_AUTH_TOKEN=SUBSTITUTED"),
    ("asclepius", "submit", "pipeline", "jobs/runs/asclepius-7b.toml"),
    ("asclepius", "submit", "serve", "jobs/runs/asclepius-7b.toml"),
    ("asclepius", "ask"),
)
"""What needs a cloud, a Kubernetes, GPUs or a package host: it is read and held against its program."""


@dataclass(frozen=True)
class Command:
    """One command, as a shell would start it."""

    words: tuple[str, ...]

    @property
    def program(self) -> str:
        return self.words[0]

    def __str__(self) -> str:
        return shlex.join(self.words)

    def begins_as_one_of(self, beginnings: tuple[tuple[str, ...], ...]) -> bool:
        return any(self.words[: len(beginning)] == beginning for beginning in beginnings)

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


def lines() -> list[str]:
    """What the guide says to type, line by line, in its order."""
    return [line for block in blocks("sh") for line in block.splitlines() if line.strip()]


def commands() -> list[Command]:
    """Every command of the guide, in its order."""
    return [command for line in lines() for command in commands_of(line)]


def lines_on_one_machine() -> list[str]:
    return [line for line in lines() if commands_of(line)[-1].begins_as_one_of(ON_ONE_MACHINE)]


def prose() -> str:
    """The guide without its blocks."""
    return _FENCE.sub("", TEXT)
