"""The folder of a finished run, small, as the stages leave it; and the command `asclepius publish` on it."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import save_file

from asclepius_ray.artifacts import Folder, read_manifest, write_manifest, write_sums
from asclepius_ray.run import load_run, resolved_json
from asclepius_ray.synthesis.card import CardSource, render_card
from asclepius_ray.synthesis.licences import PMC_PATIENTS
from asclepius_ray.training.card import CardFacts
from asclepius_ray.training.card import render_card as render_model_card
from asclepius_ray.training.config import TrainingConfig

PROJECT = Path(__file__).resolve().parents[2]
TEACHER = "some-teacher-70b"
SHARDS = 6
SECRET_NOTE = "zyqcanary"
"""Stands in everything that must stay in the run."""
MODEL_CARD = f"""\
---
license: cc-by-nc-sa-4.0
base_model: tiny
---
# A clinical model

Source: `PMC-Patients.csv` (case reports). Its texts were written by the teacher `{TEACHER}`.

## Licence and limits of use
PMC-Patients is under CC BY-NC-SA 4.0, and so is this model. For research only.
"""


def write_run(root: Path, kind: str = "case_reports", model_card: str = MODEL_CARD, seed: int = 7) -> None:
    """Writes run.json, dataset and model with their manifests, and what must never leave the run."""
    folder = Folder(str(root))
    run = load_run(str(PROJECT / "jobs/runs/quickstart.toml"), [f"input.kind={kind}"])
    folder.write_bytes("run.json", resolved_json(run).encode())
    _write_dataset(folder.child("dataset"), kind, seed)
    _write_model(folder.child("model"), model_card)
    for name in ("journal/segment-0", "notes/train-00000.parquet", "notes/examples.json", "report.html"):
        folder.write_bytes(name, SECRET_NOTE.encode())
    folder.write_bytes("rejected/rejected-00000.parquet", SECRET_NOTE.encode())


def _write_dataset(folder: Folder, kind: str, seed: int) -> None:
    rows = {"train": 40, "validation": 4}
    for split, count in rows.items():
        table = pa.table({name: [f"{name} {row}" for row in range(count)] for name in ("note", "answer")})
        with folder.open_output(f"{split}-00000.parquet") as stream:
            pq.write_table(table, stream)
    details = {
        "teacher": {"model": TEACHER, "is_offline": False},
        "rows": rows,
        "articles": rows,
        "tasks": {"Question Answering": 44},
        "prompts": {"note": "0" * 64},
        "models": [TEACHER],
        "price": None,
        "source": {"name": "PMC-Patients.csv", "kind": kind, "licence": asdict(PMC_PATIENTS)},
    }
    counts = {"input": 44, "ok": 44, "rejected": {}, "failed": {}}
    card = render_card(CardSource("PMC-Patients.csv", kind, 7, PMC_PATIENTS), counts, details)
    folder.write_bytes("README.md", card.encode())
    write_manifest(folder, "dataset", counts, {"seed": seed, "input": {"kind": kind}}, details)


def _write_model(folder: Folder, card: str) -> None:
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05d}-of-{SHARDS:05d}.safetensors"
        folder.write_bytes(name, b"")
        # Larger than what is sent from memory.
        weights = torch.arange(400_000, dtype=torch.float32) + shard
        save_file({f"layer.{shard}": weights}, folder.local_path / name)
    # As the export does, which takes the hashes while it writes.
    write_sums(folder, {name: folder.sha256(name) for name in folder.names()})
    folder.write_bytes("config.json", json.dumps({"model_type": "llama"}).encode())
    if card:
        folder.write_bytes("README.md", card.encode())
    write_manifest(folder, "model", {"parameters": 2_400_000}, {"seed": 7})


def train_elsewhere(root: Path, origin: Mapping[str, Any]) -> None:
    """Makes the run's model one of a data set from elsewhere, of which `origin` is known."""
    imported, model = Folder(str(root / "imported_dataset")), Folder(str(root / "model"))
    details = {"rows": {"train": 40, "validation": 4}, **origin}
    imported.write_bytes("dataset/train-00000.parquet", SECRET_NOTE.encode())
    write_manifest(imported, "imported_dataset", {"ok": 44}, {"content": "0" * 64}, details)
    training = TrainingConfig(dataset="/elsewhere/rows.csv")
    facts = CardFacts(training, 2048, 2_400_000, "0" * 64, read_manifest(imported), {"torch": "2.13.0"})
    model.write_bytes("README.md", render_model_card(facts, [], []).encode())
    write_manifest(model, "model", {"parameters": 2_400_000}, {"training_dataset": {"content": "0" * 64}})


def start_publish(
    arguments: list[str], environment: Mapping[str, str], scratch: Path
) -> "subprocess.Popen[str]":
    """Starts the command as a process of its own, which the test may kill."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.Popen(
        [sys.executable, "-m", "asclepius_ray.cli", "publish", *arguments],
        cwd=PROJECT,
        env={**kept, "HF_HOME": str(scratch / "hf"), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run_publish(arguments: list[Any], environment: Mapping[str, str], scratch: Path) -> tuple[int, str]:
    """Says the command; its exit code and what it printed."""
    process = start_publish([str(argument) for argument in arguments], environment, scratch)
    said, _ = process.communicate(timeout=120)
    return process.returncode, said
