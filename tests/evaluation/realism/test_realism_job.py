"""The Ray Data job as a whole: which texts are likelier, what is counted, what it never lets out."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from realism_models import CONTEXT_TOKENS, NOTES, POEMS
from transformers import AutoModelForCausalLM, AutoTokenizer

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import ArtifactError, ConfigError, EvaluationError
from asclepius_ray.evaluation.perplexity import Reader, score_texts
from asclepius_ray.evaluation.realism import TEXTS_A_BLOCK, measure_realism
from asclepius_ray.evaluation.realism_config import RealismConfig
from asclepius_ray.progress import Progress

pytestmark = pytest.mark.whole

OWN = {"path": "run:notes", "kind": "synthetic"}


def _poems(root: Folder, **settings: Any) -> dict[str, Any]:
    path = root.local_path.parent / "poems.csv"
    return {"path": str(path), "column": "verse", "kind": "case_reports", **settings}


def _measure(root: Folder, input_texts: Any = None, **settings: Any) -> dict[str, Any]:
    config = RealismConfig.model_validate(settings)
    return measure_realism(root, config, 7, Progress(), input_texts)


def test_texts_like_those_it_has_read_are_likelier(ray_cluster: str, realism_root: Folder) -> None:
    found = _measure(realism_root, texts={"poems": _poems(realism_root), "notes": OWN})
    poems, notes = found["texts"]
    assert [poems["name"], notes["name"]] == ["poems", "notes"]
    for unit in ("perplexity_token", "perplexity_word"):
        assert notes[unit]["low"] < notes[unit]["value"] < notes[unit]["high"]
        assert notes[unit]["high"] < poems[unit]["low"]
        assert notes[unit]["n"] == notes["texts"] == len(NOTES)
    # A word is of several tokens.
    assert notes["perplexity_word"]["value"] > notes["perplexity_token"]["value"]
    assert notes["words"] == sum(len(text.split()) for text in NOTES)


def test_the_figures_are_those_of_the_model_alone(ray_cluster: str, realism_root: Folder) -> None:
    found = _measure(realism_root, texts={"poems": _poems(realism_root)}, context_tokens=20, stride_tokens=5)
    path = realism_root.local_path / "model"
    tokenizer = AutoTokenizer.from_pretrained(path)
    reader = Reader(AutoModelForCausalLM.from_pretrained(path), tokenizer, 20, 5)
    scores = score_texts(reader, POEMS)
    nats, tokens = sum(score.nats for score in scores), sum(score.tokens for score in scores)
    assert found["texts"][0]["tokens"] == tokens
    assert found["texts"][0]["perplexity_token"]["value"] == pytest.approx(math.exp(nats / tokens), rel=1e-5)


@pytest.mark.long
def test_two_workers_find_the_figures_of_one(ray_cluster: str, realism_root: Folder, tmp_path: Path) -> None:
    many = [f"{poem} {note}" for poem in POEMS for note in NOTES[:6]]
    assert len(many) > 4 * TEXTS_A_BLOCK
    (tmp_path / "many.jsonl").write_text("".join(json.dumps({"t": text}) + "\n" for text in many))
    sets = {
        "many": {"path": str(tmp_path / "many.jsonl"), "column": "t", "kind": "real"},
        "poems": _poems(realism_root),
    }
    one, two = (_measure(realism_root, texts=sets, workers=workers) for workers in (1, 2))
    assert one == two
    assert one["texts"][0]["texts"] == len(many)


def test_what_cannot_be_read_is_counted_as_skipped(
    ray_cluster: str, realism_root: Folder, tmp_path: Path
) -> None:
    rows = [{"t": "fever and cough"}, {"t": "  "}, {"t": None}, {"t": 7}, {}, {"t": "she went home"}]
    lines = [json.dumps(row) for row in rows] + ["{torn"]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "blank.jsonl").write_text('{"t": ""}\n')
    sets = {
        "rows": {"path": str(tmp_path / "rows.jsonl"), "column": "t", "kind": "real"},
        "blank": {"path": str(tmp_path / "blank.jsonl"), "column": "t", "kind": "real"},
    }
    rows_found, blank = _measure(realism_root, texts=sets)["texts"]
    assert (rows_found["texts"], rows_found["skipped"], rows_found["words"]) == (2, 5, 6)
    assert (blank["texts"], blank["skipped"], blank["tokens"]) == (0, 1, 0)
    assert blank["perplexity_token"] == {"value": None, "low": None, "high": None, "n": 0}


def test_the_result_has_the_form_of_scores_json_and_no_text(
    ray_cluster: str, realism_root: Folder, tmp_path: Path
) -> None:
    text = "Kryptonithemia was found, and zebracanary given."
    (tmp_path / "rows.jsonl").write_text(json.dumps({"t": text}) + "\n")
    sets = {"rows": {"path": str(tmp_path / "rows.jsonl"), "column": "t", "kind": "real"}}
    found = _measure(realism_root, texts=sets)
    assert list(found) == ["model", "context_tokens", "stride_tokens", "first_token_scored", "texts"]
    assert found | {"texts": 0} == {
        "model": "trained",
        "context_tokens": CONTEXT_TOKENS,
        "stride_tokens": CONTEXT_TOKENS // 2,
        "first_token_scored": True,
        "texts": 0,
    }
    (entry,) = found["texts"]
    assert list(entry) == [
        "name", "kind", "texts", "skipped", "tokens", "words", "perplexity_token", "perplexity_word",
    ]  # fmt: skip
    # One text has a perplexity, and nothing to draw an interval from.
    assert entry["perplexity_token"].keys() == {"value", "low", "high", "n"}
    assert entry["perplexity_token"]["low"] is None
    written = json.dumps(found, allow_nan=False).lower()
    assert "kryptonithemia" not in written
    assert "zebracanary" not in written


def test_a_limit_takes_the_first_rows(ray_cluster: str, realism_root: Folder) -> None:
    sets = {"three": _poems(realism_root, limit=3), "five": _poems(realism_root)}
    three, five = _measure(realism_root, texts=sets, limit=5)["texts"]
    assert (three["texts"], five["texts"]) == (3, 5)
    assert three["words"] == sum(len(text.split()) for text in POEMS[:3])


@pytest.mark.long
def test_the_runs_own_input_is_what_the_pipeline_hands_over(ray_cluster: str, realism_root: Folder) -> None:
    def input_texts() -> Iterator[str | None]:
        yield from [*POEMS[:4], None]

    sets = {"before": {"path": "run:input", "kind": "case_reports"}}
    (before,) = _measure(realism_root, input_texts, texts=sets)["texts"]
    assert (before["texts"], before["skipped"]) == (4, 1)
    with pytest.raises(EvaluationError, match="without an input"):
        _measure(realism_root, texts=sets)


@pytest.mark.long
def test_a_model_is_found_as_a_folder_too(
    ray_cluster: str, realism_root: Folder, model_that_read_notes: Path
) -> None:
    own = _measure(realism_root, texts={"notes": OWN})
    other = _measure(realism_root, model=str(model_that_read_notes), texts={"notes": OWN})
    assert other == own | {"model": model_that_read_notes.name}


def test_a_model_that_cannot_be_opened_is_told_in_one_line(
    ray_cluster: str, realism_root: Folder, tmp_path: Path
) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(EvaluationError, match="'broken' cannot be opened as a causal") as error:
        _measure(realism_root, model=str(tmp_path / "broken"), texts={"notes": OWN})
    assert "\n" not in str(error.value)


def test_a_context_longer_than_the_models_own_is_refused(ray_cluster: str, realism_root: Folder) -> None:
    with pytest.raises((EvaluationError, ConfigError), match=f"longer than the {CONTEXT_TOKENS} positions"):
        _measure(realism_root, context_tokens=4096, texts={"notes": OWN})


def test_a_model_of_the_run_must_be_finished(realism_root: Folder) -> None:
    with pytest.raises(ArtifactError, match="base_model is not finished"):
        _measure(realism_root, model="untrained", texts={"notes": OWN})
