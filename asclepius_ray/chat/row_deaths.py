"""Which rows kill the process that works on them: found by running suspects in ever smaller company.

A worker's death makes suspects of all rows that were in progress in it. A row with one death behind it
runs among at most 64 others, with two among 8, from three on alone; only a death alone is held against
it, and three of those end it. So an innocent row that shared killed workers is never given up, and a
preempted node does not make its rows queue up one by one.
"""

import math
from collections.abc import Iterable, Mapping

from asclepius_ray.chat.desk_messages import Verdict

LONE_DEATHS_TO_QUARANTINE = 3
COMPANY_BY_DEATHS = {1: 64, 2: 8}
DEATHS_MARK = "row_deaths"
LONE_DEATHS_MARK = "lone_row_deaths"


def largest_company(deaths: int) -> float:
    """How many rows, itself included, may be in progress in a process beside a row with such a past."""
    return math.inf if deaths == 0 else COMPANY_BY_DEATHS.get(deaths, 1)


class RowDeaths:
    """Counts the deaths behind each row; `marks` are those that an earlier desk has left."""

    def __init__(
        self, deaths: Iterable[Mapping[str, int]] = (), lone_deaths: Iterable[Mapping[str, int]] = ()
    ) -> None:
        self._deaths: dict[str, int] = {}
        self._lone_deaths: dict[str, int] = {}
        self._in_progress: dict[str, dict[str, bool]] = {}
        for mark in deaths:
            self._deaths.update(mark)
        for mark in lone_deaths:
            self._lone_deaths.update(mark)

    def begin(self, process: str, row_id: str) -> Verdict:
        """What is known of the row; one without a past counts as in progress from now on."""
        deaths = self._deaths.get(row_id, 0)
        if deaths == 0:
            self.admit(process, row_id, is_alone=False)
        return Verdict(row_id, deaths, self._lone_deaths.get(row_id, 0) >= LONE_DEATHS_TO_QUARANTINE)

    def admit(self, process: str, row_id: str, is_alone: bool) -> None:
        """The row is in progress from now on, and no other is in its process if it is alone."""
        self._in_progress.setdefault(process, {})[row_id] = is_alone

    def end(self, process: str, row_id: str) -> None:
        self._in_progress.get(process, {}).pop(row_id, None)

    def forget(self, process: str) -> None:
        """None of its rows is known to be in progress; the process lives."""
        self._in_progress.pop(process, None)

    def die(self, process: str) -> dict[str, dict[str, int]]:
        """The process is dead: what has to be kept of it, as mark → row → count."""
        rows = self._in_progress.pop(process, {})
        marks: dict[str, dict[str, int]] = {DEATHS_MARK: {}, LONE_DEATHS_MARK: {}}
        for row_id, is_alone in rows.items():
            self._deaths[row_id] = marks[DEATHS_MARK][row_id] = self._deaths.get(row_id, 0) + 1
            if is_alone:
                lone = self._lone_deaths.get(row_id, 0) + 1
                self._lone_deaths[row_id] = marks[LONE_DEATHS_MARK][row_id] = lone
        return {kind: counts for kind, counts in marks.items() if counts}

    def pardon(self) -> dict[str, dict[str, int]]:
        """Forgets all deaths: what has to be kept of that, as mark → row → 0."""
        marks = {
            DEATHS_MARK: dict.fromkeys(self._deaths, 0),
            LONE_DEATHS_MARK: dict.fromkeys(self._lone_deaths, 0),
        }
        self._deaths.clear()
        self._lone_deaths.clear()
        return {kind: counts for kind, counts in marks.items() if counts}
