"""The figures of a stage as Prometheus gauges, through the port that every Ray node exports.

Set from a loop with a clock, never once a call: Ray sends the newest value every ten seconds, and forgets it
twenty seconds after the process that has set it is gone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from ray.util.metrics import Gauge

RUN_LABEL = "run"


@dataclass(frozen=True)
class Figure:
    """One family of numbers: what it is, with its unit in its name, and what tells its members apart.

    A label's values come from a bounded set: states, reason codes, names of the run file's sections.
    """

    name: str
    text: str
    label: str = ""


class Gauges:
    """Gauges named `ray_asclepius_STAGE_…`, each with the label `run`."""

    def __init__(self, stage: str, run: str, figures: tuple[Figure, ...]) -> None:
        self._run = run
        self._figures = {figure.name: figure for figure in figures}
        self._gauges = {
            figure.name: Gauge(
                f"asclepius_{stage}_{figure.name}",
                figure.text,
                tag_keys=(RUN_LABEL, figure.label) if figure.label else (RUN_LABEL,),
            )
            for figure in figures
        }
        self._told: set[str] = set()

    def set(self, name: str, value: float | None) -> None:
        """Sets the figure; None, for one that is not known, tells NaN where it was known before.

        Ray cannot take a gauge back.
        """
        if value is not None:
            self._told.add(name)
        elif name not in self._told:
            return
        self._gauges[name].set(math.nan if value is None else value, {RUN_LABEL: self._run})

    def set_members(self, name: str, values: Mapping[str, float | None]) -> None:
        """Sets the members of a figure by the values of its label; those that are not known are left out."""
        label = self._figures[name].label
        for member, value in values.items():
            if value is not None:
                self._gauges[name].set(value, {RUN_LABEL: self._run, label: member})
