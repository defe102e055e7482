"""What a training reads, made from case reports by the offline teacher's rules: notes, dataset, tokens."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from asclepius_ray.artifacts import Folder, write_manifest
from asclepius_ray.chat.offline.prompt_reading import read_prompt
from asclepius_ray.chat.offline.rules import reply_to
from asclepius_ray.progress import Progress
from asclepius_ray.records import CaseReport
from asclepius_ray.synthesis.case_reports import read_case_reports
from asclepius_ray.synthesis.config import InputConfig
from asclepius_ray.synthesis.question_pool import QuestionPool
from asclepius_ray.synthesis.steps import STEPS, build_messages, clean_step_reply
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.stage import ensure_base_model, ensure_tokens

PROJECT = Path(__file__).resolve().parents[2]
REAL_REPORTS = PROJECT.parent / "shared" / "data" / "pmc_patients" / "v1_first_500.csv"
INVENTED_REPORTS = PROJECT / "jobs" / "runs" / "quickstart_reports.csv"
MOST_REPORTS = 250
HELD_OUT = 10
SEED = 7


def prepare_training(root: Folder, sequence_length: int, training: TrainingConfig) -> str:
    """Writes `notes/`, `dataset/`, `base_model/` and `tokens/` of a root; returns what they are made from."""
    reports = REAL_REPORTS if REAL_REPORTS.exists() else INVENTED_REPORTS
    rows = list(_rows(reports))
    for split, part in (("train", rows[HELD_OUT:]), ("validation", rows[:HELD_OUT])):
        for name in ("notes", "dataset"):
            with root.child(name).open_output(f"{split}-00000.parquet") as stream:
                pq.write_table(pa.Table.from_pylist(part), stream)
    for name in ("notes", "dataset"):
        write_manifest(root.child(name), name, {"ok": len(rows)}, {"reports": reports.name})
    tokens, progress = TokensConfig(sequence_length=sequence_length), Progress()
    base_model = ensure_base_model(root, tokens, training, SEED, progress)
    ensure_tokens(root, tokens, base_model, progress)
    kind = "PMC-Patients" if reports == REAL_REPORTS else "invented reports"
    return f"{len(rows)} rows from {kind}"


def _rows(reports: Path) -> Iterator[dict[str, object]]:
    records = read_case_reports(InputConfig(path=str(reports), limit=MOST_REPORTS))
    for number, report in enumerate(record for record in records if isinstance(record, CaseReport)):
        texts: dict[str, str] = {}
        for step in STEPS:
            parts = read_prompt(build_messages(step, report, texts, SEED, QuestionPool())[0].content)
            assert parts is not None
            texts[step] = clean_step_reply(step, reply_to(parts))
        yield {"row_index": number, "patient_id": number, "patient_uid": f"{number}-1", "task": "", **texts}
