"""Asking the clinical route of a served model: a note and a question → the answer, whole or as it grows."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx

from asclepius_ray.chat.endpoint import check_key, is_private
from asclepius_ray.errors import ConfigError, EndpointError

TIMEOUT_SECONDS = 300.0
_ERROR_CODE = re.compile(r"[a-z][a-z_]{0,63}")
_EVENT = "data: "


@dataclass(frozen=True)
class ClinicalQuestion:
    """A note with what is asked about it: a question, or a task and so the server's question for it."""

    note: str
    question: str = ""
    task: str = ""
    model: str = ""
    """Empty = the model that the address serves, where it serves one."""

    def body(self) -> dict[str, str]:
        fields = {"note": self.note, "question": self.question, "task": self.task, "model": self.model}
        return {name: value for name, value in fields.items() if value or name == "note"}


@dataclass(frozen=True)
class ClinicalAnswer:
    """A finished answer: its text, what it cost, and where in the note it leans."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    total_seconds: float
    note_was_shortened: bool
    passages: tuple[tuple[int, int], ...]
    """Character ranges of the note, [start, end)."""


def ask_clinical(base_url: str, api_key: str, note: str, question: str) -> str:
    """The answer of POST {base_url}/clinical/answers; an EndpointError without a word of note or question."""
    url = _clinical_url(base_url, api_key)
    try:
        with _client(base_url, api_key) as client:
            response = client.post(url, json=ClinicalQuestion(note, question).body())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(url, error) from None
    _check_status(response, url)
    return _read_answer(response, url)


def stream_clinical(base_url: str, api_key: str, asked: ClinicalQuestion) -> Iterator[str | ClinicalAnswer]:
    """Yields the answer's text in pieces as they come, and the whole ClinicalAnswer at last.

    Raises an EndpointError where the server refuses, fails on the way or ends before the answer does.
    """
    url = _clinical_url(base_url, api_key)
    try:
        with (
            _client(base_url, api_key) as client,
            client.stream("POST", url, json=asked.body() | {"stream": True}) as response,
        ):
            if response.status_code != 200:
                response.read()
            _check_status(response, url)
            yield from _read_events(response, url)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise _unreachable(url, error) from None


def _read_events(response: httpx.Response, url: str) -> Iterator[str | ClinicalAnswer]:
    for line in response.iter_lines():
        if not line.startswith(_EVENT):
            continue
        event = _parse(line.removeprefix(_EVENT), url)
        if "error" in event:
            raise EndpointError(f"{url} failed while it answered{_code(event)}; ask again")
        if event.get("type") == "answer.delta":
            yield str(event.get("delta", ""))
        elif event.get("type") == "answer.done":
            yield _finished(event, url)
            return
    raise EndpointError(f"{url} ended before the answer did; is its replica gone? Ask again")


def _finished(event: dict[str, Any], url: str) -> ClinicalAnswer:
    try:
        return ClinicalAnswer(
            text=str(event["answer"]),
            prompt_tokens=int(event["usage"]["prompt_tokens"]),
            completion_tokens=int(event["usage"]["completion_tokens"]),
            total_seconds=float(event["seconds"]["total"]),
            note_was_shortened=bool(event["note_was_shortened"]),
            passages=tuple((int(each["start"]), int(each["end"])) for each in event["passages"]),
        )
    except (KeyError, TypeError, ValueError):
        raise _not_ours(url) from None


def _client(base_url: str, api_key: str) -> httpx.Client:
    return httpx.Client(
        headers={"Authorization": f"Bearer {api_key}"},
        timeout=TIMEOUT_SECONDS,
        # A proxy of the environment gets no note that stays in the house.
        trust_env=not is_private(base_url),
        verify=httpx.create_ssl_context(),
    )


def _clinical_url(base_url: str, api_key: str) -> str:
    check_key(api_key)
    if "@" in base_url:
        raise ConfigError("the address holds an @, as where a password stands before the host; take it out")
    return f"{base_url.rstrip('/')}/clinical/answers"


def _check_status(response: httpx.Response, url: str) -> None:
    if response.status_code in (401, 403):
        raise EndpointError(f"{url} refuses the key; set the variable that holds it to the server's key")
    if response.status_code != 200:
        # The server's own words are not repeated: one that is none of ours might quote the note.
        try:
            found = response.json()
        except ValueError:
            found = None
        code = _code(found) if isinstance(found, dict) else ""
        retry = response.headers.get("retry-after", "")
        wait = f"; ask again in {retry} s" if retry.isascii() and retry.isdigit() else ""
        raise EndpointError(f"{url} answered with HTTP status {response.status_code}{code}{wait}")


def _code(body: dict[str, Any]) -> str:
    error = body.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return f" ({code})" if isinstance(code, str) and _ERROR_CODE.fullmatch(code) else ""


def _read_answer(response: httpx.Response, url: str) -> str:
    answer = _parse(response.content, url).get("answer")
    if not isinstance(answer, str):
        raise _not_ours(url)
    return answer


def _parse(text: str | bytes, url: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _not_ours(url)
    return document


def _unreachable(url: str, error: Exception) -> EndpointError:
    return EndpointError(
        f"{url} cannot be reached ({type(error).__name__}); is the model served, and at this address?"
    )


def _not_ours(url: str) -> EndpointError:
    return EndpointError(
        f"{url} does not answer as a served model does; is it the address of another server?"
    )
