"""Whether a card says what whoever takes the files must know. Pure."""

import re

import yaml
from huggingface_hub import RepoCard

from asclepius_ray.errors import PublishError

LICENCE_OF_PMC_PATIENTS = "CC BY-NC-SA 4.0"
_SOURCE = re.compile(r"^\W*sources?\b[^\n:]*:\W*\w", re.IGNORECASE | re.MULTILINE)
_PMC_PATIENTS = re.compile(r"pmc[-_ ]?patients", re.IGNORECASE)
_FRONT_MATTER = re.compile(r"\A---\r?\n.*?\n---\r?\n", re.DOTALL)


def check_card(text: str, where: str, teacher: str) -> None:
    """A PublishError names all that the card does not say: source, licence, teacher or limits of use.

    `teacher`: the name of the model that wrote the texts.
    """
    card = _read(text, where)
    missing = []
    if not _SOURCE.search(card.text):
        missing.append("the source (a line `Source: …`)")
    if not (_licence(card) and _section(card.text, "licen[cs]e")):
        missing.append("the licence (`license:` in its head, and a section on it)")
    elif _PMC_PATIENTS.search(card.text) and LICENCE_OF_PMC_PATIENTS not in card.text:
        missing.append(
            f"the licence of PMC-Patients, {LICENCE_OF_PMC_PATIENTS}, which what is made of it has"
        )
    if not teacher or teacher not in card.text:
        missing.append(f"the teacher ({teacher or 'its name is in no manifest'})")
    if not _section(card.text, "limits?"):
        missing.append("the limits of use (a section with `limits` in its heading)")
    if missing:
        raise PublishError(
            f"{where} does not name {', nor '.join(missing)}; nobody could tell what the files are and may "
            "be used for: make it anew with this version (--redo)"
        )


def _read(text: str, where: str) -> RepoCard:
    if not _FRONT_MATTER.match(text):
        raise PublishError(
            f"{where} has no head between two lines `---`, where the hub reads the licence; make it anew "
            "with this version (--redo)"
        )
    try:
        return RepoCard(text)
    except (ValueError, yaml.YAMLError):
        raise PublishError(f"{where}: its head between the lines `---` is not readable YAML") from None


def _licence(card: RepoCard) -> str:
    return str(getattr(card.data, "license", None) or "")


def _section(text: str, word: str) -> str:
    """What stands under the first heading with this word, "" where there is none or nothing stands there."""
    found = re.search(rf"^#+ [^\n]*\b{word}\b[^\n]*\n(.*?)(?=^#+ |\Z)", text, re.I | re.M | re.S)
    return found.group(1).strip() if found else ""
