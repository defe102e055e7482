"""`asclepius estimate`: what a run costs, from a sample that is asked or from sizes that are given."""

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from asclepius_ray.errors import ConfigError

if TYPE_CHECKING:
    from asclepius_ray.costs.sizes import KeptRows, Sizes
    from asclepius_ray.evaluation.estimate import RoleEstimate
    from asclepius_ray.run import Run

DEFAULT_ROWS = 20
output = Console(markup=False)


def estimate(  # noqa: PLR0913  # each is an option of the command
    run_file: Annotated[
        str, typer.Argument(metavar="RUN.toml", help="The run file; jobs/runs/ holds examples.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="a.b=c", help="Changes one setting; may be repeated.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help=f"How many rows are asked; {DEFAULT_ROWS} by default.")
    ] = None,
    sizes: Annotated[
        str, typer.Option(metavar="FILE", help="Asks nobody: rows and lengths as in this file.")
    ] = "",
    gpu: Annotated[
        str,
        typer.Option(
            metavar="NAME=USD", help="Reckons training and serving too: a GPU, and an hour's price of one."
        ),
    ] = "",
    utilisation: Annotated[
        float | None,
        typer.Option(min=0.01, max=1, help="Share of the GPU's peak in training; 0.3 by default."),
    ] = None,
    serving_hours: Annotated[
        float | None, typer.Option(min=0, help="How long the model is served; 730, a month, by default.")
    ] = None,
    tokens_per_second: Annotated[
        float | None, typer.Option(min=0.001, help="What one replica answers: tells the price of a token.")
    ] = None,
) -> None:
    """Tells what synthesis, evaluation, training and serving will cost; asks the teacher for a few rows."""
    from asclepius_ray.costs.gpus import read_gpu_plan
    from asclepius_ray.costs.sizes import load_sizes
    from asclepius_ray.costs.telling import tell_gpus
    from asclepius_ray.run import load_run

    settings = load_run(run_file, overrides)
    plan = read_gpu_plan(gpu, utilisation, serving_hours, tokens_per_second)
    if sizes and rows is not None:
        raise ConfigError("--rows are asked, and with --sizes nobody is: leave one of them out")
    kept = _plan(settings, load_sizes(sizes)) if sizes else _ask_sample(settings, rows or DEFAULT_ROWS)
    if plan is not None:
        for line in tell_gpus(settings, kept, plan):
            output.print(line, highlight=False, soft_wrap=True)


def _plan(run: "Run", sizes: "Sizes") -> "KeptRows":
    """Prints what is to be asked for an input of these sizes."""
    from asclepius_ray.costs.synthesis import plan_synthesis
    from asclepius_ray.evaluation.estimate import AskedTexts
    from asclepius_ray.pipeline import estimate_evaluation_of
    from asclepius_ray.summary import print_role_estimates

    sizes = sizes.limited(run.input.limit)
    made = AskedTexts(sizes.rows, sizes.note_characters, sizes.question_characters)
    steps = plan_synthesis(sizes, run.teacher, has_notes=run.input.kind == "notes")
    teacher_budget = ("teacher.budget_usd", run.teacher.budget_usd)
    print_role_estimates(output, "synthesis", steps, teacher_budget, is_most=False)
    _print_evaluation(run, estimate_evaluation_of(run, made))
    return sizes.kept


def _ask_sample(run: "Run", num_rows: int) -> "KeptRows | None":
    """Prints what a sample says of the whole; None where the run has no synthesis."""
    from asclepius_ray.costs.sizes import kept_rows
    from asclepius_ray.pipeline import estimate as estimate_run
    from asclepius_ray.progress import Progress
    from asclepius_ray.summary import print_estimate

    with Progress() as progress:
        synthesis, evaluation = estimate_run(run, num_rows, progress)
    if synthesis is not None:
        print_estimate(output, run, synthesis)
    _print_evaluation(run, evaluation)
    return None if synthesis is None else kept_rows(synthesis)


def _print_evaluation(run: "Run", roles: "list[RoleEstimate]") -> None:
    from asclepius_ray.summary import print_role_estimates

    budget = ("evaluation.budget_usd", run.evaluation.budget_usd)
    print_role_estimates(output, "evaluation", roles, budget, is_most=True)
