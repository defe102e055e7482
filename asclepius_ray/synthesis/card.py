"""The page that lies beside the dataset and says what it is: `dataset/README.md`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FRONT = """\
---
language: [en]
license: <licence>
task_categories: [text-generation]
tags: [medical, clinical, synthetic]
configs:
- config_name: default
  data_files:
  - {split: train, path: train-*.parquet}
  - {split: validation, path: validation-*.parquet}
---
"""
_PMC_PATIENTS = re.compile(r"pmc[-_ ]?patients", re.IGNORECASE)
_OFFLINE = (
    "**No language model wrote this.** Every text was put together by the rules of the offline teacher "
    "({model}), which ships with asclepius-ray so that the system can be tried without a model. It shows "
    "that the parts work; it is no material for a clinical language model."
)
_TEACHER = "Every synthetic text was written by the language model `{model}` and was read by nobody."
_COLUMNS = """\
## Columns
- `patient_id`, `patient_uid`: the patient in the source; before its dash `patient_uid` names the article.
- `note`: {note}.
- `question`: an instruction of one of eight kinds about the note.
- `answer`: the teacher's answer, which rests on the note alone.
- `task`: the kind of the instruction.

No article has rows in both splits. Both splits are in the order of the source.
"""
_NOTE_KINDS = {
    "case_reports": "a synthetic discharge summary, made from the case report",
    "notes": "a clinical note as it stands in the source (cleaned of invisible characters)",
}
_LICENCE = """\
## Licence and limits
Made from PMC-Patients, the dataset is under that source's licence, CC BY-NC-SA 4.0: name the source, no
commercial use, pass it on under the same licence. Made from other texts, it is under the licence of those
texts. The teacher's provider may set terms of its own.

For research only. The texts hold errors and things that no source says; use nothing of it, nor of a model
trained on it, for decisions about a patient.
"""


@dataclass(frozen=True)
class CardSource:
    """What the dataset was made from."""

    name: str
    """The last part of the input's path."""
    kind: str
    seed: int


def render_card(source: CardSource, counts: Mapping[str, Any], details: Mapping[str, Any]) -> str:
    """The card as Markdown, from the manifest's counts and details.

    It tells nothing that differs between two runs with the same replies, such as times.
    """
    teacher = details["teacher"]
    splits = [(split, rows, details["articles"][split]) for split, rows in details["rows"].items()]
    prompts = [(name, f"`{digest}`") for name, digest in details["prompts"].items()]
    return "\n".join(
        [
            _FRONT.replace("<licence>", _licence_of(source)),
            "# Clinical notes with instructions and answers\n",
            (_OFFLINE if teacher["is_offline"] else _TEACHER).format(model=teacher["model"]) + "\n",
            f"Source: `{source.name}` ({source.kind.replace('_', ' ')}). Seed: {source.seed}.\n",
            "## Rows",
            _table("split", ("rows", "articles in the source"), splits),
            _table("rows of the source", ("number",), _funnel_rows(counts)),
            _table("task", ("rows",), list(details["tasks"].items())),
            _COLUMNS.format(note=_NOTE_KINDS[source.kind]),
            "## Prompts",
            _table("prompt", ("sha256",), prompts),
            _LICENCE,
        ]
    )


def _licence_of(source: CardSource) -> str:
    """The hub's name of the licence, as far as the source's own name tells it."""
    return "cc-by-nc-sa-4.0" if _PMC_PATIENTS.search(source.name) else "other"


def _funnel_rows(counts: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    lost = [
        (f"{state}: {reason}", number)
        for state in ("rejected", "failed")
        for reason, number in counts[state].items()
    ]
    return [("read", counts["input"]), *lost, ("in the dataset", counts["ok"])]


def _table(first: str, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    head = [(first, *columns), ("---",) * (len(columns) + 1)]
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in head + rows) + "\n"
