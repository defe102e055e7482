"""The figures of an evaluation → a table for a paper in LaTeX, which needs booktabs and nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from asclepius_ray.report.evaluation_views import TaskScores, task_scores

Values = Mapping[str, Any]
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "`": r"\textasciigrave{}",
    '"': "''",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}
_NO_MEAN = "--"


def escape_latex(text: str) -> str:
    """The text as LaTeX prints it and never as it runs it; a letter beyond Latin is shown by its number."""
    return "".join(_escape(letter) for letter in " ".join(text.split()))


def write_latex(scores: Values) -> str:
    """One table a judge: a model a row, a task a column, over all last; the interval below the mean."""
    head = (
        f"% Mean grades (1 to 4) of the run {escape_latex(str(scores['run']))}, 95 % intervals below them.\n"
    )
    head += "% \\usepackage{booktabs}\n"
    return head + "".join(_table(scores, judge) for judge in scores["judges"])


def _table(scores: Values, judge: str) -> str:
    rows = task_scores(scores, judge)
    facts = scores["judges"][judge]
    kind = "rules, no language model" if facts["is_offline"] else "a language model"
    caption = (
        f"Mean grade (1 to 4) and 95\\,\\% interval by task, judged by {escape_latex(judge)} ({kind}); "
        f"{scores['test_set']['items']} items on {scores['test_set']['notes']} notes, judged of each model "
        f"{_judged(rows)}."
    )
    header = " & ".join(["Model", *(_heading(row.task) for row in rows)])
    lines = [
        "",
        r"\begin{table}",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        f"\\caption{{{caption}}}",
        f"\\begin{{tabular}}{{@{{}}l{'r' * len(rows)}@{{}}}}",
        r"\toprule",
        f"{header} \\\\",
        r"\midrule",
        *(line for model in scores["models"] for line in _model_lines(model, rows)),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _judged(rows: Sequence[TaskScores]) -> str:
    """How many answers of each model the means over all rest on."""
    over_all = rows[-1].by_model
    return ", ".join(f"{escape_latex(model)} {score['judged']}" for model, score in over_all.items())


def _heading(task: str) -> str:
    """The words of a task on top of each other: eight tasks would be wider than a page otherwise."""
    words = [f"{{{escape_latex(word)}}}" for word in task.split()]
    return "".join(words) if len(words) < 2 else "\\shortstack[r]{" + r"\\".join(words) + "}"


def _model_lines(model: str, rows: Sequence[TaskScores]) -> list[str]:
    scores = [row.by_model.get(model) for row in rows]
    # The braces keep a name that begins with a bracket from being read as an option of the rule above it.
    means = " & ".join([f"{{{escape_latex(model)}}}", *(_mean(score) for score in scores)])
    intervals = " & ".join(["", *(_interval(score) for score in scores)])
    return [f"{means} \\\\", f"{intervals} \\\\"]


def _mean(score: Values | None) -> str:
    return _NO_MEAN if score is None or score["mean"] is None else f"{score['mean']:.2f}"


def _interval(score: Values | None) -> str:
    if score is None or score["low"] is None or score["high"] is None:
        return ""
    return f"{{\\scriptsize {score['low']:.2f}--{score['high']:.2f}}}"


def _escape(letter: str) -> str:
    if letter in _SPECIAL:
        return _SPECIAL[letter]
    if " " <= letter <= "~" or (letter.isalpha() and ord(letter) < 256):
        return letter
    return f"[U+{ord(letter):04X}]"
