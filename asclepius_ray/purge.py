"""A run's root → the same root without the texts that nothing needs any more; every figure stays.

What goes: the journal (requests' answers), the question pool, the examples of the report, the question asked
at the end, and what clinicians' sheets said, which names people: `asclepius evaluate agreement` reads them
anew. What stays: the notes, the dataset and the models' answers, which are what the run was for, the list of
rejected rows, which holds ids and reasons alone, and all manifests. A mark in the evaluation keeps its texts
off every page that is written later.
"""

import json
import time

from asclepius_ray.artifacts import Folder
from asclepius_ray.chat.purse import MARK_NAME
from asclepius_ray.errors import ConfigError
from asclepius_ray.evaluation.asking import JOURNALS_NAME
from asclepius_ray.evaluation.sheets.comparing import AGREEMENT_NAME, LATEX_NAME
from asclepius_ray.fingerprints import EVALUATE, SYNTHESIZE
from asclepius_ray.lease import acquire, forget_the_dead
from asclepius_ray.pipeline import ASKED_NAME
from asclepius_ray.report.evaluation_artefacts import PURGED_NAME
from asclepius_ray.report.page import write_report
from asclepius_ray.synthesis.question_pool import FOLDER_NAME
from asclepius_ray.synthesis.stage import EXAMPLES_NAME, JOURNAL_NAME


def purge(root: Folder) -> int:
    """Removes the texts and writes the report anew; returns how many files went.

    Raises a ConfigError where the stage of a journal is not finished: what is in it is paid for, and not yet
    anywhere else. Raises a LeaseError while a job is at work.
    """
    if not root.exists("run.json"):
        raise ConfigError(f"{root.shown} is not the folder of a run: it has no run.json")
    for stage, journal, artefact in (
        (SYNTHESIZE, JOURNAL_NAME, "dataset"),
        (EVALUATE, JOURNALS_NAME, "evaluation"),
    ):
        if stage.finished(root) is None and root.child(journal).names():
            raise ConfigError(
                f"{root.shown} holds no finished {artefact}, and its journal is paid for: finish the job "
                f"{stage.name} first, or remove the folder if nothing of it is wanted"
            )
    lease = acquire(root, "purge")
    try:
        if EVALUATE.finished(root) is not None:
            # First: a purge that is killed half-way leaves no page that shows what is to go.
            mark = json.dumps({"purged_unix": time.time()})
            root.child("evaluation").write_bytes(PURGED_NAME, mark.encode())
        num_removed = _remove_texts(root)
        forget_the_dead(root)
        write_report(root)
    finally:
        lease.release(0)
    return num_removed


def _remove_texts(root: Folder) -> int:
    pool, evaluation = root.child(FOLDER_NAME), root.child("evaluation")
    num_removed = len(pool.names())
    for journal in (root.child(JOURNAL_NAME), root.child(JOURNALS_NAME)):
        # The mark of the budget holds a sum alone, and keeps a later run on this root under the cap.
        doomed = [name for name in journal.names() if name.rpartition("/")[2] != MARK_NAME]
        journal.delete_all(doomed)
        num_removed += len(doomed)
    pool.clear()
    small = {evaluation: (ASKED_NAME, AGREEMENT_NAME, LATEX_NAME), root.child("notes"): (EXAMPLES_NAME,)}
    for folder, names in small.items():
        there = [name for name in names if folder.exists(name)]
        folder.delete_all(there)
        num_removed += len(there)
    return num_removed
