"""The page that lies beside the model and says what it is: `model/README.md`. Pure.

It tells of settings and figures, never of a text that the model was trained on.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from asclepius_ray.artifacts import Manifest
from asclepius_ray.config import shown_name
from asclepius_ray.training.config import TINY, TrainingConfig

CURVE_POINTS = 8
"""Rows of a phase's table of losses."""

_FRONT = """\
---
language: [en]
license: {licence}
library_name: transformers
pipeline_tag: text-generation
tags: [medical, clinical]
{base_model}---
"""
_USE = """\
## Use
It reads one note and one question, put together by `instruction_prompt.txt` (sha256 `{prompt}`), as the only
user turn of its chat template, and writes the answer. `asclepius run serve` does so by itself. The logits in
`reference_logits.tensors` tell whether what is served is what was trained.
"""
_TEACHERS = {
    True: "No language model wrote the training texts: the rules of the offline teacher (`{model}`) did, "
    "which shows that the parts work and teaches nothing clinical.",
    False: "The teacher `{model}` wrote the questions and answers, and the notes where they are synthetic.",
}
_SOURCES = {
    "case_reports": "Synthetic discharge summaries, made from published case reports, each with a question "
    "and an answer.",
    "notes": "Clinical notes as they stand in their source, with synthetic questions and answers. The "
    "weights may hold parts of those notes: what holds for the notes holds for the model.",
}
_ELSEWHERE = "The rows are those of the data set `{name}`, which was not made in this run."
_UNKNOWN = (
    "Source: the data set `{name}`, which was made elsewhere. Whose texts it holds is unknown here, its "
    "teacher unknown, its licence unknown: its own card has to tell."
)
_LICENCE = """\
## Licence and limits
Licence of the source of the training texts: {name}. {terms} The base model and the teacher's provider have
terms of their own, which hold as well.

For research only: no medical device, and not for decisions about a patient. It answers one question about one
note, knows nothing that is not in the note, was trained on the style of discharge summaries alone, and
invents at times. Nobody has tested it on patients' records in use.
"""
_LICENCE_ELSEWHERE = {
    "id": "other",
    "name": "that of the training rows",
    "terms": "What it asks of those who use the rows it asks of those who use the model.",
}


@dataclass(frozen=True)
class CardFacts:
    """What a card is made from."""

    training: TrainingConfig
    sequence_length: int
    num_parameters: int
    prompt_sha256: str
    dataset: Manifest
    packages: Mapping[str, str]


def render_card(
    facts: CardFacts, phases: Sequence[Mapping[str, Any]], lines: Iterable[Mapping[str, Any]]
) -> str:
    """The card as Markdown; `phases` and `lines` as the training's manifest and metrics hold them."""
    steps = [line for line in lines if "loss" in line]
    licence = facts.dataset.details.get("source", {}).get("licence", _LICENCE_ELSEWHERE)
    return "\n".join(
        [
            _FRONT.format(licence=licence["id"], base_model=_base_model_line(facts.training)),
            "# A clinical language model\n",
            f"{_origin(facts)}\n",
            _USE.format(prompt=facts.prompt_sha256),
            "## Data",
            _data(facts),
            "## Training",
            _table(("setting", "value"), _settings(facts)),
            "## Losses",
            "Nats per target token; the validation rows were held out.\n",
            _table(("phase", "validation before", "validation after", "steps"), _phase_rows(phases)),
            _table(("phase", "step", "training loss"), _curve_rows(steps)),
            "## Versions",
            _table(("package", "version"), sorted(facts.packages.items())),
            _LICENCE.format(name=licence["name"], terms=licence["terms"]),
        ]
    )


def _base_model_line(training: TrainingConfig) -> str:
    name = training.base_model
    return "" if name == TINY or training.base_model_is_place else f"base_model: {name}\n"


def _origin(facts: CardFacts) -> str:
    size = f"{facts.num_parameters:,} parameters"
    if facts.training.base_model == TINY:
        return f"Made from scratch to try the system out: {size}, and no use beyond that."
    how = (
        "all weights trained" if facts.training.lora is None else "adapters trained, merged into the weights"
    )
    return f"Base model: `{facts.training.shown_base_model}` ({size}; {how})."


def _data(facts: CardFacts) -> str:
    dataset, name = facts.dataset, shown_name(facts.training.dataset)
    source = dataset.details.get("source")
    teacher = dataset.details.get("teacher")
    if source is None:
        told = [_UNKNOWN.format(name=name)]
    else:
        kind = source["kind"]
        told = [f"Source: `{source['name']}` ({kind.replace('_', ' ')}).", _SOURCES[kind]]
        told += [_ELSEWHERE.format(name=name)] if name else []
    if teacher is not None:
        told.append(_TEACHERS[teacher["is_offline"]].format(model=teacher["model"]))
    rows = [("identity of its manifest", f"`{dataset.identity}`"), *dataset.details.get("rows", {}).items()]
    return "\n\n".join([*told, _table(("data set", "value"), rows)])


def _settings(facts: CardFacts) -> list[tuple[object, ...]]:
    training = facts.training
    rows: list[tuple[object, ...]] = [
        ("sequence length", f"{facts.sequence_length} tokens, documents packed and kept apart"),
        ("global batch", f"{training.global_batch} rows"),
        ("precision", training.precision),
        ("optimizer", f"AdamW, weight decay {training.weight_decay:g}"),
        ("largest gradient norm", f"{training.max_gradient_norm:g}"),
        ("ZeRO stage", training.zero_stage),
    ]
    if training.lora is not None:
        lora = training.lora
        layers = ", ".join(lora.target_modules) or "all linear layers but the head"
        rows.append(
            ("adapters", f"rank {lora.rank}, alpha {lora.alpha:g}, dropout {lora.dropout:g}: {layers}")
        )
    for phase in training.phases:
        schedule = f"{phase.learning_rate:g}, cosine, warm-up {phase.warmup_ratio:g}"
        rows.append((f"phase {phase.kind}", f"{phase.epochs} epoch(s), learning rate {schedule}"))
    return rows


def _phase_rows(phases: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    return [
        (
            phase["phase"],
            _figure(phase.get("validation_loss_before")),
            _figure(phase.get("validation_loss_after")),
            phase.get("steps", 0),
        )
        for phase in phases
    ]


def _curve_rows(steps: Sequence[Mapping[str, Any]]) -> list[tuple[object, ...]]:
    """A few steps of each phase, the first and the last always."""
    rows: list[tuple[object, ...]] = []
    for kind in dict.fromkeys(line["phase"] for line in steps):
        of_phase = [line for line in steps if line["phase"] == kind]
        last = len(of_phase) - 1
        chosen = sorted({round(last * point / (CURVE_POINTS - 1)) for point in range(CURVE_POINTS)})
        rows += [(kind, of_phase[index]["step"], _figure(of_phase[index]["loss"])) for index in chosen]
    return rows


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [columns, ("---",) * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"
