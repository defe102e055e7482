"""Which column of a table holds what: the usual names, or those of `[input.columns]`."""

from collections.abc import Sequence
from dataclasses import dataclass

from asclepius_ray.errors import InputError
from asclepius_ray.synthesis.config import InputConfig
from asclepius_ray.synthesis.mimic import DISCHARGE_SUMMARY, noteevents_columns
from asclepius_ray.tables.cells import show_names

# In the order in which they are tried; a table of notes may use `patient` for a name.
_TEXT_NAMES = {"case_reports": ("patient", "text"), "notes": ("note", "text", "patient")}
_OPTIONAL = ("patient_id", "age", "gender")


@dataclass(frozen=True)
class Columns:
    """The names that one table uses; an empty one is not in the table."""

    text: str
    patient_uid: str
    patient_id: str
    age: str
    gender: str
    note_id: str = ""
    """This one and those below are in MIMIC-III's NOTEEVENTS alone."""
    category: str = ""
    is_error: str = ""

    @property
    def is_noteevents(self) -> bool:
        return bool(self.category)

    @property
    def names(self) -> list[str]:
        """Every column that is read, each once."""
        usual = (self.text, self.patient_uid, self.patient_id, self.age, self.gender)
        every = (*usual, self.note_id, self.category, self.is_error)
        return list(dict.fromkeys(name for name in every if name))


def resolve_columns(found: Sequence[str], config: InputConfig, where: str) -> Columns:
    """Finds the columns of the table `where`; an InputError names those found and those expected."""
    mapped = _mapped_columns(found, config, where)
    noteevents = noteevents_columns(found) if config.kind == "notes" else {}
    if config.note_category not in ("", DISCHARGE_SUMMARY) and not noteevents:
        raise InputError(
            f"input.note_category is {config.note_category!r}, but {where} is no table of notes "
            "in the layout of MIMIC-III's NOTEEVENTS; leave it out"
        )
    columns = _noteevents(noteevents, mapped) if noteevents else _usual(found, mapped, config, where)
    for name in columns.names:
        if list(found).count(name) > 1:
            raise InputError(f"{where} has more than one column {name!r}; rename all but the one to read")
    return columns


def _usual(found: Sequence[str], mapped: dict[str, str], config: InputConfig, where: str) -> Columns:
    text_names = _TEXT_NAMES[config.kind]
    text = mapped.get("text") or next((name for name in text_names if name in found), "")
    uid = mapped.get("patient_uid") or ("patient_uid" if "patient_uid" in found else "")
    if not text or (not uid and config.kind == "case_reports"):
        raise InputError(_refusal(found, config, where, missing_text=not text))
    optional = {name: mapped.get(name) or (name if name in found else "") for name in _OPTIONAL}
    return Columns(text=text, patient_uid=uid, **optional)


def _noteevents(names: dict[str, str], mapped: dict[str, str]) -> Columns:
    return Columns(
        text=mapped.get("text") or names["text"],
        patient_uid=mapped.get("patient_uid", ""),
        patient_id=mapped.get("patient_id") or names["subject_id"],
        age=mapped.get("age", ""),
        gender=mapped.get("gender", ""),
        note_id=names.get("row_id", ""),
        category=names["category"],
        is_error=names.get("iserror", ""),
    )


def _mapped_columns(found: Sequence[str], config: InputConfig, where: str) -> dict[str, str]:
    mapped = {field: name for field, name in config.columns.model_dump().items() if name}
    for field, name in mapped.items():
        if name not in found:
            raise InputError(
                f"input.columns.{field} names the column {name!r}, but {where} has {show_names(found)}; "
                "correct the name in [input.columns]"
            )
    return mapped


def _refusal(found: Sequence[str], config: InputConfig, where: str, missing_text: bool) -> str:
    names = " or ".join(f"`{name}`" for name in _TEXT_NAMES[config.kind])
    expected = f"the text in {names}"
    if config.kind == "case_reports":
        expected += " and a key of the patient in `patient_uid`, as PMC-Patients has them"
    field = "text" if missing_text else "patient_uid"
    return (
        f"{where} has other columns than expected: found {show_names(found)}; expected {expected}. "
        f'Name your own in [input.columns], for example {field} = "my_column"'
    )
