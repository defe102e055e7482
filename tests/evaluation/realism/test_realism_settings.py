"""The settings, the columns and what the figures are made from; none of it needs a model or Ray."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from asclepius_ray.artifacts import Folder
from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError, InputError
from asclepius_ray.evaluation.realism_config import RealismConfig
from asclepius_ray.evaluation.realism_origin import check_realism, realism_made_from

TEXTS = {"path": "a.csv", "column": "text", "kind": "real"}


def _config(**settings: Any) -> RealismConfig:
    return parse_section(RealismConfig, {"texts": {"one": TEXTS}} | settings, "the run file")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"context_tokens": 100, "stride_tokens": 101}, "stride_tokens is 101, more than context_tokens"),
        ({"texts": {}}, "texts"),
        ({"texts": {"one": {"path": "a.csv", "kind": "real"}}}, "column is required"),
        ({"texts": {"one": {"path": "run:notes", "column": "note", "kind": "real"}}}, "needs none"),
        ({"texts": {"one": {"path": "run:answers", "kind": "real"}}}, "run:notes and run:input"),
        ({"texts": {"one": TEXTS | {"kind": "poems"}}}, "texts.one.kind"),
        ({"texts": {"one": TEXTS | {"colum": "x"}}}, "texts.one.colum"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _config(**settings)


def test_a_column_that_is_not_there_is_named_with_those_found(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("number,verse\n1,x\n")
    path = str(tmp_path / "a.csv")
    config = _config(texts={"one": TEXTS | {"path": path}})
    with pytest.raises(InputError, match=r"texts\.one\.column: .* no column 'text'; found 'number', 'verse'"):
        check_realism(config)
    check_realism(_config(texts={"one": TEXTS | {"path": path, "column": "verse"}}))


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    config = _config(texts={"one": TEXTS | {"path": str(tmp_path / "gone.csv")}})
    with pytest.raises(InputError, match=r"evaluation\.realism\.texts\.one\.path: .* does not exist"):
        check_realism(config)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text\nx\n")
    texts = {"one": TEXTS | {"path": str(tmp_path / "a.csv")}}
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        check_realism(_config(texts=texts, model=str(tmp_path / "empty")))
    with pytest.raises(ConfigError, match="no folder here, no URI and no Hugging Face id"):
        check_realism(_config(texts=texts, model="/not/there"))


def _made_from(root: Folder, path: Path, **settings: Any) -> dict[str, Any]:
    texts = {"file": TEXTS | {"path": str(path)}, "own": {"path": "run:notes", "kind": "synthetic"}}
    return realism_made_from(root, _config(texts=texts, **settings))


def test_what_changes_the_figures_changes_what_they_are_made_from(
    realism_root: Folder, tmp_path: Path
) -> None:
    one, moved, other = (tmp_path / f"{name}.csv" for name in ("one", "moved", "other"))
    one.write_text("text\nfever\n")
    moved.write_text("text\nfever\n")
    other.write_text("text\ncough\n")
    before = _made_from(realism_root, one)
    assert before == _made_from(realism_root, moved, workers=8, use_gpu=True)
    assert before != _made_from(realism_root, other)
    assert before != _made_from(realism_root, one, stride_tokens=3)
    assert before != _made_from(realism_root, one, limit=3)
    weights = realism_root.child("model")
    manifest = weights.read_bytes("manifest.json").decode()
    weights.write_bytes(
        "manifest.json", manifest.replace('"made_from": {}', '"made_from": {"seed": 2}').encode()
    )
    assert before != _made_from(realism_root, one)


def test_where_a_model_and_its_texts_lie_is_in_no_fingerprint(
    realism_root: Folder, tmp_path: Path, model_that_read_notes: Path
) -> None:
    (tmp_path / "one.csv").write_text("text\nfever\n")
    found = str(_made_from(realism_root, tmp_path / "one.csv", model=str(model_that_read_notes)))
    assert str(tmp_path) not in found
    assert str(model_that_read_notes.parent) not in found


def test_settings_and_origin_need_neither_ray_nor_torch() -> None:
    code = (
        "import sys, asclepius_ray.evaluation.realism_origin; "
        "print([name for name in ('ray', 'torch', 'transformers') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
