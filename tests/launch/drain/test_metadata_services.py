"""Both clouds' notices are read over HTTP, whatever the service does."""

import threading
import time
from collections.abc import Callable

import httpx
import pytest
from metadata_server import AWS_TOKEN_HEADER, MetadataServer

from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.drain_watch.aws import AwsNotices
from asclepius_ray.launch.drain_watch.gcp import GcpNotices
from asclepius_ray.launch.drain_watch.metadata import (
    AnyCloud,
    MetadataAway,
    MetadataUnreachable,
    Provider,
    open_client,
)
from asclepius_ray.launch.drain_watch.notices import INTERRUPTION, MAINTENANCE, PREEMPTION, REBALANCE, Notice

ACTION = '{"action": "terminate", "time": "2025-11-29T12:00:00Z"}'
REBALANCED = '{"noticeTime": "2025-11-29T12:00:00Z"}'


def aws(service: MetadataServer, heeds_rebalance: bool = False) -> AwsNotices:
    return AwsNotices(open_client(service.address), heeds_rebalance)


def gcp(service: MetadataServer) -> GcpNotices:
    return GcpNotices(open_client(service.address))


def any_cloud(service: MetadataServer) -> AnyCloud:
    return AnyCloud([aws(service), gcp(service)])


def test_aws_is_asked_with_one_token_for_all_questions(service: MetadataServer) -> None:
    cloud = aws(service)
    assert cloud.look(0) is None
    service.put("instance-action", ACTION)
    assert cloud.look(0) == Notice(INTERRUPTION, 1_764_417_600.0)
    assert service.asked.count("PUT /latest/api/token") == 1
    assert service.headers[-1][AWS_TOKEN_HEADER] == "token-0"


def test_an_expired_token_is_renewed_within_the_same_look(service: MetadataServer) -> None:
    cloud = aws(service)
    cloud.look(0)
    service.put("instance-action", ACTION)
    service.expire_token()
    assert cloud.look(0) == Notice(INTERRUPTION, 1_764_417_600.0)
    assert service.asked.count("PUT /latest/api/token") == 2


def test_a_service_that_takes_no_token_at_all_is_away_and_not_asked_for_ever(service: MetadataServer) -> None:
    service.statuses["instance-action"] = 401
    with pytest.raises(MetadataAway, match="401"):
        aws(service).look(0)
    assert len(service.asked) == 4


def test_a_rebalance_recommendation_counts_where_it_is_asked_for_and_after_an_interruption(
    service: MetadataServer,
) -> None:
    service.put("rebalance", REBALANCED)
    assert aws(service).look(0) is None
    assert aws(service, heeds_rebalance=True).look(0) == Notice(REBALANCE)
    service.put("instance-action", ACTION)
    found = aws(service, heeds_rebalance=True).look(0)
    assert found is not None
    assert found.kind == INTERRUPTION


@pytest.mark.parametrize("key", ["token", "instance-action"])
@pytest.mark.parametrize("status", [403, 500, 503])
def test_any_other_answer_of_aws_is_trouble_and_no_notice(
    key: str, status: int, service: MetadataServer
) -> None:
    service.statuses[key] = status
    with pytest.raises(MetadataAway, match=str(status)):
        aws(service).look(0)


def test_an_answer_that_is_no_notice_says_so_without_its_words(service: MetadataServer) -> None:
    service.put("instance-action", "<p>sign in as jane</p>")
    with pytest.raises(MetadataAway) as raised:
        aws(service).look(0)
    assert "jane" not in str(raised.value)


def test_a_preemption_is_heard_of_while_it_is_waited_for(service: MetadataServer) -> None:
    cloud = gcp(service)
    assert cloud.look(0) is None
    timer = threading.Timer(0.3, service.put, ("preempted", "TRUE"))
    timer.start()
    begun = time.monotonic()
    assert cloud.look(10) == Notice(PREEMPTION)
    assert 0.2 < time.monotonic() - begun < 5


def test_waiting_ends_when_its_time_is_up(service: MetadataServer) -> None:
    cloud = gcp(service)
    cloud.look(0)
    begun = time.monotonic()
    assert cloud.look(1) is None
    assert time.monotonic() - begun >= 0.9


def test_a_preemption_before_the_first_question_is_not_waited_away(service: MetadataServer) -> None:
    service.put("preempted", "TRUE")
    begun = time.monotonic()
    assert gcp(service).look(10) == Notice(PREEMPTION)
    assert time.monotonic() - begun < 5


def test_maintenance_that_ends_the_machine_is_told_at_once(service: MetadataServer) -> None:
    cloud = gcp(service)
    cloud.look(0)
    service.put("maintenance-event", "TERMINATE_ON_HOST_MAINTENANCE")
    cloud.look(0)
    begun = time.monotonic()
    assert cloud.look(10) == Notice(MAINTENANCE)
    assert time.monotonic() - begun < 5


def test_every_question_to_gcp_carries_the_flavor(service: MetadataServer) -> None:
    gcp(service).look(0)
    assert [headers.get("Metadata-Flavor") for headers in service.headers] == ["Google", "Google"]


@pytest.mark.parametrize("key", ["preempted", "maintenance-event"])
def test_any_other_answer_of_gcp_is_trouble_and_no_notice(key: str, service: MetadataServer) -> None:
    service.statuses[key] = 503
    with pytest.raises(MetadataAway, match="503"):
        gcp(service).look(0)


def test_an_answer_without_gcp_s_flavor_is_not_gcp_s(service: MetadataServer) -> None:
    service.statuses["maintenance-event"] = 200
    with pytest.raises(MetadataAway, match="not of GCP"):
        gcp(service).look(0)


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_the_cloud_that_answers_is_found_and_stayed_with(cloud: str, service: MetadataServer) -> None:
    service.clouds = {cloud}
    either = any_cloud(service)
    assert either.name == "aws or gcp"
    assert either.look(0) is None
    assert either.name == cloud
    service.asked.clear()
    either.look(0)
    assert all(("computeMetadata" in asked) == (cloud == "gcp") for asked in service.asked)
    assert service.asked


def test_a_service_of_neither_cloud_says_what_both_answered(service: MetadataServer) -> None:
    service.clouds = set()
    with pytest.raises(MetadataAway, match=r"aws: .*404; gcp: .*404"):
        any_cloud(service).look(0)


@pytest.mark.parametrize("cloud", [aws, gcp, any_cloud])
def test_an_address_where_nobody_listens_is_told_from_one_that_does_not_answer(
    cloud: Callable[[MetadataServer], Provider], service: MetadataServer, nobody: str
) -> None:
    service.address = nobody
    with pytest.raises(MetadataUnreachable):
        cloud(service).look(0)


@pytest.mark.parametrize("cloud", [AwsNotices, GcpNotices])
def test_a_service_that_hangs_is_left_when_its_time_is_up(
    cloud: Callable[[httpx.Client], Provider], service: MetadataServer
) -> None:
    service.hangs = True
    assert 0 < (open_client(service.address).timeout.read or 0) <= 10
    begun = time.monotonic()
    with pytest.raises(MetadataAway, match="in time") as raised:
        cloud(httpx.Client(base_url=service.address, timeout=0.3)).look(0)
    assert not isinstance(raised.value, MetadataUnreachable)
    assert time.monotonic() - begun < 3


def test_no_proxy_is_asked_for_what_only_this_machine_may_know(
    service: MetadataServer, monkeypatch: pytest.MonkeyPatch, nobody: str
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, nobody)
    assert aws(service).look(0) is None


@pytest.mark.parametrize("address", ["169.254.169.254", "ftp://host", "http://", "http://host:many", ""])
def test_what_is_no_address_is_refused_by_name(address: str) -> None:
    with pytest.raises(ConfigError, match="--address"):
        open_client(address)
