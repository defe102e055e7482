"""Asks a cloud's metadata service over HTTP, and says in two words why it did not answer."""

from typing import Protocol

import httpx

from asclepius_ray.errors import ConfigError
from asclepius_ray.launch.drain_watch.notices import Notice

CONNECT_SECONDS = 2.0
READ_SECONDS = 5.0


class MetadataAway(Exception):
    """Somebody is there, or may be, and did not answer as a metadata service does."""


class MetadataUnreachable(MetadataAway):
    """No connection: nobody listens there."""


class Provider(Protocol):
    """A cloud's notices."""

    name: str

    def look(self, wait_seconds: float) -> Notice | None:
        """What stands there now; waits that long for a change where the service can. Raises MetadataAway."""


def open_client(address: str) -> httpx.Client:
    """A client that goes through no proxy: the service answers by who asks."""
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"--address {address!r} is no address; write http://HOST or http://HOST:PORT")
    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    return httpx.Client(base_url=address, trust_env=False, timeout=timeout)


def ask(client: httpx.Client, request: httpx.Request) -> httpx.Response:
    """The answer, whatever its status."""
    try:
        return client.send(request)
    except (httpx.ConnectError, httpx.ConnectTimeout):
        raise MetadataUnreachable("nobody listens there") from None
    except httpx.TimeoutException:
        raise MetadataAway("it does not answer in time") from None
    except httpx.HTTPError:
        raise MetadataAway("its answer breaks off") from None


class AnyCloud:
    """The first of the clouds that answers; from then on that one alone."""

    def __init__(self, clouds: list[Provider]) -> None:
        self._clouds = clouds
        self.name = " or ".join(cloud.name for cloud in clouds)

    def look(self, wait_seconds: float) -> Notice | None:
        if len(self._clouds) > 1:
            found = self._find()
            self._clouds, self.name = [found], found.name
        return self._clouds[0].look(wait_seconds)

    def _find(self) -> Provider:
        troubles = []
        for cloud in self._clouds:
            try:
                cloud.look(0)
            except MetadataUnreachable:
                raise
            except MetadataAway as trouble:
                troubles.append(f"{cloud.name}: {trouble}")
            else:
                return cloud
        raise MetadataAway("; ".join(troubles))
