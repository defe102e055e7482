"""Asking the clinical route of a served model: a note and a question → the answer."""

import httpx

from asclepius_ray.errors import EndpointError

TIMEOUT_SECONDS = 300.0


def ask_clinical(base_url: str, api_key: str, note: str, question: str) -> str:
    """The answer of POST {base_url}/clinical/answers; an EndpointError without a word of note or question."""
    url = f"{base_url.rstrip('/')}/clinical/answers"
    headers = {"Authorization": f"Bearer {api_key}"}
    try:
        response = httpx.post(
            url, json={"note": note, "question": question}, headers=headers, timeout=TIMEOUT_SECONDS
        )
    except httpx.HTTPError as error:
        raise EndpointError(
            f"{url} cannot be reached ({type(error).__name__}); is the model served, and at this address?"
        ) from None
    if response.status_code in (401, 403):
        raise EndpointError(f"{url} refuses the key; set the variable that holds it to the server's key")
    if response.status_code != 200:
        raise EndpointError(f"{url} answered with HTTP status {response.status_code}")
    answer: str = response.json()["answer"]
    return answer
