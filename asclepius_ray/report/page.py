"""Reads every artefact of a run → writes root/report.html: one page that fetches nothing.

What was evaluated has a page of its own in root/evaluation, which is written with it.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.report.artefacts import Artefacts, read_artefacts
from asclepius_ray.report.evaluation_page import write_evaluation_page
from asclepius_ray.report.rendering import render
from asclepius_ray.report.training_views import describe_phases, describe_progressions
from asclepius_ray.report.views import (
    describe_lengths,
    funnel_bars,
    loss_sentence,
    mean_grades,
    offline_judges,
    task_bars,
)

REPORT_NAME = "report.html"
STAGES = {
    "dataset": "synthesize",
    "training": "train",
    "model": "train",
    "evaluation": "evaluate",
}


def write_report(root: Folder) -> str:
    """Writes the page over the stages that are finished, and the evaluation's; returns where the first is."""
    artefacts = read_artefacts(root)
    if artefacts.scores:
        write_evaluation_page(root)
    root.write_bytes(REPORT_NAME, render_page(artefacts, root.shown, datetime.now(UTC)).encode())
    return root.child(REPORT_NAME).shown


def render_page(artefacts: Artefacts, root: str, now: datetime) -> str:
    """The page as text."""
    dataset = artefacts.manifests.get("dataset")
    details = dataset.details if dataset else {}
    scores = artefacts.scores
    of_notes = dataset is not None and dataset.made_from.get("input", {}).get("kind") == "notes"
    source = "notes" if of_notes else "case reports"
    values = {
        "root": root,
        "run": artefacts.run,
        "written_at": now.strftime("%Y-%m-%d %H:%M UTC"),
        "program_version": version("asclepius-ray"),
        "packages": _packages(artefacts),
        "missing": [job for job in dict.fromkeys(STAGES.values()) if not _is_done(job, artefacts)],
        "rules": _rule_based(details, scores),
        "dataset": dataset,
        "details": details,
        # All that the journal has paid for: also what this dataset does not hold.
        "spent": details.get("spent", {}),
        "funnel": funnel_bars(dataset.counts, source) if dataset else [],
        "tasks": task_bars(details.get("tasks", {})),
        "lengths": describe_lengths(artefacts.lengths_words),
        "phases": describe_phases(artefacts.metrics),
        "progressions": describe_progressions(artefacts.metrics),
        **_evaluation(scores),
        "of_notes": of_notes,
        "source": source,
        # A real note stays where it is: the page is made to be passed on.
        "examples": artefacts.examples if dataset and not of_notes else [],
        "manifests": artefacts.manifests,
    }
    return render("page.html.jinja", values)


def _evaluation(scores: Mapping[str, Any]) -> dict[str, Any]:
    loss = scores.get("answer_loss")
    return {
        "scores": scores,
        "means": mean_grades(scores),
        "offline_judges": offline_judges(scores),
        "loss_sentence": loss_sentence(loss["difference"]) if loss else "",
    }


def _is_done(job: str, artefacts: Artefacts) -> bool:
    return all(name in artefacts.manifests for name, maker in STAGES.items() if maker == job)


def _packages(artefacts: Artefacts) -> dict[str, str]:
    found: dict[str, str] = {}
    for manifest in artefacts.manifests.values():
        found |= manifest.packages
    return found


def _rule_based(details: Mapping[str, Any], scores: Mapping[str, Any]) -> list[str]:
    """Which of teacher and judges were the offline rules; judges of which one was not are not."""
    teacher = ["teacher"] if details.get("teacher", {}).get("is_offline") else []
    judges = scores.get("judges", {})
    return teacher + (["judge"] if judges and len(offline_judges(scores)) == len(judges) else [])
