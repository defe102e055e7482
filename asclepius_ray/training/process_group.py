"""How the workers of one training find each other: the settings of torch's process group."""

import os
from typing import Any

import psutil
import ray
from ray.train.torch import TorchConfig
from ray.train.torch.config import _TorchBackend

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"


class OwnAddressConfig(TorchConfig):  # type: ignore[misc]  # ray has no types
    """A TorchConfig whose workers reach each other by the addresses that Ray knows their nodes by.

    By itself gloo listens at the address that the machine's name leads to; that is loopback on many a host
    (127.0.1.1 in Debian's /etc/hosts), where nobody from another host gets through.
    """

    @property
    def backend_cls(self) -> type[_TorchBackend]:
        return _OwnAddressBackend


class _OwnAddressBackend(_TorchBackend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        if backend_config.backend == "gloo":
            worker_group.execute(_listen_at_own_address)
        super().on_start(worker_group, backend_config)


def _listen_at_own_address() -> None:
    """Names the interface to gloo, unless the user has."""
    if interface := interface_of(ray.util.get_node_ip_address()):
        os.environ.setdefault(GLOO_INTERFACE, interface)


def interface_of(address: str) -> str:
    """The network interface of this machine that has the address; "" if none has."""
    interfaces: dict[str, list[Any]] = psutil.net_if_addrs()
    for name, found in interfaces.items():
        # An IPv6 address of a link carries the link's name: fe80::1%eth0.
        if address in {each.address.partition("%")[0] for each in found}:
            return name
    return ""
