"""The official client gets what OpenAI's API promises, and each wrong request its own error."""

import openai
import pytest
from conformance_table import CHECKS, REFUSALS, Check, Endpoint, Refusal, check_refusal
from served_models import API_KEY
from surfaces import Surface


@pytest.fixture(scope="module")
def endpoint(surface: Surface) -> Endpoint:
    return Endpoint(f"{surface.address}/v1", API_KEY, "trained")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_official_client_finds_that(endpoint: Endpoint, check: Check) -> None:
    check(endpoint)


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS.keys())
def test_a_wrong_request_is_refused_by_name_and_its_text_is_not_repeated(
    endpoint: Endpoint, refusal: Refusal
) -> None:
    check_refusal(endpoint, refusal)


def test_the_official_client_raises_its_own_errors(endpoint: Endpoint) -> None:
    with pytest.raises(openai.BadRequestError) as wrong:
        endpoint.chat(messages=[])
    assert (wrong.value.code, wrong.value.param) == ("invalid_value", "messages")
    with pytest.raises(openai.NotFoundError) as unknown:
        endpoint.chat(model="another")
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError) as stranger:
        Endpoint(endpoint.base_url, "another key", endpoint.model).chat()
    assert stranger.value.code == "invalid_api_key"
