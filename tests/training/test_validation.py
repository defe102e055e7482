"""When the held-out rows are read and when a phase ends early, without a model."""

import json
import math

import pytest

from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError
from asclepius_ray.training.config import TrainingConfig
from asclepius_ray.training.loop_state import LoopState
from asclepius_ray.training.validation import Patience, is_validation_due, perplexity


def ends_at(losses: list[float | None], patience: int, min_delta: float = 0.0) -> int | None:
    """After which of these validations (from 1) a phase ends; None if after none of them."""
    known = Patience()
    for number, loss in enumerate(losses, 1):
        known = known.after(loss, min_delta)
        if known.is_exhausted(patience):
            return number
    return None


def test_a_phase_ends_after_as_many_validations_without_improvement() -> None:
    losses = [3.0, 2.0, 2.1, 2.0, 2.2, 1.0]
    assert ends_at(losses, 1) == 3
    assert ends_at(losses, 2) == 4
    assert ends_at(losses, 3) == 5
    assert ends_at(losses, 4) is None


def test_an_improvement_starts_the_count_anew() -> None:
    assert ends_at([3.0, 3.1, 2.9, 3.0, 2.8, 2.9, 2.85], 2) == 7


def test_a_smaller_fall_than_asked_for_is_no_improvement() -> None:
    slowly = [3.0, 2.95, 2.9, 2.85, 2.8]
    assert ends_at(slowly, 2) is None
    assert ends_at(slowly, 2, min_delta=0.5) == 3
    # Measured from the last improvement: two small falls together are one.
    assert ends_at([3.0, 2.75, 2.5, 2.25, 2.0], 2, min_delta=0.5) is None


def test_patience_of_zero_never_ends_a_phase() -> None:
    assert ends_at([1.0] * 50, 0) is None


def test_a_phase_without_held_out_rows_is_never_ended() -> None:
    assert ends_at([None] * 9, 1) is None


def test_what_is_remembered_survives_the_state_of_the_loop() -> None:
    """As if the run were killed and resumed after every validation."""
    state = LoopState()
    for loss in (3.0, 2.0, 2.1, 2.2, 2.3):
        state = LoopState.from_json(json.loads(json.dumps(state.to_json())))
        state.note_validation(loss)
    assert state.patience == Patience(loss_to_beat=2.0, without_improvement=3)


def test_the_last_step_of_a_phase_is_not_validated_twice() -> None:
    due = [step for step in range(1, 13) if is_validation_due(step, total_steps=12, every=4)]
    assert due == [4, 8]
    assert not any(is_validation_due(step, 12, 0) for step in range(1, 13))


def test_perplexity_is_the_exponential_of_the_loss() -> None:
    assert perplexity(math.log(50.0)) == pytest.approx(50.0)
    assert perplexity(None) is None
    assert perplexity(1e6) is None


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"early_stopping_patience": 3}, "early_stopping_patience is 3.*set validation_steps"),
        ({"validation_steps": 5, "early_stopping_min_delta": 0.1}, "min_delta does nothing without"),
        ({"trackers": ["tensorboard", "tensorboard"]}, "one of them twice"),
        ({"trackers": ["a diary"]}, r"trackers\.0"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_section(TrainingConfig, values, "the test")
