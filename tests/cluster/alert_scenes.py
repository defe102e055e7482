"""For each alert: invented series in which it must fire, and others in which nothing may.

The values are those of one sample a minute, in promtool's notation; its clock begins at 0 s.
"""

from dataclasses import dataclass

MINUTES = 150
SYNTHESIS, TRAINING = "ray_asclepius_synthesis", "ray_asclepius_training"
EVALUATION, SERVING = "ray_asclepius_evaluation", "ray_asclepius_serving"
ALWAYS_0, ALWAYS_1 = f"0x{MINUTES}", f"1x{MINUTES}"
EACH_MINUTE = f"0+60x{MINUTES}"
"""A moment that is always now."""


@dataclass(frozen=True)
class Scene:
    """Series and their values, and the alerts that stand at the end of them."""

    series: dict[str, str]
    firing: tuple[str, ...] = ()


def of_run(stage: str, values: dict[str, str]) -> dict[str, str]:
    """Series of one run, as its driver tells them: `rows/state="done"` is one with a label of its own."""
    found = {}
    for name, told in values.items():
        figure, _, label = name.partition("/")
        found[f'{stage}_{figure}{{run="mine", WorkerId="01"{", " + label if label else ""}}}'] = told
    return found


def synthesis(**changed: str) -> dict[str, str]:
    """One that goes well, but for what is changed."""
    usual = {
        "active": ALWAYS_1, "awaits_batches": ALWAYS_0, "last_row_timestamp_seconds": EACH_MINUTE,
        "calls": f"0+90x{MINUTES}", "refusals": f"0+1x{MINUTES}", "cost_usd": f"0+0.01x{MINUTES}",
        "unsettled_usd": f"0.5x{MINUTES}", "budget_usd": f"100x{MINUTES}",
        'rows/state="done"': f"0+30x{MINUTES}", 'rows/state="ok"': f"0+27x{MINUTES}",
        'rows/state="rejected"': f"0+2x{MINUTES}", 'rows/state="failed"': f"0+1x{MINUTES}",
    }  # fmt: skip
    return of_run(SYNTHESIS, usual | changed)


def training(**changed: str) -> dict[str, str]:
    usual = {
        "active": ALWAYS_1, "non_finite_steps": ALWAYS_0, "last_step_timestamp_seconds": EACH_MINUTE,
        "checkpoint_timestamp_seconds": EACH_MINUTE,
    }  # fmt: skip
    return of_run(TRAINING, usual | changed)


def evaluation(changed: dict[str, str]) -> dict[str, str]:
    usual = {
        "active": ALWAYS_1, "last_item_timestamp_seconds": EACH_MINUTE,
        'grades/verdict="judged"': f"0+19x{MINUTES}", 'grades/verdict="judge_unreadable"': f"0+1x{MINUTES}",
        'cost_usd/seat="judges/judge"': f"0+0.01x{MINUTES}",
        'budget_usd/seat="judges/judge"': f"10x{MINUTES}",
        "purse_settled_usd": f"0+0.01x{MINUTES}", "purse_unsettled_usd": f"0.5x{MINUTES}",
        "purse_budget_usd": f"10x{MINUTES}",
    }  # fmt: skip
    return of_run(EVALUATION, usual | changed)


def served(refused: str, healthy: str, wanted: str = ALWAYS_1, application: str = "6") -> dict[str, str]:
    """A model of one replica; `application` is the status of its application."""
    replica = 'application="asclepius", deployment="model"'
    return {
        f'{SERVING}_refused_requests_total{{model="m", reason="capacity", replica="a"}}': refused,
        f'{SERVING}_refused_requests_total{{model="m", reason="key", replica="a"}}': f"0+900x{MINUTES}",
        f'{SERVING}_admitted_requests_total{{model="m", replica="a"}}': f"0+100x{MINUTES}",
        f"ray_serve_deployment_replica_healthy{{{replica}}}": healthy,
        f"ray_serve_deployment_status{{{replica}}}": f"6x{MINUTES}",
        f"ray_serve_autoscaling_target_replicas{{{replica}}}": wanted,
        'ray_serve_application_status{application="asclepius"}': f"{application}x{MINUTES}",
    }


def nodes(draining: str) -> dict[str, str]:
    return of_run("ray_asclepius_cluster", {"draining_nodes": draining})


LONG_AGO = f"60x{MINUTES}"
SCENES = {
    "all goes well": Scene(
        synthesis() | training() | evaluation({}) | served(f"0+1x{MINUTES}", ALWAYS_1) | nodes(ALWAYS_0)
    ),
    "no row is finished": Scene(
        synthesis(last_row_timestamp_seconds=LONG_AGO), ("AsclepiusSynthesisStalled",)
    ),
    "batches are awaited": Scene(synthesis(last_row_timestamp_seconds=LONG_AGO, awaits_batches=ALWAYS_1)),
    "the stages are over": Scene(
        synthesis(
            last_row_timestamp_seconds=LONG_AGO, active=ALWAYS_0, cost_usd=f"89.6x{MINUTES}",
            **{'rows/state="rejected"': f"0+12x{MINUTES}"},
        )
        | training(
            last_step_timestamp_seconds=LONG_AGO, checkpoint_timestamp_seconds=LONG_AGO, active=ALWAYS_0
        )
        | evaluation({
            "last_item_timestamp_seconds": LONG_AGO, "active": ALWAYS_0,
            "purse_settled_usd": f"8.6x{MINUTES}", 'cost_usd/seat="judges/judge"': f"9.1x{MINUTES}",
            'grades/verdict="judge_failed"': f"0+4x{MINUTES}",
        })
    ),
    "a driver is gone": Scene(synthesis(last_row_timestamp_seconds="60x100 stale", active="1x100 stale")),
    "many rows are lost": Scene(
        synthesis(**{'rows/state="rejected"': f"0+12x{MINUTES}"}), ("AsclepiusRowsLost",)
    ),
    "a few rows are lost of a few": Scene(
        synthesis(**{'rows/state="rejected"': f"5x{MINUTES}", 'rows/state="done"': f"10x{MINUTES}"})
    ),
    "the teacher refuses": Scene(synthesis(refusals=f"0+60x{MINUTES}"), ("AsclepiusTeacherRefuses",)),
    "the budget is nearly spent": Scene(
        synthesis(cost_usd=f"89.6x{MINUTES}"), ("AsclepiusSynthesisBudgetNearCap",)
    ),
    "there is no budget": Scene(
        {name: told for name, told in synthesis().items() if "budget" not in name}
    ),
    "no price is known": Scene(synthesis(cost_usd=" ".join(["NaN"] * MINUTES))),
    "a loss was no number ten minutes ago": Scene(
        of_run(TRAINING, {"non_finite_steps": "0x138 1 1 stale", "active": "1x139 0 stale"}),
        ("AsclepiusTrainingNotFinite",),
    ),
    "no step is finished": Scene(
        training(last_step_timestamp_seconds=LONG_AGO), ("AsclepiusTrainingStalled",)
    ),
    "no checkpoint becomes whole": Scene(
        training(checkpoint_timestamp_seconds=LONG_AGO), ("AsclepiusCheckpointTooOld",)
    ),
    "no item is finished": Scene(
        evaluation({"last_item_timestamp_seconds": LONG_AGO}), ("AsclepiusEvaluationStalled",)
    ),
    "many answers get no grade": Scene(
        evaluation({'grades/verdict="judge_failed"': f"0+4x{MINUTES}"}), ("AsclepiusAnswersUnjudged",)
    ),
    "a judge has nearly spent its budget": Scene(
        evaluation({'cost_usd/seat="judges/judge"': f"9.1x{MINUTES}"}), ("AsclepiusEvaluationBudgetNearCap",)
    ),
    "all of an evaluation have nearly spent its budget": Scene(
        evaluation({"purse_settled_usd": f"8.6x{MINUTES}"}), ("AsclepiusWholeEvaluationBudgetNearCap",)
    ),
    "an evaluation has no budget of the whole": Scene(
        {name: told for name, told in evaluation({}).items() if "purse" not in name}
    ),
    "a replica is not ready": Scene(served(f"0+1x{MINUTES}", ALWAYS_0), ("AsclepiusNoReplicaReady",)),
    "the last replica is gone": Scene(
        served(f"0+1x{MINUTES}", "1x100 stale"), ("AsclepiusNoReplicaReady",)
    ),
    "a model sleeps": Scene(served(f"0+1x{MINUTES}", "1x100 stale", wanted=ALWAYS_0)),
    "an application was deleted": Scene(served(f"0+1x{MINUTES}", "1x100 stale", application="4")),
    "requests find no room": Scene(served(f"0+20x{MINUTES}", ALWAYS_1), ("AsclepiusServingRefuses",)),
    "a node is told to go": Scene(nodes("0x140 1x10"), ("AsclepiusNodeDraining",)),
}  # fmt: skip
