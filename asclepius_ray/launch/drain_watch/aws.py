"""AWS's notices: `spot/instance-action` and, if wanted, `events/recommendations/rebalance`, by IMDSv2."""

import httpx

from asclepius_ray.launch.drain_watch.metadata import MetadataAway, ask
from asclepius_ray.launch.drain_watch.notices import (
    Notice,
    UnreadableNotice,
    parse_instance_action,
    parse_rebalance,
)

TOKEN_SECONDS = "21600"
"""The longest that AWS gives."""
TOKEN_HEADER = "X-aws-ec2-metadata-token"
TOKEN_SECONDS_HEADER = "X-aws-ec2-metadata-token-ttl-seconds"


class AwsNotices:
    """Asks with a token, and with a new one where the service no longer takes it."""

    name = "aws"

    def __init__(self, client: httpx.Client, heeds_rebalance: bool = False) -> None:
        self._client = client
        self._heeds_rebalance = heeds_rebalance
        self._token = ""

    def look(self, wait_seconds: float) -> Notice | None:
        """Answers at once: this service has no way to wait for a change."""
        try:
            if (action := self._read("spot/instance-action")) is not None:
                return parse_instance_action(action)
            if (
                self._heeds_rebalance
                and (rebalance := self._read("events/recommendations/rebalance")) is not None
            ):
                return parse_rebalance(rebalance)
        except UnreadableNotice as trouble:
            raise MetadataAway(str(trouble)) from None
        return None

    def _read(self, path: str) -> str | None:
        """The value, or None where there is none."""
        answer = self._get(path)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            self._token = ""
            answer = self._get(path)
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.status_code != httpx.codes.OK:
            raise MetadataAway(f"it answers {answer.status_code}")
        return answer.text

    def _get(self, path: str) -> httpx.Response:
        self._token = self._token or self._fetch_token()
        headers = {TOKEN_HEADER: self._token}
        request = self._client.build_request("GET", f"/latest/meta-data/{path}", headers=headers)
        return ask(self._client, request)

    def _fetch_token(self) -> str:
        headers = {TOKEN_SECONDS_HEADER: TOKEN_SECONDS}
        answer = ask(self._client, self._client.build_request("PUT", "/latest/api/token", headers=headers))
        if answer.status_code != httpx.codes.OK:
            raise MetadataAway(f"it gives no token and answers {answer.status_code}")
        return answer.text
