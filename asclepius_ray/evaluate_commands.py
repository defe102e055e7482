"""`asclepius evaluate`: sheets for clinicians, and what the filled ones say."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from asclepius_ray.evaluation.sheets.writing import Written

Root = Annotated[str, typer.Argument(metavar="ROOT", help="The run's folder or URI.")]
output = Console(markup=False, highlight=False)


def sheet(  # noqa: PLR0913  # each is an option of the command
    root: Root,
    raters: Annotated[str, typer.Option(metavar="NAME,NAME…", help="Who grades; each gets a sheet.")],
    items: Annotated[int, typer.Option(min=1, help="How many items are drawn in all.")],
    overlap: Annotated[
        float, typer.Option(min=0, max=1, help="The share of the items that every rater grades, 0 to 1.")
    ],
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where the sheets and the key are written.")],
    seed: Annotated[int, typer.Option(help="The same seed draws the same sheets.")] = 0,
    models: Annotated[
        str, typer.Option(metavar="NAME,NAME…", help="Whose answers are graded; by default all.")
    ] = "",
    unanswerable: Annotated[
        bool, typer.Option("--unanswerable", help="Draws also from the items that are to be declined.")
    ] = False,
) -> None:
    """Writes a blinded sheet for each rater, as a page that works offline and as a CSV, and their key."""
    from asclepius_ray.artifacts import Folder
    from asclepius_ray.evaluation.sheets.assignment import Drawing
    from asclepius_ray.evaluation.sheets.writing import SheetOrder, write_sheets

    drawing = Drawing(_names_in(raters), items, overlap, seed)
    order = SheetOrder(drawing, _names_in(models), unanswerable)
    folder = Folder(out).absolute()
    written = write_sheets(Folder(root).absolute(), order, folder)
    for line in _describe(written, folder.shown):
        output.print(line, soft_wrap=True)


def _names_in(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _describe(written: "Written", folder: str) -> list[str]:
    lines = [f"sheet {written.key.sheet} in {folder}; {written.num_shared} items go to every rater"]
    for rater, items in written.key.assignment.items():
        answers = len(written.key.answers_of(rater))
        lines.append(f"sheet-{rater}.html and sheet-{rater}.csv: {len(items)} items, {answers} answers")
    for model, count in written.missing.items():
        lines.append(f"{model}: no answer came to {count} of the items, which show the other models' alone")
    if written.num_long_notes:
        lines.append(
            f"{written.num_long_notes} notes are longer than a cell of a spreadsheet: grade them on the page"
        )
    lines.append("key.json tells which answer is whose: keep it from the raters until all have graded")
    return lines


def agreement(
    root: Root,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="What the raters gave back: JSON or CSV.")
    ],
    key: Annotated[Path, typer.Option(metavar="key.json", help="The key of the sheets.")],
) -> None:
    """Says what the raters found, and how well they agree with each other and with the judges."""
    from asclepius_ray.artifacts import Folder
    from asclepius_ray.evaluation.sheets.comparing import AGREEMENT_NAME, LATEX_NAME, compare_sheets
    from asclepius_ray.evaluation.sheets.results import describe_figures
    from asclepius_ray.report.evaluation_artefacts import SCORES_NAME
    from asclepius_ray.report.evaluation_page import write_evaluation_page

    folder = Folder(root).absolute()
    for line in describe_figures(compare_sheets(folder, files, key)):
        output.print(line, soft_wrap=True)
    evaluation = folder.child("evaluation")
    output.print(f"written: {evaluation.shown}/{AGREEMENT_NAME} and {LATEX_NAME} beside it", soft_wrap=True)
    if evaluation.exists(SCORES_NAME):
        page, *_ = write_evaluation_page(folder)
        output.print(f"shown on {page}", soft_wrap=True)


HELP = "Sheets for clinicians, and what the filled ones say; the evaluation itself is `run evaluate`."
COMMANDS: dict[str, Callable[..., None]] = {"sheet": sheet, "agreement": agreement}
