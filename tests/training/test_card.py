"""The model's card: what a reader must find on it, and what must never be."""

from typing import Any

import pytest

from asclepius_ray.artifacts import Manifest
from asclepius_ray.training.card import CURVE_POINTS, CardFacts, render_card
from asclepius_ray.training.config import LoraConfig, PhaseConfig, TrainingConfig

PHASES = [
    {"phase": "notes", "validation_loss_before": 5.0, "validation_loss_after": 4.0, "steps": 40},
    {"phase": "instructions", "validation_loss_before": None, "validation_loss_after": None, "steps": 1},
]
LINES = [
    {"phase": "notes", "step": 0, "validation_loss": 5.0},
    *({"phase": "notes", "step": step, "loss": 5 - step / 40} for step in range(1, 41)),
    {"phase": "instructions", "step": 41, "loss": 3.25},
]
LICENCE = {
    "id": "cc-by-nc-sa-4.0",
    "name": "CC BY-NC-SA 4.0 (PMC-Patients)",
    "terms": "Pass it on under the same licence.",
}


def dataset(kind: str = "case_reports", is_offline: bool = False) -> Manifest:
    return Manifest(
        artifact="dataset",
        counts={},
        files={},
        made_from={"input": {"kind": kind}},
        details={
            "teacher": {"model": "a-teacher", "is_offline": is_offline},
            "rows": {"train": 90},
            "source": {"name": "PMC-Patients.csv", "kind": kind, "licence": LICENCE},
        },
        packages={},
    )


def card(made_of: Manifest | None = None, **changed: Any) -> str:
    training = TrainingConfig(**{"base_model": "huggyllama/llama-7b", **changed})
    facts = CardFacts(training, 2048, 6_738_415_616, "f00d", made_of or dataset(), {"torch": "2.13.0"})
    return render_card(facts, PHASES, LINES)


def test_the_card_names_base_model_data_teacher_licence_versions_and_limits() -> None:
    text = card()
    for told in (
        "base_model: huggyllama/llama-7b\n",
        "6,738,415,616 parameters; all weights trained",
        dataset().identity,
        "| train | 90 |",
        "The teacher `a-teacher`",
        "license: cc-by-nc-sa-4.0\n",
        "Source: `PMC-Patients.csv` (case reports).",
        "CC BY-NC-SA 4.0 (PMC-Patients). Pass it on under the same licence.",
        "| torch | 2.13.0 |",
        "sha256 `f00d`",
        "For research only",
        "| phase instructions | 3 epoch(s), learning rate 2e-05, cosine, warm-up 0.03 |",
    ):
        assert told in text, told


def test_the_card_shows_the_curve_of_each_phase_from_its_first_to_its_last_step() -> None:
    text = card()
    assert "| notes | 5.0000 | 4.0000 | 40 |" in text
    assert "| instructions | none | none | 1 |" in text
    rows = [line for line in text.split("training loss |\n")[1].splitlines() if line.startswith("| notes")]
    assert len(rows) == CURVE_POINTS
    assert rows[0] == "| notes | 1 | 4.9750 |"
    assert rows[-1] == "| notes | 40 | 4.0000 |"
    assert "| instructions | 41 | 3.2500 |" in text


@pytest.mark.parametrize(
    "name", ["/home/somebody/llama", "s3://key@bucket/llama?endpoint_override=http://x", "./models/a/llama"]
)
def test_where_a_base_model_lies_is_nobodys_business(name: str) -> None:
    text = card(base_model=name)
    assert "Base model: `llama`" in text
    assert "base_model:" not in text
    assert not any(word in text for word in ("somebody", "bucket", "endpoint_override", "./models"))


def test_a_model_of_the_offline_teacher_or_of_real_notes_says_so() -> None:
    assert "No language model wrote the training texts" in card(dataset(is_offline=True))
    assert "may hold parts of those notes" in card(dataset(kind="notes"))
    assert "may hold parts" not in card()


def imported(**origin: Any) -> Manifest:
    return Manifest(
        artifact="imported_dataset",
        counts={},
        files={},
        made_from={"content": "f00"},
        details={"rows": {"train": 7}, **origin},
        packages={},
    )


def test_rows_from_elsewhere_are_called_so_by_the_name_of_their_data_set() -> None:
    text = card(imported(), dataset="/home/somebody/rows.csv")
    assert "Source: the data set `rows.csv`, which was made elsewhere" in text
    assert "its teacher unknown" in text
    assert "license: other\n" in text
    assert "| train | 7 |" in text
    assert "somebody" not in text
    assert "data set `" not in card()


def test_rows_from_elsewhere_whose_origin_is_known_name_it_too() -> None:
    origin = {name: dataset().details[name] for name in ("source", "teacher")}
    text = card(imported(**origin), dataset="s3://bucket/published")
    assert "Source: `PMC-Patients.csv` (case reports)." in text
    assert "The rows are those of the data set `published`" in text
    assert "The teacher `a-teacher`" in text
    assert "license: cc-by-nc-sa-4.0\n" in text
    assert "unknown" not in text


def test_a_tiny_model_names_no_base_model() -> None:
    text = card(base_model="tiny")
    assert "Made from scratch to try the system out" in text
    assert "base_model" not in text.split("---\n")[1]


def test_adapters_and_phases_are_described() -> None:
    text = card(
        lora=LoraConfig(rank=8, alpha=16, target_modules=("q_proj", "v_proj")),
        phases=(PhaseConfig(kind="notes", epochs=2, learning_rate=1e-4, warmup_ratio=0.1),),
    )
    assert "adapters trained, merged into the weights" in text
    assert "| adapters | rank 8, alpha 16, dropout 0: q_proj, v_proj |" in text
    assert "| phase notes | 2 epoch(s), learning rate 0.0001, cosine, warm-up 0.1 |" in text
