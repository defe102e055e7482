"""The options of the benchmarks, and the one table that all of them fill and that is printed at the end."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

COLUMNS = ("measure", "who", "calls", "seconds", "figures", "target", "made by")
DEFAULT_ROWS = 160_000


@dataclass
class Figures:
    """The lines of the table; also as Markdown in a file, from the first line on."""

    path: Path
    lines: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: str) -> None:
        self.lines.append(cells)
        rows = [COLUMNS, tuple("---" for _ in COLUMNS), *self.lines]
        text = "".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |\n" for row in rows)
        self.path.write_text(text, encoding="utf-8")


KEY = pytest.StashKey[Figures]()
Note = Callable[..., None]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks")
    group.addoption("--quick", action="store_true", help="fewer calls; targets are shown, not asserted")
    group.addoption("--rows", type=int, default=DEFAULT_ROWS, help="rows of the long synthesis")


@pytest.fixture(scope="session")
def is_quick(pytestconfig: pytest.Config) -> bool:
    return bool(pytestconfig.getoption("--quick", default=False))


@pytest.fixture(scope="session")
def num_long_rows(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("--rows", default=DEFAULT_ROWS))


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Figures:
    stash = pytestconfig.stash
    return stash.setdefault(KEY, Figures(tmp_path_factory.getbasetemp() / "benchmarks.md"))


@pytest.fixture
def note(figures: Figures, request: pytest.FixtureRequest) -> Note:
    """Adds a line to the table, with the command that makes it."""

    def add(measure: str, who: str, calls: int, seconds: float, told: str, target: str = "") -> None:
        command = f"pytest '{request.node.nodeid}'"
        figures.add(measure, who, f"{calls:,}", f"{seconds:.1f}", told, target, command)

    return add


def pytest_terminal_summary(config: pytest.Config) -> None:
    figures = config.stash.get(KEY, None)
    if figures is None or not figures.lines:
        return
    table = Table(*COLUMNS, show_lines=True)
    for line in figures.lines:
        table.add_row(*line)
    console = Console(width=200)
    console.print(table)
    console.print(f"as Markdown: {figures.path}")
