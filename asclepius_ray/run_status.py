"""What `asclepius status ROOT` prints: how far each stage is, money, checkpoint, who works, what next."""

import time
from typing import Any

from rich.console import Console
from rich.table import Table

from asclepius_ray.artifacts import Folder
from asclepius_ray.errors import BudgetError, EndpointError, Interrupted, StageChangedError
from asclepius_ray.lease import Holder
from asclepius_ray.run_state import LAST_ARTEFACTS, RunState, read_state
from asclepius_ray.synthesis.status import describe, format_seconds

_AFTER = {
    BudgetError.exit_code: "the budget is reached: raise budget_usd, and run the same command again",
    EndpointError.exit_code: "an endpoint could not be used: mend it, and run the same command again",
    StageChangedError.exit_code: "settings have changed: run it with --redo STAGE, or choose another root",
    Interrupted.exit_code: "it was stopped: run the same command again, it goes on from there",
}
_AGAIN = "run the same command again, it goes on from there"


def print_status(console: Console, root: Folder) -> None:
    """Prints it; a ConfigError for a folder of no run, an ArtifactError for one that is damaged."""
    state, now = read_state(root), time.time()
    table = Table("stage", "state", "counts", "spent", box=None)
    for stage in LAST_ARTEFACTS:
        table.add_row(stage, _word(state, stage), _counts(state, stage, now), _spent(state, stage))
    console.print(table)
    for line in _lines(state, now):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def _word(state: RunState, stage: str) -> str:
    if stage in state.manifests:
        return "finished"
    if stage == state.stage_at_work:
        return "at work"
    return "broken off" if state.is_begun(stage) else "not begun"


def _counts(state: RunState, stage: str, now: float) -> str:
    if stage in state.manifests:
        return _flat(state.manifests[stage]["counts"])
    if stage == "synthesize" and state.synthesis is not None:
        rows = state.synthesis["rows"]
        return f"{rows['done']} of {rows['readable']} rows"
    if stage == "train" and state.training is not None:
        return _training(state, now)
    if stage == "evaluate" and state.evaluation is not None:
        items, grades = state.evaluation["items"], state.evaluation["grades"]
        unjudged = sum(grades.values()) - grades["judged"]
        return f"{items['done']} of {items['all']} items, {grades['judged']} judged, {unjudged} unjudged"
    return ""


def _flat(counts: dict[str, Any]) -> str:
    """Numbers by their names; those that hold others as their sum."""
    values = {
        name: sum(value.values()) if isinstance(value, dict) else value for name, value in counts.items()
    }
    return ", ".join(f"{name} {value:,}" for name, value in values.items() if isinstance(value, int | float))


def _training(state: RunState, now: float) -> str:
    assert state.training is not None
    line, step = state.training.line, state.training.checkpoint_step
    parts = [f"step {line['step']:,}, loss {line['loss']:.3f}"] if line else ["no step yet"]
    if step is None or state.training.checkpoint_unix is None:
        return f"{parts[0]}; no checkpoint yet"
    age = format_seconds(max(0.0, now - state.training.checkpoint_unix))
    return f"{parts[0]}; checkpoint of step {step:,}, {age} old"


def _spent(state: RunState, stage: str) -> str:
    """Money over all runs on this root, and the budget of the stage where one is set."""
    if stage == "synthesize" and state.synthesis is not None:
        return _money(state.synthesis["cost_usd"], state.synthesis["budget_usd"])
    if stage == "evaluate" and state.evaluation is not None:
        # There is none without a budget of the whole, nor in what an earlier version wrote.
        if purse := state.evaluation.get("purse"):
            return _money(purse["settled_usd"], purse["budget_usd"], purse["unsettled_usd"])
        costs = [seat["cost_usd"] for seat in state.evaluation["seats"].values()]
        known = [cost for cost in costs if cost is not None]
        # A model that the run serves itself has no price, and costs no endpoint's money.
        return _money(sum(known) if known else None, None)
    return ""


def _money(cost_usd: float | None, budget_usd: float | None, unsettled_usd: float = 0.0) -> str:
    cost = "cost unknown" if cost_usd is None else f"{cost_usd:,.4f} USD"
    more = f", {unsettled_usd:,.4f} more may be charged," if unsettled_usd else ""
    return f"{cost}{more} of {budget_usd:,.2f}" if budget_usd else cost


def _lines(state: RunState, now: float) -> list[str]:
    lines = []
    if "synthesize" not in state.manifests and state.synthesis is not None:
        rows, age = state.synthesis["rows"], max(0.0, now - state.synthesis["updated_unix"])
        lines.append(
            f"synthesize {rows['done']} of {rows['readable']} rows: {describe(dict(state.synthesis))} "
            f"({format_seconds(age)} ago)"
        )
    lines.append(f"in use by {_user(state, now)}")
    return [*lines, f"next      {_next(state, now)}"]


def _user(state: RunState, now: float) -> str:
    if state.is_live or state.holder is None or not _is_only_silent(state.holder):
        return str(state.holder) if state.is_live else "nobody"
    return f"nobody, as far as this machine can tell: {_silence(state.holder, now)}"


def _is_only_silent(holder: Holder) -> bool:
    """Whether its silence alone speaks for its end: no process of another machine can be looked at."""
    return holder.exit_code is None and not holder.is_of_this_machine


def _silence(holder: Holder, now: float) -> str:
    """By the time that the holder's own clock has written."""
    seconds = now - holder.heartbeat_unix
    when = f"{format_seconds(abs(seconds))} {'ago' if seconds >= 0 else 'ahead'}"
    return f"process {holder.pid} on {holder.host} was last heard of {when} by this machine's clock"


def _next(state: RunState, now: float) -> str:
    """What to do now."""
    if state.is_live:
        return "nothing to do: it is at work"
    unfinished = [stage for stage in LAST_ARTEFACTS if stage not in state.manifests]
    if not unfinished:
        return "`asclepius run serve RUN.toml` serves the model, `asclepius report ROOT` writes the page anew"
    holder = state.holder
    if holder is None:
        return f"`asclepius run {unfinished[0]} RUN.toml`"
    if holder.exit_code is None:
        if holder.is_of_this_machine:
            return f"{holder} has ended without a word, most often for want of memory: {_AGAIN}"
        return (
            f"{_silence(holder, now)}: if the two clocks agree it has ended without a word, most often for "
            f"want of memory; {_AGAIN}, and is refused if that one is still at work"
        )
    if holder.exit_code == 0:
        return f"`asclepius run {unfinished[0]} RUN.toml`"
    return _AFTER.get(holder.exit_code, f"it ended with code {holder.exit_code}; its log says why: {_AGAIN}")
