"""Invented reports in any number, and the very prompts that the synthesis of them sends."""

import csv
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from asclepius_ray.chat.offline.prompt_reading import read_prompt
from asclepius_ray.chat.offline.rules import short_reply_to
from asclepius_ray.records import CaseReport
from asclepius_ray.synthesis.case_reports import read_case_reports
from asclepius_ray.synthesis.config import InputConfig
from asclepius_ray.synthesis.question_pool import QuestionPool
from asclepius_ray.synthesis.steps import STEPS, build_messages, clean_step_reply

PROJECT = Path(__file__).resolve().parents[2]
CALLS_PER_ROW = len(STEPS)


def write_reports(target: Path, num_rows: int) -> None:
    """The project's own reports, over and over, each of a patient of its own and with words of its own."""
    with (PROJECT / "jobs" / "runs" / "quickstart_reports.csv").open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        for number in range(num_rows):
            row = rows[number % len(rows)]
            text = f"This is report {number} of the ward. {row['patient']}"
            writer.writerow(row | {"patient_uid": f"{number + 1}-1", "patient_id": number, "patient": text})


def write_prompts(target: Path, reports: Path, num_calls: int) -> None:
    """One prompt a line: those of all three steps, as a teacher of short replies has them follow each other.

    They are what the synthesis sends but for the pool of questions, two further lines in a third of them.
    """
    records = read_case_reports(InputConfig(path=str(reports)))
    prompts = (text for report in records if isinstance(report, CaseReport) for text in _prompts_of(report))
    with target.open("w", encoding="utf-8") as stream:
        for prompt in islice(prompts, num_calls):
            stream.write(json.dumps({"prompt": prompt}) + "\n")


def _prompts_of(report: CaseReport) -> Iterator[str]:
    texts: dict[str, str] = {}
    for step in STEPS:
        prompt = build_messages(step, report, texts, 0, QuestionPool())[0].content
        yield prompt
        parts = read_prompt(prompt)
        assert parts is not None
        texts[step] = clean_step_reply(step, short_reply_to(prompt, parts))
