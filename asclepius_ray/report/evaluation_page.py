"""Reads root/evaluation → writes its report.html (fetches nothing), scores.tex and scores.csv beside it."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from asclepius_ray.artifacts import Folder
from asclepius_ray.report.evaluation_artefacts import (
    GradedExample,
    Places,
    draw_examples,
    has_real_notes,
    is_purged,
    read_agreement,
    read_places,
    read_scores,
)
from asclepius_ray.report.evaluation_headline import is_shown, write_headline
from asclepius_ray.report.evaluation_views import describe_judges, name_agreements, unfaithful_kinds
from asclepius_ray.report.evaluation_warnings import find_cautions
from asclepius_ray.report.latex import write_latex
from asclepius_ray.report.paper_figures import PERPLEXITY_SOURCE, PUBLISHED_PERPLEXITIES
from asclepius_ray.report.rendering import render
from asclepius_ray.report.score_csv import write_csv
from asclepius_ray.report.views import GRADE_NAMES, loss_sentence

PAGE_NAME, LATEX_NAME, CSV_NAME = "report.html", "scores.tex", "scores.csv"
_PROTOCOLS = {
    "together": "the answers of all models to one question in one prompt, under letters, in an order drawn "
    "by the seed",
    "single": "one answer at a time, without seeing the others",
}


def write_evaluation_page(root: Folder) -> list[str]:
    """Writes the page and both tables of root/evaluation and returns where they are.

    Raises an ArtifactError where nothing has been evaluated, or by a version that wrote another form.
    """
    evaluation = root.child("evaluation")
    scores = read_scores(evaluation)
    places, examples = read_places(evaluation), draw_examples(evaluation, scores)
    agreement = read_agreement(evaluation)
    texts = {
        PAGE_NAME: render_evaluation_page(scores, places, examples, agreement, is_purged(evaluation)),
        LATEX_NAME: write_latex(scores),
        CSV_NAME: write_csv(scores, agreement),
    }
    for name, text in texts.items():
        evaluation.write_bytes(name, text.encode())
    return [evaluation.child(name).shown for name in texts]


def render_evaluation_page(
    scores: Mapping[str, Any],
    places: Places,
    examples: Sequence[GradedExample],
    agreement: Mapping[str, Any] | None,
    purged: bool,
) -> str:
    """The page as text: a function of what was measured alone, so that it can be written anew."""
    cautions = find_cautions(scores, places)
    loss = scores["answer_loss"]
    values = {
        "scores": scores,
        "headline": write_headline(scores, cautions),
        "cautions": cautions,
        "evaluated_at": _format_time(scores["written_unix"]),
        "program_version": version("asclepius-ray"),
        "protocol": _PROTOCOLS.get(scores["protocol"]["kind"], scores["protocol"]["kind"]),
        "judges": describe_judges(scores, places),
        "grade_names": dict(sorted(GRADE_NAMES.items(), reverse=True)),
        "unfaithful_kinds": unfaithful_kinds(scores),
        "references": {
            name: model["reference"] for name, model in scores["models"].items() if model["reference"]
        },
        "unanswerable": {
            name: model["unanswerable"] for name, model in scores["models"].items() if model["unanswerable"]
        },
        "is_shown": is_shown,
        "loss_sentence": loss_sentence(loss["difference"]) if loss else "",
        "published": PUBLISHED_PERPLEXITIES,
        "published_source": PERPLEXITY_SOURCE,
        "examples": examples,
        "agreement": agreement,
        "agreements": list(name_agreements(agreement)) if agreement else [],
        "purged": purged,
        "real_notes": has_real_notes(scores),
    }
    return render("evaluation.html.jinja", values)


def _format_time(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M UTC")
