"""What the command prints of an evaluation: each judge's means with their intervals."""

import io
from pathlib import Path

from evaluation_scores import full_scores, sound_scores, write_evaluation
from rich.console import Console

from asclepius_ray.artifacts import Folder
from asclepius_ray.summary import print_scores


def printed(root: Folder) -> str:
    stream = io.StringIO()
    print_scores(Console(file=stream, width=120), root)
    return " ".join(stream.getvalue().split())


def test_each_judge_has_its_means_with_intervals(tmp_path: Path) -> None:
    root = Folder(str(tmp_path))
    write_evaluation(root, full_scores())
    said = printed(root)
    assert "scores by one, grader-1 (language model)" in said
    assert "alpha 3.25 3.08 to 3.44 40 0 0 beta 2.75 2.58 to 2.94 40 0 0" in said
    assert "scores by two, grader-1 (rules, not a language model)" in said
    assert "gamma - - 0 40 0" in said
    assert "trained - untrained: -5.000 (95 % interval -5.500 to -4.500, 5 rows)" in said


def test_a_name_is_printed_as_it_is_and_a_loss_alone_where_there_is_one(tmp_path: Path) -> None:
    root = Folder(str(tmp_path))
    scores = sound_scores()
    scores["models"]["[red]x[/red]"] = scores["models"].pop("alpha")
    write_evaluation(root, scores)
    said = printed(root)
    assert "[red]x[/red] 3.25 3.08 to 3.44" in said
    assert "loss" not in said
