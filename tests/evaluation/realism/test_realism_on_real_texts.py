"""Real case reports and real notes, read by a tiny model: every row is counted, every figure is a number."""

from pathlib import Path

import pytest

from asclepius_ray.artifacts import Folder
from asclepius_ray.evaluation.realism import measure_realism
from asclepius_ray.evaluation.realism_config import RealismConfig
from asclepius_ray.progress import Progress

pytestmark = pytest.mark.whole


def _found(path: Path) -> str:
    if not path.is_file():
        pytest.skip(f"the real texts are not beside the project ({path.name} is absent)")
    return str(path)


def test_real_texts_have_finite_perplexities(
    ray_cluster: str, realism_root: Folder, shared_data: Path
) -> None:
    reports = _found(shared_data / "pmc_patients" / "v1_first_500.csv")
    notes = _found(shared_data / "mtsamples" / "sample_250.csv")
    config = RealismConfig.model_validate(
        {
            "limit": 20,
            "texts": {
                "PMC-Patients": {"path": reports, "column": "patient", "kind": "case_reports"},
                "MTSamples": {"path": notes, "column": "text", "kind": "real"},
            },
        }
    )
    entries = measure_realism(realism_root, config, 7, Progress())["texts"]
    assert [entry["name"] for entry in entries] == ["PMC-Patients", "MTSamples"]
    for entry in entries:
        assert entry["texts"] + entry["skipped"] == 20
        assert entry["texts"] >= 18
        # Case reports of hundreds of words: windows were needed.
        assert entry["tokens"] > entry["words"] > 18 * 100
        for unit in ("perplexity_token", "perplexity_word"):
            assert 1 < entry[unit]["low"] < entry[unit]["value"] < entry[unit]["high"]
