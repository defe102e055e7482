"""Values → markup: one environment for both pages, with every value escaped, and how figures are written."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined

UNKNOWN, NOT_AVAILABLE = "unknown", "not available"
MINUS = "\u2212"


def render(template: str, values: Mapping[str, Any]) -> str:
    """The page of one template file; every value is escaped, as notes and answers may hold anything."""
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(_read_template),
    )
    environment.filters.update(
        count=format_count,
        figure=format_figure,
        percent=format_percent,
        usd=format_usd,
        duration=format_duration,
        reasons=format_reasons,
        interval=format_interval,
        probability=format_probability,
    )
    return environment.get_template(template).render(values)


def format_count(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:,.0f}"


def format_figure(value: float | None, digits: int = 2) -> str:
    return NOT_AVAILABLE if value is None else f"{value:.{digits}f}".replace("-", MINUS)


def format_interval(values: Mapping[str, Any] | None, digits: int = 2) -> str:
    """ "low to high"; where fewer than two notes stand behind a figure there is none."""
    if values is None or values["low"] is None or values["high"] is None:
        return NOT_AVAILABLE
    return f"{format_figure(values['low'], digits)} to {format_figure(values['high'], digits)}"


def format_percent(share: float | None) -> str:
    return NOT_AVAILABLE if share is None else f"{100 * share:.1f} %"


def format_probability(value: float | None) -> str:
    """Three digits: a smaller one depends on how often was resampled, not on the data."""
    if value is None:
        return NOT_AVAILABLE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def format_usd(value: float | None) -> str:
    """Unknown is not nothing: a run without a price list says so."""
    if value is None:
        return UNKNOWN
    return f"USD {value:,.2f}" if value >= 1 else f"USD {value:.4f}"


def format_duration(seconds: float | None) -> str:
    if seconds is None:
        return UNKNOWN
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def format_reasons(reasons: Mapping[str, int]) -> str:
    parts: Sequence[str] = [f"{reason.replace('_', ' ')} {count}" for reason, count in reasons.items()]
    return ", ".join(parts) or "none"


def _read_template(name: str) -> str:
    return files("asclepius_ray.report").joinpath(name).read_text(encoding="utf-8")
