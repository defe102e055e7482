"""The OpenAPI document says what the routes do, and is a page of its own."""

import re
from html.parser import HTMLParser
from typing import Any

import httpx
import jsonschema
import pytest
import schemathesis

# Imported here and not at the first request: pytest rewrites these modules through their syntax trees, and
# Python 3.11 builds none while another thread builds one (python/cpython#106905), as the surface's may.
import schemathesis.specs.openapi.schemas
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from surfaces import Surface

from asclepius_ray.serving.surface.routes import api_routes

# A body may be right field by field and still be refused as a whole: a stream option without a stream,
# a prompt that is longer than the context.
UNCHECKED = [positive_data_acceptance]
OPERATIONS = [
    ("GET", "/health/live"),
    ("GET", "/health/ready"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/{model}"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/v1/completions"),
    ("GET", "/v1/clinical/tasks"),
    ("POST", "/v1/clinical/answers"),
    ("POST", "/v1/clinical/answers/batch"),
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
]
FEW = settings(
    max_examples=12,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def schema(surface: Surface) -> Any:
    return schemathesis.openapi.from_url(f"{surface.address}/openapi.json", headers=dict(surface.headers))


RIGHT = [(method, path, GenerationMode.POSITIVE) for method, path in OPERATIONS]
WRONG = [(method, path, GenerationMode.NEGATIVE) for method, path in OPERATIONS if method == "POST"]


@pytest.mark.parametrize(("method", "path", "mode"), RIGHT + WRONG)
def test_no_request_made_from_the_schema_breaks_its_route_or_its_promise(
    surface: Surface, schema: Any, method: str, path: str, mode: GenerationMode
) -> None:
    @FEW
    @given(schema[path][method].as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        case.call_and_validate(headers=dict(surface.headers), excluded_checks=UNCHECKED, timeout=60)

    ask()


@pytest.fixture(scope="module")
def document(surface: Surface) -> dict[str, Any]:
    found: dict[str, Any] = surface.get("/openapi.json").json()
    return found


def test_every_route_is_documented_and_every_documented_one_answers(
    surface: Surface, document: dict[str, Any]
) -> None:
    served = {
        (route.method.lower(), route.path.replace(":path}", "}"))
        for route in api_routes(surface.models, "one")
    }
    documented = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert documented == {(method.lower(), path) for method, path in OPERATIONS}
    assert documented > served
    for method, path in documented:
        url = surface.address + path.replace("{model}", "trained")
        answer = httpx.request(method, url, headers=dict(surface.headers), content=b"{}")
        assert answer.status_code in (200, 400)


def test_every_example_is_right_and_is_answered(surface: Surface, document: dict[str, Any]) -> None:
    num_examples = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for content in operation["responses"]["200"]["content"].values():
                if "example" in content:
                    validate(content["example"], content["schema"], document)
            if "requestBody" not in operation:
                continue
            content = operation["requestBody"]["content"]["application/json"]
            for example in content["examples"].values():
                validate(example["value"], content["schema"], document)
                answer = httpx.request(
                    method,
                    surface.address + path,
                    headers=dict(surface.headers),
                    json=example["value"],
                    timeout=60,
                )
                assert answer.status_code == 200, (path, answer.text)
                num_examples += 1
    assert num_examples >= 8


def validate(value: object, schema: dict[str, Any], document: dict[str, Any]) -> None:
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def test_what_the_checks_refuse_the_schema_refuses(document: dict[str, Any]) -> None:
    schema = {"$ref": "#/components/schemas/ChatCompletionBody"}
    good = {"model": "trained", "messages": [{"role": "user", "content": "pain"}]}
    validate(good, schema, document)
    for wrong in ({"temperature": 3}, {"n": 0}, {"stop": list("abcde")}, {"top_k": 1}, {"model": "another"}):
        with pytest.raises(jsonschema.ValidationError):
            validate(good | wrong, schema, document)


def test_errors_and_the_key_are_documented(document: dict[str, Any]) -> None:
    chat = document["paths"]["/v1/chat/completions"]["post"]
    assert {"400", "401", "403", "404", "413", "429", "503", "504"} <= set(chat["responses"])
    assert "Retry-After" in chat["responses"]["429"]["headers"]
    assert document["security"] == [{"key": []}]
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    is_open = {
        path
        for path, methods in document["paths"].items()
        if any(operation.get("security") == [] for operation in methods.values())
    }
    assert is_open == {"/health/live", "/health/ready"}


class Addresses(HTMLParser):
    """Collects what a page points to, and the places in it."""

    def __init__(self) -> None:
        super().__init__()
        self.pointed_to: list[str] = []
        self.places: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            if name in ("href", "src", "action"):
                self.pointed_to.append(value or "")
            if name == "id":
                self.places.append(value or "")


def test_the_page_shows_every_route_and_loads_nothing(surface: Surface, document: dict[str, Any]) -> None:
    answer = surface.get("/docs")
    assert answer.headers["Content-Type"].startswith("text/html")
    page = Addresses()
    page.feed(answer.text)
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert len(page.places) == len(set(page.places))
    inside = {address.removeprefix("#") for address in page.pointed_to if address.startswith("#")}
    assert inside <= set(page.places)
    assert {address for address in page.pointed_to if not address.startswith("#")} == {"openapi.json"}
    assert not re.search(r"url\(|@import", answer.text)
    for path, methods in document["paths"].items():
        for method in methods:
            assert f"{method}{path}" in page.places


@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_the_documentation_is_behind_the_key(surface: Surface, path: str) -> None:
    assert httpx.get(surface.address + path).status_code == 401
