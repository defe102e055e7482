"""What the command prints at the end of a job: read from the artefacts, changing nothing."""

import json
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from asclepius_ray.artifacts import Folder
from asclepius_ray.fingerprints import STAGES
from asclepius_ray.pipeline import ASKED_NAME
from asclepius_ray.ray_session import is_submitted_job
from asclepius_ray.run import Run
from asclepius_ray.training.config import TINY

if TYPE_CHECKING:
    from asclepius_ray.evaluation.estimate import RoleEstimate
    from asclepius_ray.synthesis.estimate import Estimate

_ON_A_FRESH_ROOT = "on a fresh root; whatever else was bought on this one counts too"
_IS_ENOUGH, _MAY_BE_ENOUGH = f"is enough {_ON_A_FRESH_ROOT}", f"may be enough {_ON_A_FRESH_ROOT}"


def print_summary(console: Console, run: Run, job: str, run_file: str) -> None:
    """Prints where the report is and, after the whole pipeline, the scores, one answer and how to go on."""
    root = run.folder
    console.print()
    _print_rows(console, root)
    if job == "pipeline":
        print_scores(console, root)
        _print_asked(console, run, root)
    console.print(f"report  {root.child('report.html').uri}", highlight=False, soft_wrap=True)
    if root.child("evaluation").exists("report.html"):
        said = f"        {root.child('evaluation').child('report.html').uri}"
        console.print(said, highlight=False, soft_wrap=True)
    if job == "pipeline" and not is_submitted_job():
        _print_next_steps(console, run, run_file)


def print_estimate(console: Console, run: Run, estimate: "Estimate") -> None:
    """Prints what the synthesis will need, and by which sample that is reckoned."""
    table = Table("step", "rows", "prompt tokens p50", "p90", "completion tokens p50", "p90", box=None)
    for spread in estimate.spreads:
        table.add_row(*(str(value) for value in asdict(spread).values()))
    console.print(table)
    cost = "unknown: set [teacher.price]" if estimate.cost_usd is None else f"{estimate.cost_usd:,.2f} USD"
    hours = (
        "no limit is known: as fast as the teacher answers"
        if estimate.hours is None
        else f"{estimate.hours:,.1f} hours"
    )
    lines = [
        f"sample  {estimate.num_sampled} rows: {estimate.num_ok} ok, {estimate.num_failed} failed; kept in "
        "the journal, not paid again",
        f"rows    {estimate.num_rows:,}",
        f"calls   {estimate.calls:,}",
        f"tokens  {estimate.tokens:,}",
        f"cost    {cost}",
        f"time    {hours}",
    ]
    budget = run.teacher.budget_usd
    if budget and estimate.cost_usd is not None:
        verdict = _MAY_BE_ENOUGH if estimate.cost_usd <= budget else "is not enough: the run would stop at it"
        lines.append(f"budget  {budget:,.2f} USD {verdict}")
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def print_role_estimates(
    console: Console,
    what: str,
    roles: "list[RoleEstimate]",
    budget: tuple[str, float],
    is_most: bool,
) -> None:
    """Prints what a synthesis or an evaluation will need, and whether its budget covers it.

    A line for each that is asked; `budget`: the setting, and its US dollars, 0 = none. `is_most`: no call can
    take more than is told; else it is what they take on average.
    """
    table = Table(what, "calls", "prompt tokens", "completion tokens", "cost", "time", box=None)
    for role in roles:
        table.add_row(
            role.role,
            f"{role.calls:,}",
            f"{role.prompt_tokens:,}",
            f"{role.completion_tokens:,}",
            "unknown" if role.cost_usd is None else f"{role.cost_usd:,.2f} USD",
            "as fast as it answers" if role.hours is None else f"{role.hours:,.1f} hours",
        )
    console.print(table)
    known = [role.cost_usd for role in roles if role.cost_usd is not None]
    if known:
        unknown = len(roles) - len(known)
        rest = f", and {unknown} without a price" if unknown else ""
        bound = "at most" if is_most else "about"
        line = f"{what} {bound} {sum(known):,.2f} USD{rest}; what its journals have is not paid again"
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    setting, budget_usd = budget
    if budget_usd:
        enough = _IS_ENOUGH if is_most else _MAY_BE_ENOUGH
        verdict = enough if sum(known) <= budget_usd else "may not be enough: the run would stop at it"
        line = f"budget  {setting} = {budget_usd:,.2f} USD {verdict}"
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _print_rows(console: Console, root: Folder) -> None:
    finished = STAGES[0].finished(root)
    if finished is None:
        return
    counts = finished.counts
    lost = {**counts["rejected"], **counts["failed"]}
    reasons = f" ({', '.join(f'{reason} {number}' for reason, number in lost.items())})" if lost else ""
    console.print(
        f"dataset {counts['ok']} rows of {counts['input']} reports; "
        f"{sum(counts['rejected'].values())} rejected, {sum(counts['failed'].values())} failed{reasons}",
        highlight=False,
        soft_wrap=True,
    )
    if finished.details["teacher"]["is_offline"]:
        console.print("teacher offline rules and no language model: for trying the system, not for use")


def print_scores(console: Console, root: Folder) -> None:
    """Prints each judge's mean of each model with its interval, and the loss where it was measured."""
    scores = json.loads(root.child("evaluation").read_bytes("scores.json"))
    for name, judge in scores["judges"].items():
        table = Table("model", "mean grade (1-4)", "95 % interval", "judged", "unjudged", "failed", box=None)
        for model, values in scores["models"].items():
            if name in (values["grades"] or {}):
                table.add_row(escape(model), *_score_cells(values["grades"][name]["over_all"]))
        said = f"scores  by {name}, {judge['model']} ({judge['kind']})"
        console.print(said, highlight=False, soft_wrap=True, markup=False)
        console.print(table)
    if scores["answer_loss"]:
        _print_loss(console, scores["answer_loss"])


def _score_cells(score: dict[str, Any]) -> list[str]:
    mean = "-" if score["mean"] is None else f"{score['mean']:.2f}"
    interval = "-" if score["low"] is None else f"{score['low']:.2f} to {score['high']:.2f}"
    return [mean, interval, str(score["judged"]), str(score["unjudged"]), str(score["failed"])]


def _print_loss(console: Console, loss: dict[str, Any]) -> None:
    difference = loss["difference"]
    if not difference or difference["mean"] is None:
        return
    interval = ""
    if difference["low"] is not None:
        interval = f"95 % interval {difference['low']:+.3f} to {difference['high']:+.3f}, "
    console.print(
        f"loss    of the reference answers, trained - untrained: {difference['mean']:+.3f} "
        f"({interval}{difference['n']} rows)",
        highlight=False,
        soft_wrap=True,
    )


def _print_asked(console: Console, run: Run, root: Folder) -> None:
    """Shows the text only of published case reports and only here: a job's log is no place for a note."""
    if not root.child("evaluation").exists(ASKED_NAME):
        # Purged, or nobody could be asked.
        return
    asked = json.loads(root.child("evaluation").read_bytes(ASKED_NAME))
    if run.input.kind == "notes" or is_submitted_job():
        console.print(f"asked   kept in {root.child('evaluation').uri}/{ASKED_NAME}", soft_wrap=True)
        return
    if run.training.base_model == TINY:
        console.print("the tiny model learnt for a minute from a few notes: expect babble", soft_wrap=True)
    for label, text in (("asked   ", asked["question"]), ("answer  ", asked["answer"])):
        shown = " ".join(text.split()) or "(the model gave an empty answer)"
        console.print(label + shown, markup=False, highlight=False, soft_wrap=True)


def _print_next_steps(console: Console, run: Run, run_file: str) -> None:
    key, run_file = run.serving.api_key_env, shlex.quote(run_file)
    root = " --set root=runs/mine"
    steps = (
        (
            "serve it",
            f"export {key}=$(python3 -c 'import secrets; print(secrets.token_urlsafe(32))'); "
            f"asclepius run serve {run_file} --set serving.port=8000",
        ),
        ("own reports", f"asclepius run pipeline {run_file}{root} --set input.path=PMC-Patients.csv"),
        (
            "own teacher",
            f"asclepius run pipeline {run_file}{root} --set teacher.base_url=https://HOST/v1 "
            "--set teacher.model=NAME, with its key in OPENAI_API_KEY",
        ),
        (
            "a cluster",
            f"asclepius submit pipeline {run_file} --address http://HEAD:8265 --set root=s3://BUCKET/run "
            "--set input.path=s3://BUCKET/PMC-Patients.csv",
        ),
    )
    console.print("\nhow to go on")
    for label, command in steps:
        console.print(f"  {label:<12}{command}", markup=False, highlight=False, soft_wrap=True)
