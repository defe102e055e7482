"""A training that ends a phase early is interrupted: it decides as if nothing had been."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

from artefacts import write_inputs
from test_seeing import Seen, of_phase, read_lines, run, unbroken

from asclepius_ray.artifacts import Folder

pytestmark = pytest.mark.long

__all__ = ["unbroken"]


def test_a_training_that_was_interrupted_decides_the_same(
    unbroken: tuple[Folder, Seen], tmp_path: Path
) -> None:
    """Ctrl-C after the best validation: what was seen of it comes from the checkpoint, of any ZeRO stage."""
    root, lines = Folder(str(tmp_path)), read_lines(unbroken[0])
    write_inputs(root)
    last_step = of_phase(lines, 1, "loss")[-1][0]
    with pytest.raises(KeyboardInterrupt):
        run(root, 2, Seen(interrupt_at=last_step - 1))
    assert len(of_phase(read_lines(root), 1, "loss")) < len(of_phase(lines, 1, "loss")) + 1
    run(root, 2, Seen())
    again = read_lines(root)
    for key in ("loss", "validation_loss", "gradient_norm"):
        for number in (1, 2):
            expected = of_phase(lines, number, key)
            found = of_phase(again, number, key)
            assert [step for step, _ in found] == [step for step, _ in expected]
            assert [value for _, value in found] == pytest.approx([value for _, value in expected], rel=2e-3)
