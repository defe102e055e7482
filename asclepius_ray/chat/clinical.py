"""Asking the clinical route of a served model: a note and a question → the answer."""

import httpx

from asclepius_ray.chat.endpoint import check_key, is_private
from asclepius_ray.errors import ConfigError, EndpointError

TIMEOUT_SECONDS = 300.0


def ask_clinical(base_url: str, api_key: str, note: str, question: str) -> str:
    """The answer of POST {base_url}/clinical/answers; an EndpointError without a word of note or question."""
    url = f"{base_url.rstrip('/')}/clinical/answers"
    check_key(api_key)
    if "@" in base_url:
        raise ConfigError("the address holds an @, as where a password stands before the host; take it out")
    try:
        response = httpx.post(
            url,
            json={"note": note, "question": question},
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=TIMEOUT_SECONDS,
            # A proxy of the environment gets no note that stays in the house.
            trust_env=not is_private(base_url),
            verify=httpx.create_ssl_context(),
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise EndpointError(
            f"{url} cannot be reached ({type(error).__name__}); is the model served, and at this address?"
        ) from None
    if response.status_code in (401, 403):
        raise EndpointError(f"{url} refuses the key; set the variable that holds it to the server's key")
    if response.status_code != 200:
        raise EndpointError(f"{url} answered with HTTP status {response.status_code}")
    return _read_answer(response, url)


def _read_answer(response: httpx.Response, url: str) -> str:
    try:
        document = response.json()
    except ValueError:
        document = None
    answer = document.get("answer") if isinstance(document, dict) else None
    if not isinstance(answer, str):
        raise EndpointError(
            f"{url} does not answer as a served model does; is it the address of another server?"
        )
    return answer
