"""Reads every artefact of a run → writes root/report.html: one page that fetches nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from asclepius_ray.artifacts import Folder
from asclepius_ray.report.artefacts import Artefacts, read_artefacts
from asclepius_ray.report.training_views import describe_phases, describe_progressions
from asclepius_ray.report.views import (
    describe_lengths,
    funnel_bars,
    grade_bars,
    loss_sentence,
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
    """Writes the page over the stages that are finished and returns where it is."""
    page = render_page(read_artefacts(root), root.uri, datetime.now(UTC))
    root.write_bytes(REPORT_NAME, page.encode())
    return root.child(REPORT_NAME).uri


def render_page(artefacts: Artefacts, root_uri: str, now: datetime) -> str:
    """The page as text; every value is escaped, as notes and answers may hold anything."""
    template = files(__package__).joinpath("page.html.jinja").read_text(encoding="utf-8")
    dataset = artefacts.manifests.get("dataset")
    details = dataset.details if dataset else {}
    scores = artefacts.scores
    of_notes = dataset is not None and dataset.made_from.get("input", {}).get("kind") == "notes"
    source = "notes" if of_notes else "case reports"
    return (
        _environment()
        .from_string(template)
        .render(
            root=root_uri,
            run=artefacts.run,
            written_at=now.strftime("%Y-%m-%d %H:%M UTC"),
            program_version=version("asclepius-ray"),
            packages=_packages(artefacts),
            missing=[job for job in dict.fromkeys(STAGES.values()) if not _is_done(job, artefacts)],
            rules=_rule_based(details, scores),
            dataset=dataset,
            details=details,
            # All that the journal has paid for: also what this dataset does not hold.
            spent=details.get("spent", {}),
            funnel=funnel_bars(dataset.counts, source) if dataset else [],
            tasks=task_bars(details.get("tasks", {})),
            lengths=describe_lengths(artefacts.lengths_words),
            phases=describe_phases(artefacts.metrics),
            progressions=describe_progressions(artefacts.metrics),
            scores=scores,
            score_tasks=_score_tasks(scores),
            grades={name: _grades(model) for name, model in scores.get("models", {}).items()},
            loss_sentence=loss_sentence(scores["answer_loss"]["difference"]) if scores else "",
            of_notes=of_notes,
            source=source,
            # A real note stays where it is: the page is made to be passed on.
            examples=artefacts.examples if dataset and not of_notes else [],
            manifests=artefacts.manifests,
        )
    )


def _is_done(job: str, artefacts: Artefacts) -> bool:
    return all(name in artefacts.manifests for name, maker in STAGES.items() if maker == job)


def _packages(artefacts: Artefacts) -> dict[str, str]:
    found: dict[str, str] = {}
    for manifest in artefacts.manifests.values():
        found |= manifest.packages
    return found


def _rule_based(details: Mapping[str, Any], scores: Mapping[str, Any]) -> list[str]:
    """Which of teacher and judge were the offline rules."""
    parts = (("teacher", details.get("teacher", {})), ("judge", scores.get("judge", {})))
    return [name for name, endpoint in parts if endpoint.get("is_offline")]


def _score_tasks(scores: Mapping[str, Any]) -> list[str]:
    models = scores.get("models", {}).values()
    return sorted({task for model in models for task in model["tasks"]})


def _grades(model: Mapping[str, Any]) -> list[dict[str, Any]]:
    over_all = model["over_all"]
    return [asdict(bar) for bar in grade_bars(over_all["grade_shares"], over_all["judged"])]
