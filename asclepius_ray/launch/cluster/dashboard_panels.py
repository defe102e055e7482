"""What the Grafana dashboard shows, stage by stage: a title, a unit and the queries of each panel."""

from dataclasses import dataclass

RUN = 'run=~"$run"'
MODEL = 'model=~"$model"'


@dataclass(frozen=True)
class Query:
    """An expression of PromQL, and what its lines are called."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """One graph; `unit` is Grafana's name of it."""

    title: str
    text: str
    unit: str
    queries: tuple[Query, ...]
    is_stacked: bool = False
    is_number: bool = False
    """The newest value in large digits, and no graph."""


@dataclass(frozen=True)
class Row:
    """The panels of one stage."""

    title: str
    panels: tuple[Panel, ...]


def _of_run(name: str, legend: str, by: str = "run") -> Query:
    """A figure of a run: its driver alone tells it, so that the greatest is the only one."""
    return Query(f"max by ({by}) (ray_asclepius_{name}{{{RUN}}})", legend)


def _rate(name: str, legend: str, by: str = "run") -> Query:
    return Query(f"sum by ({by}) (rate(ray_asclepius_{name}{{{RUN}}}[$__rate_interval]))", legend)


def _age(name: str, active: str) -> Query:
    """Seconds since a moment, as long as the stage is at work."""
    since = f"time() - max by (run) (ray_asclepius_{name}_timestamp_seconds{{{RUN}}})"
    at_work = f"max by (run) (ray_asclepius_{active}_active{{{RUN}}}) == 1"
    return Query(f"({since}) and on (run) ({at_work})", "{{run}}")


def _quantiles(name: str) -> tuple[Query, ...]:
    buckets = f"sum by (le, model) (rate(ray_asclepius_serving_{name}_bucket{{{MODEL}}}[$__rate_interval]))"
    return tuple(
        Query(f"histogram_quantile({share}, {buckets})", f"{{{{model}}}} p{round(share * 100)}")
        for share in (0.5, 0.95, 0.99)
    )


def _served(name: str, legend: str, function: str = "sum") -> Query:
    return Query(f"{function} by (model) (ray_asclepius_serving_{name}{{{MODEL}}})", legend)


def _served_rate(name: str, legend: str, by: str = "model") -> Query:
    chosen = f"{{{MODEL}}}" if by == "model" else ""
    rate = f"rate(ray_asclepius_serving_{name}_total{chosen}[$__rate_interval])"
    return Query(f"sum by ({by}) ({rate})", legend)


OVERVIEW = Row(
    "All stages",
    (
        Panel(
            "Rows done",
            "Of the rows that can be read.",
            "percentunit",
            (
                Query(
                    f'max by (run) (ray_asclepius_synthesis_rows{{{RUN}, state="done"}}) / '
                    f'max by (run) (ray_asclepius_synthesis_rows{{{RUN}, state="readable"}})',
                    "{{run}}",
                ),
            ),
            is_number=True,
        ),
        Panel(
            "Steps done",
            "Of the optimizer steps of all phases.",
            "percentunit",
            (
                Query(
                    f"max by (run) (ray_asclepius_training_step{{{RUN}}}) / "
                    f"max by (run) (ray_asclepius_training_planned_steps{{{RUN}}})",
                    "{{run}}",
                ),
            ),
            is_number=True,
        ),
        Panel(
            "Items judged",
            "Of all items of the evaluation: those with every answer and grade.",
            "percentunit",
            (
                Query(
                    f'max by (run) (ray_asclepius_evaluation_items{{{RUN}, state="done"}}) / '
                    f'max by (run) (ray_asclepius_evaluation_items{{{RUN}, state="all"}})',
                    "{{run}}",
                ),
            ),
            is_number=True,
        ),
        Panel(
            "Spent",
            "On the teacher, and on models and judges of the evaluation.",
            "currencyUSD",
            (
                _of_run("synthesis_cost_usd", "{{run}} teacher"),
                Query(f"sum by (run) (ray_asclepius_evaluation_cost_usd{{{RUN}}})", "{{run}} evaluation"),
            ),
            is_number=True,
        ),
        Panel(
            "Stages at work",
            "1 while a stage is at work.",
            "short",
            (
                _of_run("synthesis_active", "{{run}} synthesize"),
                _of_run("training_active", "{{run}} train"),
                _of_run("evaluation_active", "{{run}} evaluate"),
            ),
        ),
        Panel(
            "Nodes",
            "Alive, and of those the ones that have been told to go.",
            "short",
            (
                _of_run("cluster_nodes", "{{run}} alive"),
                _of_run("cluster_draining_nodes", "{{run}} draining"),
            ),
        ),
    ),
)

SYNTHESIS = Row(
    "Synthesis",
    (
        Panel(
            "Rows by state",
            "Each row of the input ends as ok, rejected or failed.",
            "short",
            (
                Query(
                    "max by (run, state) (ray_asclepius_synthesis_rows"
                    f'{{{RUN}, state=~"ok|rejected|failed"}})',
                    "{{run}} {{state}}",
                ),
            ),
            is_stacked=True,
        ),
        Panel(
            "Rows lost, by reason",
            "Reasons of rejections and failures; README.md explains them.",
            "short",
            (_of_run("synthesis_lost_rows", "{{run}} {{reason}}", "run, reason"),),
            is_stacked=True,
        ),
        Panel(
            "Calls a second",
            "Answered calls, and refusals for the rate (HTTP 429).",
            "reqps",
            (
                _rate("synthesis_calls", "{{run}} answered"),
                _rate("synthesis_refusals", "{{run}} refused"),
            ),
        ),
        Panel(
            "At the teacher",
            "Requests at the teacher, and requests that wait for a permit.",
            "short",
            (
                _of_run("synthesis_in_flight", "{{run}} in flight"),
                _of_run("synthesis_waiting", "{{run}} waiting"),
            ),
        ),
        Panel(
            "Limit of the teacher",
            "Calls a minute that are sent at most; it follows the refusals.",
            "short",
            (_of_run("synthesis_requests_per_minute", "{{run}}"),),
        ),
        Panel(
            "Tokens a second",
            "In and out.",
            "short",
            (_rate("synthesis_tokens", "{{run}}"),),
        ),
        Panel(
            "Money",
            "Spent, what broken calls may have cost, and the budget.",
            "currencyUSD",
            (
                _of_run("synthesis_cost_usd", "{{run}} spent"),
                _of_run("synthesis_unsettled_usd", "{{run}} unsettled"),
                _of_run("synthesis_budget_usd", "{{run}} budget"),
            ),
        ),
        Panel(
            "Since the last row",
            "Grows where nothing is finished any more.",
            "s",
            (_age("synthesis_last_row", "synthesis"),),
        ),
        Panel("Time left", "At the present rate.", "s", (_of_run("synthesis_seconds_left", "{{run}}"),)),
    ),
)

TRAINING = Row(
    "Training",
    (
        Panel(
            "Loss",
            "Mean per target: of the last step, and of the held-out rows.",
            "short",
            (
                _of_run("training_loss", "{{run}} step"),
                _of_run("training_validation_loss", "{{run}} held out"),
            ),
        ),
        Panel(
            "Norm of the gradient",
            "Before it is clipped.",
            "short",
            (_of_run("training_gradient_norm", "{{run}}"),),
        ),
        Panel("Learning rate", "Of the last step.", "sci", (_of_run("training_learning_rate", "{{run}}"),)),
        Panel(
            "Tokens a second",
            "Real tokens over all workers; padding is not counted.",
            "short",
            (_of_run("training_tokens_per_second", "{{run}}"),),
        ),
        Panel("Workers", "That train at present.", "short", (_of_run("training_workers", "{{run}}"),)),
        Panel(
            "Lost time",
            "Shares of a step: waiting for rows, standing still for a checkpoint; and of padding.",
            "percentunit",
            (
                _of_run("training_data_wait_share", "{{run}} rows"),
                _of_run("training_checkpoint_blocked_share", "{{run}} checkpoint"),
                _of_run("training_padding_share", "{{run}} padding"),
            ),
        ),
        Panel(
            "Since the last step",
            "A step or a validation; grows where the training stands still.",
            "s",
            (_age("training_last_step", "training"),),
        ),
        Panel(
            "Age of the newest checkpoint",
            "What would be lost with all workers at once.",
            "s",
            (_age("training_checkpoint", "training"),),
        ),
        Panel(
            "Steps",
            "Done, saved, and planned.",
            "short",
            (
                _of_run("training_step", "{{run}} done"),
                _of_run("training_checkpoint_step", "{{run}} saved"),
                _of_run("training_planned_steps", "{{run}} planned"),
            ),
        ),
        Panel(
            "Steps that are no number",
            "Loss or gradient was infinite or NaN: the training ends with it.",
            "short",
            (_of_run("training_non_finite_steps", "{{run}}"),),
        ),
        Panel(
            "Memory of rank 0",
            "Resident on the host, and the peak on its GPU.",
            "gbytes",
            (
                _of_run("training_host_memory_gib", "{{run}} host"),
                _of_run("training_device_memory_gib", "{{run}} GPU"),
            ),
        ),
        Panel(
            "Use of the GPUs' arithmetic",
            "Absent where it is not known.",
            "percentunit",
            (_of_run("training_model_flops_utilisation", "{{run}}"),),
        ),
    ),
)

EVALUATION = Row(
    "Evaluation",
    (
        Panel(
            "Items",
            "All of them, and those that are done.",
            "short",
            (_of_run("evaluation_items", "{{run}} {{state}}", "run, state"),),
        ),
        Panel(
            "Grades by verdict",
            "All but the judged ones are missing in the scores.",
            "short",
            (_of_run("evaluation_grades", "{{run}} {{verdict}}", "run, verdict"),),
            is_stacked=True,
        ),
        Panel(
            "Answers",
            "That came, and that failed.",
            "short",
            (_of_run("evaluation_answers", "{{run}} {{state}}", "run, state"),),
            is_stacked=True,
        ),
        Panel(
            "Calls a second",
            "Answered calls, by model and judge.",
            "reqps",
            (_rate("evaluation_calls", "{{run}} {{seat}}", "run, seat"),),
        ),
        Panel(
            "Money",
            "Spent, and the budget, by model and judge; and of all together under evaluation.budget_usd.",
            "currencyUSD",
            (
                _of_run("evaluation_cost_usd", "{{run}} {{seat}} spent", "run, seat"),
                _of_run("evaluation_budget_usd", "{{run}} {{seat}} budget", "run, seat"),
                _of_run("evaluation_purse_settled_usd", "{{run}} all spent"),
                _of_run("evaluation_purse_unsettled_usd", "{{run}} all unsettled"),
                _of_run("evaluation_purse_budget_usd", "{{run}} all budget"),
            ),
        ),
        Panel(
            "Since the last item",
            "Grows where nothing is finished any more.",
            "s",
            (_age("evaluation_last_item", "evaluation"),),
        ),
    ),
)

SERVING = Row(
    "Serving",
    (
        Panel(
            "Healthy replicas",
            "As Ray Serve counts them.",
            "short",
            (
                Query(
                    "sum by (application, deployment) (ray_serve_deployment_replica_healthy)",
                    "{{application}} {{deployment}}",
                ),
            ),
        ),
        Panel(
            "Requests admitted",
            "Requests that got a place, or a place in the queue.",
            "reqps",
            (_served_rate("admitted_requests", "{{model}}"),),
            is_stacked=True,
        ),
        Panel(
            "Requests refused, by reason",
            "capacity, deadline and draining are the replica's; key_… are limits of a key; key and scope are "
            "refused callers.",
            "reqps",
            (_served_rate("refused_requests", "{{reason}}", "reason"),),
            is_stacked=True,
        ),
        Panel(
            "Time to first token",
            "From a request's first byte to its first token.",
            "s",
            _quantiles("first_token_seconds"),
        ),
        Panel(
            "Time per output token",
            "Per token after the first of an answer.",
            "s",
            _quantiles("token_seconds"),
        ),
        Panel(
            "Time in the queue",
            "From admission to a place at the engine.",
            "s",
            _quantiles("queue_seconds"),
        ),
        Panel(
            "Tokens a second",
            "Tokens of answers, and of admitted prompts.",
            "short",
            (
                _served_rate("completion_tokens", "{{model}} made"),
                _served_rate("prompt_tokens", "{{model}} read"),
            ),
        ),
        Panel(
            "Running and waiting",
            "Requests with a place at an engine, and admitted ones that wait for it.",
            "short",
            (
                _served("running_requests", "{{model}} running"),
                _served("waiting_requests", "{{model}} waiting"),
            ),
        ),
        Panel(
            "Cache in use",
            "The fullest replica's share of its cache of keys and values.",
            "percentunit",
            (_served("cache_use", "{{model}}", "max"),),
        ),
        Panel(
            "Expected wait",
            "How long one more request would wait for its place; replicas are added by it.",
            "s",
            (_served("expected_wait_seconds", "{{model}}", "max"),),
        ),
        Panel(
            "Tokens held",
            "Prompts and longest answers of all admitted requests.",
            "short",
            (_served("held_tokens", "{{model}}"),),
        ),
        Panel(
            "Answers by status",
            "Every request that ended, open routes not counted.",
            "reqps",
            (_served_rate("http_requests", "{{status}}", "status"),),
            is_stacked=True,
        ),
        Panel(
            "Audit lines lost",
            "Lines that could not be written to serving.audit: anything above 0 wants a look.",
            "short",
            (
                Query(
                    "sum (increase(ray_asclepius_serving_audit_lines_lost_total[$__rate_interval]))", "lost"
                ),
            ),
        ),
    ),
)

ROWS = (OVERVIEW, SYNTHESIS, TRAINING, EVALUATION, SERVING)
