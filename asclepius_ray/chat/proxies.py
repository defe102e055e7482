"""Which proxy of the environment an address is asked through. Pure but for the environment."""

import ipaddress
import urllib.request
from urllib.parse import SplitResult, urlsplit

import yarl

from asclepius_ray.errors import ConfigError

_PORTS = {"http": 80, "https": 443}


def proxy_of(base_url: str) -> str | None:
    """HTTPS_PROXY or HTTP_PROXY, else ALL_PROXY, unless NO_PROXY names the host; a ConfigError if no use."""
    parts = urlsplit(base_url)
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or is_excepted(parts, proxies.get("no", "")):
        return None
    address = proxy if "://" in proxy else f"http://{proxy}"
    try:
        found = yarl.URL(address)
        is_usable = found.scheme in _PORTS and bool(found.host) and found.port != 0
        (found.host or "").encode("idna")
    except ValueError:
        is_usable = False
    if not is_usable:
        # The address may hold a password, so it is not repeated.
        raise ConfigError(
            f"the environment's proxy for {parts.scheme} is no address of one that speaks HTTP; set "
            f"{parts.scheme.upper()}_PROXY to one such as http://proxy.example.org:3128, or unset it"
        )
    return address


def is_excepted(address: SplitResult, no_proxy: str) -> bool:
    """Whether one of the entries of NO_PROXY covers the address.

    An entry is *, a host that stands for those below it too (with or without "*." or "." before it), an
    address or a network, each with or without a scheme and a port.
    """
    host = (address.hostname or "").rstrip(".").lower()
    port = address.port or _PORTS.get(address.scheme, 0)
    entries = (entry.strip().lower() for entry in no_proxy.split(","))
    return any(_covers(entry, address.scheme, host, port) for entry in entries if entry)


def _covers(entry: str, scheme: str, host: str, port: int) -> bool:
    if entry == "*":
        return True
    named_scheme, colon, rest = entry.rpartition("://")
    if colon and named_scheme not in (scheme, "all"):
        return False
    if (is_inside := _is_in_network(rest, host)) is not None:
        return is_inside
    name, named_port = rest, ""
    if rest.startswith("["):
        name, _, behind = rest[1:].partition("]")
        named_port = behind.removeprefix(":")
    elif rest.count(":") == 1:
        name, _, named_port = rest.partition(":")
    if named_port and named_port != str(port):
        return False
    if (is_inside := _is_in_network(name, host)) is not None:
        return is_inside
    name = name.removeprefix("*").strip(".")
    return bool(name) and (host == name or host.endswith(f".{name}"))


def _is_in_network(entry: str, host: str) -> bool | None:
    """None where the entry is neither an address nor a network."""
    try:
        network = ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None
    try:
        return ipaddress.ip_address(host) in network
    except ValueError:
        return False
