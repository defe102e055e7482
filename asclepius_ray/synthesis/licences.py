"""The input's tables → the licence of their texts, as far as a table shows whose it is."""

import re
from dataclasses import dataclass

from asclepius_ray.synthesis.config import InputConfig
from asclepius_ray.synthesis.mimic import noteevents_columns
from asclepius_ray.tables.files import Table, find_tables
from asclepius_ray.tables.rows import column_names, read_rows

_PMC_PATIENTS_COLUMNS = {"patient_id", "patient_uid", "PMID", "file_path", "title"}
_PMC_FILE = re.compile(r"PMC\d+\.xml$")


@dataclass(frozen=True)
class Licence:
    """`id` is what a card gives in its head; `terms` say what follows for all that is made of the texts."""

    id: str
    name: str
    terms: str


PMC_PATIENTS = Licence(
    "cc-by-nc-sa-4.0",
    "CC BY-NC-SA 4.0 (PMC-Patients)",
    "What is made of them is under the same licence: name the source, no commercial use, pass it on under "
    "the same licence.",
)
MIMIC = Licence(
    "other",
    "PhysioNet Credentialed Health Data License (MIMIC-III)",
    "Nobody may have its notes, nor what may hold parts of them, who has not agreed to that licence.",
)
UNKNOWN = Licence(
    "unknown",
    "unknown",
    "The source's table does not tell its licence, and input.licence was not set: find out before you pass "
    "on what is made of it.",
)


def licence_of_input(config: InputConfig) -> Licence:
    """The licence that the run file states, or that of tables that are known, or `UNKNOWN`."""
    if config.licence:
        return Licence("other", config.licence, "What is made of the texts is under their licence too.")
    found = {_licence_of(table) for table in find_tables(config.path, "input.path")}
    return found.pop() if len(found) == 1 else UNKNOWN


def _licence_of(table: Table) -> Licence:
    names = column_names(table)
    if set(names) >= _PMC_PATIENTS_COLUMNS:
        # The reports of the quickstart have the columns too.
        first = next((row for row in read_rows(table, ["file_path"]) if row is not None), {})
        return PMC_PATIENTS if _PMC_FILE.search(str(first.get("file_path"))) else UNKNOWN
    return MIMIC if noteevents_columns(names) else UNKNOWN
