"""A sheet as one page that fetches nothing, works from a disk and keeps its state in the browser."""

import base64
import hashlib
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from asclepius_ray.evaluation.sheets.content import SCALE, Sheet


def render_page(sheet: Sheet) -> bytes:
    """The page; every text is escaped, and nothing but its own script and style may run in it."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    script, style = _text_of("sheet.js"), _text_of("sheet.css")
    page = environment.from_string(_text_of("sheet.html.jinja")).render(
        sheet=sheet,
        scale=SCALE,
        # Ours, and the same in every sheet.
        script=Markup(script),
        style=Markup(style),
        script_hash=_hash_of(script),
        style_hash=_hash_of(style),
        num_answers=sum(len(item.answers) for item in sheet.items),
    )
    return page.encode()


def _text_of(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash_of(text: str) -> str:
    """As a content security policy names an inline script."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
