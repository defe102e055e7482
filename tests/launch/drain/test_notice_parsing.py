"""What clouds say of a machine's end becomes kind and time, and nothing else of it is kept."""

import pytest

from asclepius_ray.launch.drain_watch.notices import (
    GRACE_SECONDS,
    INTERRUPTION,
    MAINTENANCE,
    PREEMPTION,
    REBALANCE,
    Notice,
    UnreadableNotice,
    deadline_of,
    format_time,
    parse_gcp,
    parse_instance_action,
    parse_rebalance,
)

NOON = 1_764_417_600.0


@pytest.mark.parametrize("action", ["terminate", "stop", "hibernate"])
def test_an_interruption_comes_with_its_time(action: str) -> None:
    text = f'{{"action": "{action}", "time": "2025-11-29T12:00:00Z"}}'
    assert parse_instance_action(text) == Notice(INTERRUPTION, NOON)


@pytest.mark.parametrize("time", ['"soon"', "null", "17"])
def test_a_time_that_cannot_be_read_costs_the_time_and_not_the_notice(time: str) -> None:
    assert parse_instance_action(f'{{"action": "stop", "time": {time}}}') == Notice(INTERRUPTION)


def test_a_time_without_a_zone_is_utc() -> None:
    assert parse_instance_action('{"action": "stop", "time": "2025-11-29T12:00:00"}').at_unix == NOON


@pytest.mark.parametrize(
    "text", ["", "<html>sign in</html>", "[]", '"terminate"', "{}", '{"action": "dance"}']
)
def test_what_is_no_interruption_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(UnreadableNotice):
        parse_instance_action(text)


def test_the_time_of_a_rebalance_recommendation_is_not_the_machine_s_end() -> None:
    assert parse_rebalance('{"noticeTime": "2025-11-29T12:00:00Z"}') == Notice(REBALANCE)
    with pytest.raises(UnreadableNotice):
        parse_rebalance("{}")


@pytest.mark.parametrize(
    ("preempted", "maintenance", "found"),
    [
        ("FALSE", "NONE", None),
        ("TRUE", "NONE", Notice(PREEMPTION)),
        ("true\n", "", Notice(PREEMPTION)),
        ("FALSE", "TERMINATE_ON_HOST_MAINTENANCE", Notice(MAINTENANCE)),
        ("TRUE", "TERMINATE_ON_HOST_MAINTENANCE", Notice(PREEMPTION)),
        ("FALSE", "MIGRATE_ON_HOST_MAINTENANCE", None),
    ],
)
def test_a_machine_of_gcp_s_goes_when_it_is_preempted_or_ended_for_maintenance(
    preempted: str, maintenance: str, found: Notice | None
) -> None:
    assert parse_gcp(preempted, maintenance) == found


def test_the_notice_s_own_time_counts_before_any_other() -> None:
    assert deadline_of(Notice(INTERRUPTION, NOON), NOON - 500, 7) == NOON


@pytest.mark.parametrize("kind", GRACE_SECONDS)
def test_a_notice_without_a_time_leaves_what_was_set_or_what_the_cloud_promises(kind: str) -> None:
    assert deadline_of(Notice(kind), NOON, 7) == NOON + 7
    assert deadline_of(Notice(kind), NOON, 0) == NOON + GRACE_SECONDS[kind]


def test_times_are_written_in_utc() -> None:
    assert format_time(NOON) == "2025-11-29T12:00:00Z"
