"""The figures of a study as lines for the terminal and as a table for LaTeX."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

Figure = Mapping[str, Any]
_LATEX_SPECIALS = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def describe_figures(figures: Mapping[str, Any]) -> list[str]:
    """What the command prints."""
    lines = [
        f"sheet {figures['sheet']}: {figures['answers']} answers to {figures['items']} items of "
        f"{figures['notes']} notes"
    ]
    for rater, count in figures["raters"].items():
        missing = f", {count['missing']} without a grade" if count["missing"] else ""
        lines.append(f"{rater}: {count['graded']} of {count['answers']} answers graded{missing}")
    lines += ["", "mean grade of each model, 95 % interval over notes"]
    lines += [f"  {model}: {_plain(figure)}" for model, figure in figures["models"].items()]
    lines += ["", "agreement, 95 % interval over notes"]
    lines += [f"  {name}: {_plain(figure)}" for name, figure in _agreements(figures)]
    if not figures["with_judges"]:
        lines.append("  no judge has graded these answers")
    if figures["not_computed"]:
        lines += ["", "not computed", *(f"  {sentence}" for sentence in figures["not_computed"])]
    return lines


def render_latex(figures: Mapping[str, Any]) -> str:
    """Two tables: the models' scores, and the agreement."""
    scores = [(model, figure) for model, figure in figures["models"].items()]
    return "\n".join(
        [
            f"% asclepius evaluate agreement, sheet {figures['sheet']}; intervals by resampling notes",
            *_latex_table("Model & Mean grade", scores),
            "",
            *_latex_table("Agreement & Value", list(_agreements(figures))),
            "",
        ]
    )


def _agreements(figures: Mapping[str, Any]) -> Iterator[tuple[str, Figure]]:
    yield "raters, Krippendorff's alpha (ordinal)", figures["among_raters"]["alpha"]
    for pair in figures["among_raters"]["pairs"]:
        yield f"{pair['raters'][0]} and {pair['raters'][1]}, weighted kappa", pair["weighted_kappa"]
    for judge, compared in figures["with_judges"].items():
        whose = {"raters' mean": compared["mean_of_raters"], **compared["raters"]}
        for name, pair in whose.items():
            yield f"{name} with {judge}, Krippendorff's alpha (ordinal)", pair["alpha"]
            yield f"{name} with {judge}, weighted kappa", pair["weighted_kappa"]


def _plain(figure: Figure) -> str:
    if figure["value"] is None:
        return f"none ({figure['why_not']})"
    left_out = figure["resamples_left_out"]
    return f"{figure['value']:.3f} {_interval(figure)}, n = {figure['n']}" + (
        f", {left_out} resamples left out" if left_out else ""
    )


def _interval(figure: Figure) -> str:
    if figure["low"] is None:
        return f"without an interval ({figure['why_not']})"
    return f"[{figure['low']:.3f}, {figure['high']:.3f}]"


def _latex_table(heading: str, rows: list[tuple[str, Figure]]) -> list[str]:
    return [
        r"\begin{tabular}{lrrr}",
        r"\hline",
        rf"{heading} & 95\,\% interval & $n$ \\",
        r"\hline",
        *(rf"{_latex_text(name)} & {_latex_cells(figure)} \\" for name, figure in rows),
        r"\hline",
        r"\end{tabular}",
    ]


def _latex_cells(figure: Figure) -> str:
    value = "--" if figure["value"] is None else f"${figure['value']:.3f}$"
    interval = "--" if figure["low"] is None else f"$[{figure['low']:.3f}, {figure['high']:.3f}]$"
    return f"{value} & {interval} & {figure['n']}"


def _latex_text(text: str) -> str:
    return re.sub(r"[\\~^&%$#_{}]", lambda found: _LATEX_SPECIALS.get(found[0], f"\\{found[0]}"), text)
