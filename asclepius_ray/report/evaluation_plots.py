"""The evaluation's plots: points with intervals, and bars of grades; each model has its colour and mark."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes

from asclepius_ray.report.plots import GRADE_FILLS, GRADE_LETTERS, INK, SERIES, STYLE, new_figure, to_markup

_MARKS = ("o", "s", "^", "D", "v", "P", "X")
"""One more than colours, so that a pair of both comes again only after 42 models."""
_NARROW_INCHES, _WIDE_INCHES = 3.2, 4.2
_FRAME_INCHES, _ROW_INCHES = 0.62, 0.27
_MOST_LETTERS = 22
_NARROWEST_NAMED_SHARE = 0.05
"""A narrower part of a bar has no room for its number."""


@dataclass(frozen=True)
class Point:
    """One row of a plot: a value with its interval; `series` is the number of its model, 0 and up."""

    label: str
    value: float | None
    low: float | None
    high: float | None
    series: int = 0


def draw_grades(name: str, points: Sequence[Point], description: str) -> Markup:
    """Mean grades over the whole scale, so that all plots of a page can be compared by eye."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(_size(_NARROW_INCHES, len(points)))
        axes.set_xlim(0.9, 4.1)
        axes.set_xticks([1, 2, 3, 4])
        axes.set_xlabel("mean grade, 1 to 4")
        _draw_points(axes, points, 1.0)
        return to_markup(figure, name, description)


def draw_differences(name: str, points: Sequence[Point], description: str) -> Markup:
    """Paired differences beside the line of no difference."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(_size(_WIDE_INCHES, len(points)))
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_xlabel("difference of the mean grades")
        _draw_points(axes, points, 0.0)
        return to_markup(figure, name, description)


def draw_shares(name: str, rows: Mapping[str, Mapping[str, float]], description: str) -> Markup:
    """One bar a model, from the best grade on the left to the worst; the numbers in it are the grades."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(_size(_WIDE_INCHES, len(rows)))
        for place, shares in enumerate(rows.values()):
            left = 0.0
            for grade in sorted(GRADE_FILLS, reverse=True):
                width = 100 * shares.get(grade, 0.0)
                axes.barh(place, width, left=left, height=0.72, color=GRADE_FILLS[grade])
                if width > 100 * _NARROWEST_NAMED_SHARE:
                    style: Any = {"ha": "center", "va": "center", "color": GRADE_LETTERS[grade]}
                    axes.text(left + width / 2, place, grade, **style)
                left += width
        axes.set_xlim(0, 100)
        axes.set_xlabel("share of the grades, %")
        _name_rows(axes, list(rows))
        return to_markup(figure, name, description)


def _draw_points(axes: Axes, points: Sequence[Point], empty_at: float) -> None:
    for place, point in enumerate(points):
        if point.value is None:
            axes.text(empty_at, place, "nothing judged", va="center", fontsize=8)
            continue
        style: Any = {
            "marker": _MARKS[point.series % len(_MARKS)],
            "color": SERIES[point.series % len(SERIES)],
            "markersize": 6,
        }
        if point.low is not None and point.high is not None:
            axes.plot([point.low, point.high], [place, place], color=style["color"], linewidth=2.2)
        axes.plot([point.value], [place], linestyle="none", **style)
    _name_rows(axes, [point.label for point in points])


def _name_rows(axes: Axes, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), [_shorten(label) for label in labels])
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def _shorten(label: str) -> str:
    """Names that fill a plot leave no room for what it shows; the table beside it has them whole."""
    name = " ".join(label.split())
    return name if len(name) <= _MOST_LETTERS else name[: _MOST_LETTERS - 1] + "…"


def _size(width_inches: float, num_rows: int) -> tuple[float, float]:
    return width_inches, _FRAME_INCHES + _ROW_INCHES * num_rows
