"""Settings of who may ask: what is no origin, what is no folder for lines."""

import pytest

from asclepius_ray.config import parse_section
from asclepius_ray.errors import ConfigError
from asclepius_ray.serving.config import ServingConfig


@pytest.mark.parametrize("origin", ["https://ehr.example", "http://localhost:3000", "http://[::1]:80", "*"])
def test_an_origin_is_written_as_a_browser_sends_it(origin: str) -> None:
    assert parse_section(ServingConfig, {"cors_origins": [origin]}, "it").cors_origins == (origin,)


@pytest.mark.parametrize(
    "origin", ["https://ehr.example/", "ehr.example", "https://*.example", "https://EHR.example", "null", ""]
)
def test_what_no_browser_sends_is_no_origin(origin: str) -> None:
    with pytest.raises(ConfigError, match="is no origin"):
        parse_section(ServingConfig, {"cors_origins": ["https://ehr.example", origin]}, "it")


def test_audit_lines_go_to_no_bucket() -> None:
    with pytest.raises(ConfigError, match="local folder"):
        parse_section(ServingConfig, {"audit": "s3://bucket/audit"}, "it")
