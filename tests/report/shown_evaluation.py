"""Writes the page of an evaluation and reads it back."""

from pathlib import Path

from evaluation_scores import Scores, write_evaluation
from read_page import ReadPage

from asclepius_ray.artifacts import Folder
from asclepius_ray.report.evaluation_page import write_evaluation_page

HOSTILE = '=cmd|"/c calc"!A0\n<script>alert(1)</script> & $x_1$ \\input{/etc/passwd} 100 % #~^ 模'


def show(root: Folder, scores: Scores) -> tuple[str, ReadPage]:
    write_evaluation(root, scores)
    page, _, _ = write_evaluation_page(root)
    text = Path(page).read_text(encoding="utf-8")
    read = ReadPage(text)
    assert read.open == []
    return text, read
