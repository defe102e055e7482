"""Plots as inline SVG: figures in, one piece of markup out, with the page's own colours and fonts.

matplotlib is given stand-in colours, which become CSS variables, so that one drawing serves the light
and the dark page. The markup holds no address: neither a namespace nor a font is fetched from anywhere.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_INK, _MUTED, _LINE = "#0a0b01", "#0a0b02", "#0a0b03"
SERIES = ("#0a0b11", "#0a0b12")
_CSS_COLORS = {
    _INK: "currentColor",
    _MUTED: "var(--muted)",
    _LINE: "var(--line)",
    SERIES[0]: "var(--series-1)",
    SERIES[1]: "var(--series-2)",
}
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "asclepius-ray",
    "font.size": 9,
    "text.color": _INK,
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
    with matplotlib.rc_context(_STYLE):
        figure, axes = _new_figure(size_inches)
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
        return _to_markup(figure, name, description)


def draw_histogram(name: str, values: Sequence[int], axis_label: str, description: str) -> Markup:
    """How often which length occurs."""
    with matplotlib.rc_context(_STYLE):
        figure, axes = _new_figure(SMALL)
        num_bins = min(24, max(1, max(values) - min(values) + 1))
        axes.hist(values, bins=num_bins, color=SERIES[0], rwidth=0.92)
        axes.grid(visible=False, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel(axis_label)
        axes.set_ylabel("rows")
        return _to_markup(figure, name, description)


def _new_figure(size_inches: tuple[float, float]) -> tuple[Figure, Axes]:
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


def _to_markup(figure: Figure, name: str, description: str) -> Markup:
    buffer = io.StringIO()
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
