"""GCP's notices: `instance/preempted`, waited for, and `instance/maintenance-event`, read on the way."""

import httpx

from asclepius_ray.launch.drain_watch.metadata import MetadataAway, ask
from asclepius_ray.launch.drain_watch.notices import Notice, parse_gcp

FLAVOR = {"Metadata-Flavor": "Google"}
"""Sent with every question and found on every answer: else it is not GCP's service that answers."""
NO_ETAG = "0"
"""Fits no value, so that the first question is answered at once: waiting would miss what is there already."""


class GcpNotices:
    """Hears of a preemption at once, since it leaves half a minute; of maintenance once a look.

    Maintenance is told a minute before, and only to a machine that asks for it.
    """

    name = "gcp"

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._etag = NO_ETAG

    def look(self, wait_seconds: float) -> Notice | None:
        maintenance_event = self._get("maintenance-event", 0).text
        if notice := parse_gcp("", maintenance_event):
            wait_seconds = 0
        preempted = self._get("preempted", wait_seconds)
        self._etag = preempted.headers.get("ETag", NO_ETAG)
        return parse_gcp(preempted.text, "") or notice

    def _get(self, key: str, wait_seconds: float) -> httpx.Response:
        waits = {"wait_for_change": "true", "timeout_sec": str(round(wait_seconds)), "last_etag": self._etag}
        timeout = self._client.timeout
        request = self._client.build_request(
            "GET",
            f"/computeMetadata/v1/instance/{key}",
            headers=FLAVOR,
            params=waits if round(wait_seconds) else None,
            timeout=httpx.Timeout((timeout.read or 0.0) + wait_seconds, connect=timeout.connect),
        )
        answer = ask(self._client, request)
        if answer.status_code != httpx.codes.OK:
            raise MetadataAway(f"it answers {answer.status_code}")
        if answer.headers.get("Metadata-Flavor") != FLAVOR["Metadata-Flavor"]:
            raise MetadataAway("its answer is not of GCP's metadata service")
        return answer
