"""One shell on a host of its own, into which a test types lines as a user does."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from separate_hosts import HOME, Host

END_SECONDS = 400.0
LOOK_SECONDS = 0.2


def wait_until(condition: Callable[[], object], complaint: object) -> None:
    """Raises an AssertionError with the complaint, as it reads by then."""
    deadline = time.monotonic() + END_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"not within {END_SECONDS:.0f} s: {complaint}"
        time.sleep(LOOK_SECONDS)


@dataclass(frozen=True)
class Typed:
    """A line that was typed; its words and its exit code come to be in files."""

    line: str
    said: Path

    @property
    def text(self) -> str:
        return self.said.read_text(encoding="utf-8", errors="replace") if self.said.exists() else ""

    def code(self) -> int:
        """The exit code, which is waited for."""
        written = self.said.with_suffix(".code")
        wait_until(lambda: written.is_file() and written.read_text().endswith("\n"), self)
        return int(written.read_text())

    def __str__(self) -> str:
        return f"{self.line}: {self.text}"


class Shell:
    """What one line exports, the next one has."""

    def __init__(self, host: Host, typing: int) -> None:
        self._host, self._typing, self._number = host, typing, 0

    def begin(self, line: str, beside: bool = False) -> Typed:
        """Types a line; `beside` the next ones, as in a terminal of its own, else they come after it."""
        self._number += 1
        name = f"said-{self._number}.txt"
        code = (HOME / name).with_suffix(".code")
        whole = f"{{ {line}; }} > {HOME / name} 2>&1; echo $? > {code}"
        os.write(self._typing, (f"{{ {whole}; }} &\n" if beside else f"{whole}\n").encode())
        return Typed(line, self._host.disk / name)

    def run(self, line: str) -> str:
        """What it has said until it ended, which has to be with exit code 0."""
        typed = self.begin(line)
        assert typed.code() == 0, str(typed)
        return typed.text


@contextmanager
def shell_on(host: Host, environment: Mapping[str, str]) -> Iterator[Shell]:
    """Boots the host with a bash as its first process; the host is halted at the end."""
    host.disk.mkdir(parents=True, exist_ok=True)
    os.mkfifo(host.disk / "typed")
    # Opened for both, it waits for nobody, and the shell meets no end of what is typed.
    typing = os.open(host.disk / "typed", os.O_RDWR)
    try:
        host.boot(["bash", HOME / "typed"], environment)
        yield Shell(host, typing)
    finally:
        host.halt()
        os.close(typing)
