"""The plan of the synthesis with Ray Data's own guard left in force, where no teacher answers."""

import sys

from ray.data.exceptions import ExecutionTimeoutError
from rich.console import Console

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.config import OFFLINE_MODEL
from asclepius_ray.chat.endpoint import Endpoint
from asclepius_ray.progress import Progress
from asclepius_ray.ray_session import ray_session
from asclepius_ray.synthesis.config import InputConfig
from asclepius_ray.synthesis.desk_actor import open_desk
from asclepius_ray.synthesis.reports import load_reports
from asclepius_ray.synthesis.steps import Demands
from asclepius_ray.synthesis.walk import Walk
from asclepius_ray.synthesis.workers import Crew, RowWalker, _map_options

NUM_ROWS = 40
NUM_WORKERS = 2


def walk(root: Folder, reports: str, base_url: str) -> None:
    endpoint = Endpoint(base_url, OFFLINE_MODEL, is_offline=True)
    found = load_reports(InputConfig(path=reports, limit=NUM_ROWS), NUM_WORKERS, NUM_ROWS)
    rows = Walk(endpoint, seed=0, demands=Demands(30), text_is_note=False, pilot_rows=NUM_ROWS)
    with open_desk(root.child("journal"), endpoint) as desk:
        options = _map_options(Crew(rows, desk, root), NUM_WORKERS, len(found.blocks))
        plan = found.blocks.dataset().map_batches(RowWalker, **options)
        for _block in plan.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            pass


if __name__ == "__main__":
    with Progress(Console(quiet=True)) as progress, ray_session(progress):
        try:
            walk(Folder(sys.argv[1]), *sys.argv[2:])
        except ExecutionTimeoutError:
            sys.stdout.write("the guard has ended it\n")
