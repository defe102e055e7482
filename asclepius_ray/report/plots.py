"""Plots as inline SVG: figures in, one piece of markup out, with the page's own colours and fonts.

matplotlib is given stand-in colours, which become CSS variables, so that one drawing serves the light
and the dark page. The markup holds no address: neither a namespace nor a font is fetched from anywhere.
"""

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

INK, _MUTED, _LINE = "#0a0b01", "#0a0b02", "#0a0b03"
SERIES = ("#0a0b11", "#0a0b12", "#0a0b13", "#0a0b14", "#0a0b15", "#0a0b16")
GRADE_FILLS = {"1": "#0a0b21", "2": "#0a0b22", "3": "#0a0b23", "4": "#0a0b24"}
GRADE_LETTERS = {"1": "#0a0b31", "2": "#0a0b32", "3": "#0a0b33", "4": "#0a0b34"}
"""What is written upon a grade's colour."""
_CSS_COLORS = {
    INK: "currentColor",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    **{color: f"var(--series-{number})" for number, color in enumerate(SERIES, 1)},
    **{color: f"var(--grade-{grade})" for grade, color in GRADE_FILLS.items()},
    **{color: f"var(--on-grade-{grade})" for grade, color in GRADE_LETTERS.items()},
}
STYLE: Any = {
    # A model's name may hold a dollar sign, which is no formula.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "asclepius-ray",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _LINE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _LINE,
    "grid.linewidth": 0.6,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
}
MAX_POINTS = 300
LARGE, SMALL = (4.2, 2.6), (3.2, 2.1)
"""Two and three plots beside each other, in inches; their letters are equally large on the page."""


@dataclass(frozen=True)
class Curve:
    """One line of a plot; `marked` curves are few points, drawn as dots that are joined."""

    label: str
    steps: tuple[float, ...]
    values: tuple[float, ...]
    marked: bool = False


def draw_curves(
    name: str,
    curves: Sequence[Curve],
    axis_labels: tuple[str, str],
    description: str,
    size_inches: tuple[float, float] = LARGE,
) -> Markup:
    """Lines over steps; a long one is thinned to the means of at most MAX_POINTS neighbourhoods."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(size_inches)
        for color, curve in zip(SERIES, curves, strict=False):
            steps, values = zip(*_thin(curve.steps, curve.values), strict=True)
            style: Any = {"marker": "o", "markersize": 5, "linestyle": "--"} if curve.marked else {}
            axes.plot(steps, values, color=color, label=curve.label, **style)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        axes.set_ylim(0, 1.08 * max(max(curve.values) for curve in curves))
        axes.set_xlabel(axis_labels[0])
        axes.set_ylabel(axis_labels[1])
        if len(curves) > 1:
            axes.legend(loc="best")
        return to_markup(figure, name, description)


def draw_histogram(name: str, values: Sequence[int], axis_label: str, description: str) -> Markup:
    """How often which length occurs."""
    with matplotlib.rc_context(STYLE):
        figure, axes = new_figure(SMALL)
        num_bins = min(24, max(1, max(values) - min(values) + 1))
        axes.hist(values, bins=num_bins, color=SERIES[0], rwidth=0.92)
        axes.grid(visible=False, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel(axis_label)
        axes.set_ylabel("rows")
        return to_markup(figure, name, description)


def new_figure(size_inches: tuple[float, float]) -> tuple[Figure, Axes]:
    """An empty drawing that lets the page's own colour through."""
    figure = Figure(figsize=size_inches, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    return figure, axes


def _thin(steps: Sequence[float], values: Sequence[float]) -> Iterator[tuple[float, float]]:
    width = -(-len(values) // MAX_POINTS)
    for start in range(0, len(values), width):
        part = slice(start, start + width)
        yield sum(steps[part]) / len(steps[part]), sum(values[part]) / len(values[part])


def to_markup(figure: Figure, name: str, description: str) -> Markup:
    """The drawing as markup for the page; `name` is its own there, `description` says what it shows."""
    buffer = io.StringIO()
    with warnings.catch_warnings():
        # The browser has its own fonts: a letter that matplotlib's lacks is written all the same.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style[^>]*>.*?</style>", "", svg, flags=re.DOTALL)
    head, body = svg.split(">", 1)
    view_box = re.search(r'viewBox="[^"]*"', head)
    assert view_box is not None, "matplotlib writes a viewBox into every SVG"
    # Ids must be unique in the page, and each figure names its parts alike.
    body = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', body)
    body = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", body)
    body = re.sub(r'xlink:href="#([^"]+)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"font-family: [^;\"]*; ?", "", body)
    for color, css in _CSS_COLORS.items():
        body = body.replace(color, css)
    label = escape(description)
    return Markup(f'<svg class="plot" {view_box[0]} role="img" aria-label="{label}">{body}')
