"""What fits into no context is refused before its parts are looked at one by one."""

from typing import Any

import pytest
from served_models import CONTEXT_TOKENS
from surfaces import CHAT, COMPLETIONS, Surface

from asclepius_ray.serving.surface.body_checks import MOST_PROBLEMS
from asclepius_ray.serving.surface.size_checks import CHARACTERS_A_TOKEN

TOO_MANY = CONTEXT_TOKENS + 1
TOO_LONG = "no " * (CHARACTERS_A_TOKEN * CONTEXT_TOKENS // 3 + 1)
# Each item is wrong too, so that an error about the item would say that it has been looked at.
TOO_LARGE: dict[str, tuple[str, dict[str, Any], str]] = {
    "messages": (CHAT, {"messages": [{}] * TOO_MANY}, "messages"),
    "parts": (CHAT, {"messages": [{"role": "user", "content": [{}] * TOO_MANY}]}, "messages"),
    "characters of a chat": (CHAT, {"messages": [{"role": "user", "content": TOO_LONG}]}, "messages"),
    "ids": (COMPLETIONS, {"prompt": [-1] * TOO_MANY}, "prompt"),
    "no ids": (COMPLETIONS, {"prompt": [None] * TOO_MANY}, "prompt"),
    "ids of one of several": (COMPLETIONS, {"prompt": [[5], [-1] * TOO_MANY]}, "prompt"),
    "characters of a prompt": (COMPLETIONS, {"prompt": ["short", TOO_LONG]}, "prompt"),
}


@pytest.mark.parametrize(("path", "values", "param"), TOO_LARGE.values(), ids=TOO_LARGE.keys())
def test_too_many_parts_are_refused_by_their_number_alone(
    surface: Surface, path: str, values: dict[str, Any], param: str
) -> None:
    refused = surface.post(path, {"model": "trained", **values})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", param)
    assert "at most" in error["message"]


def test_a_body_of_countless_errors_is_refused_without_naming_each(surface: Surface) -> None:
    message = {f"odd{number}": 1 for number in range(MOST_PROBLEMS)}
    refused = surface.post(CHAT, {"model": "trained", "messages": [message]})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "invalid_value", None)
    assert str(MOST_PROBLEMS) in error["message"]
