"""The sections `[network]` and `[tls]` of a profile: who reaches the pods, whom they reach, and how."""

import ipaddress
from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from asclepius_ray.config import Section


def _is_network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(
            f'{error}; write a range of addresses as "10.20.0.0/16", one as "10.20.0.7/32"'
        ) from None
    return value


Cidr = Annotated[str, AfterValidator(_is_network)]
Port = Annotated[int, Field(ge=1, le=65535)]
Namespace = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]


class NetworkSection(Section):
    """`[network]`: what goes in and out besides the traffic among the pods of one resource."""

    operator_namespaces: tuple[Namespace, ...] = ("kuberay-operator", "default")
    """Where KubeRay's operator runs: it alone reaches the dashboard's port, to start jobs and Serve."""
    monitoring_namespaces: tuple[Namespace, ...] = ("monitoring",)
    """Whose pods read the figures on port 8080; [] = nobody."""
    serve_namespaces: tuple[Namespace, ...] = ()
    """Whose pods may ask the served model, as that of an ingress controller; [] = the service's own alone.
    Once some are named the service's own is shut too, unless it is among them."""
    serve_pods: dict[str, str] = Field(default_factory=dict)
    """Of these, only pods with these labels; {} = all. A key is asked for in any case."""
    ports: tuple[Port, ...] = ()
    """Ports at which pods reach others, besides 443, that of storage.bucket.endpoint and those of the run's
    endpoints. Of a Service of the same Kubernetes cluster it is the pods' own port that counts."""
    outside: tuple[Cidr, ...] = ()
    """A closed network: the only addresses outside of the cluster that pods reach; [] = any."""
    api_server: tuple[Cidr, ...] = ()
    """In a closed network: where the Kubernetes API is, `kubectl get endpointslices -n default`."""
    api_server_ports: tuple[Port, ...] = (443, 6443)
    """The head's autoscaler asks there for pods."""

    @model_validator(mode="after")
    def _closed_networks_name_the_api(self) -> "NetworkSection":
        if self.outside and not self.api_server:
            raise ValueError(
                "outside closes the network, and the head's autoscaler would not reach the Kubernetes API; "
                "set api_server to its addresses"
            )
        if self.api_server and not self.outside:
            raise ValueError("api_server is for a closed network; set outside too, or leave it out")
        return self


class TlsSection(Section):
    """`[tls]`: Ray's own connections are encrypted, and both sides show a certificate of your authority."""

    secret: str = Field(default="asclepius-ray-tls", min_length=1)
    """The secret with the authority's `ca.crt` and `ca.key`; only an init container sees the key."""
    days: Annotated[int, Field(ge=1, le=3650)] = 365
    """So long a pod's certificate is valid; a pod that lives longer loses its connections."""
