"""What a cloud says of this machine's end, as one record; pure. Its words go no further than that record."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

INTERRUPTION = "spot interruption"
REBALANCE = "rebalance recommendation"
PREEMPTION = "preemption"
MAINTENANCE = "host maintenance"
STOP = "stop of this pod"
GRACE_SECONDS = {INTERRUPTION: 120.0, REBALANCE: 120.0, PREEMPTION: 30.0, MAINTENANCE: 60.0, STOP: 60.0}
"""What the clouds promise from a notice to the end, for notices that name no time."""
AWS_ACTIONS = ("terminate", "stop", "hibernate")
GCP_MAINTENANCE_ENDS = "TERMINATE_ON_HOST_MAINTENANCE"


class UnreadableNotice(Exception):
    """An answer that is no notice of a known form."""


@dataclass(frozen=True)
class Notice:
    """That this machine goes: why, and when, where the cloud says when."""

    kind: str
    at_unix: float | None = None


def parse_instance_action(text: str) -> Notice:
    """AWS's `spot/instance-action`, which is there only once the machine is to go.

    A time that cannot be read costs the time, not the notice.
    """
    action = _read_object(text)
    if action.get("action") not in AWS_ACTIONS:
        raise UnreadableNotice("spot/instance-action names no action")
    return Notice(INTERRUPTION, _read_time(action.get("time")))


def parse_rebalance(text: str) -> Notice:
    """AWS's `events/recommendations/rebalance`: its time is when it was given, not when the machine goes."""
    if "noticeTime" not in _read_object(text):
        raise UnreadableNotice("events/recommendations/rebalance names no time")
    return Notice(REBALANCE)


def parse_gcp(preempted: str, maintenance_event: str) -> Notice | None:
    """GCP's two values; a machine that is moved while it runs is not taken away."""
    if preempted.strip().upper() == "TRUE":
        return Notice(PREEMPTION)
    if maintenance_event.strip().upper() == GCP_MAINTENANCE_ENDS:
        return Notice(MAINTENANCE)
    return None


def deadline_of(notice: Notice, seen_unix: float, grace_seconds: float) -> float:
    """When the machine goes: in `grace_seconds` if the notice names no time; 0 = the cloud's promise."""
    if notice.at_unix is not None:
        return notice.at_unix
    return seen_unix + (grace_seconds or GRACE_SECONDS[notice.kind])


def format_time(unix: float) -> str:
    """As clouds and logs write it, in UTC."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read_object(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise UnreadableNotice("the answer is not a JSON object")
    return found


def _read_time(value: object) -> float | None:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
