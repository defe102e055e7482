"""Whether the certificate and key that `[serving]` names will serve, before anything is started."""

import ssl
from pathlib import Path

from asclepius_ray.errors import ConfigError

_EXPIRED, _NOT_YET_VALID = 10, 9
"""OpenSSL's X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID."""


def check_tls(certificate: str, key: str) -> bool:
    """Whether HTTPS is served: both files are named, readable, belong together and are valid now.

    A ConfigError says which of it is not so. Whether clients trust the certificate is not looked at.
    """
    if not certificate and not key:
        return False
    if not certificate or not key:
        missing, there = ("key", "certificate") if certificate else ("certificate", "key")
        raise ConfigError(f"serving.tls_{there} is set and serving.tls_{missing} is not; HTTPS needs both")
    for name, path in (("tls_certificate", certificate), ("tls_key", key)):
        _check_readable(name, path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password of ours OpenSSL would ask for one at the terminal.
        server.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        raise ConfigError(
            f"serving.tls_certificate {certificate} and serving.tls_key {key} cannot be used together "
            f"({error.reason or 'not PEM'}): name a PEM file of the certificate and one of its own private "
            "key, without a password"
        ) from None
    _check_dates(server, certificate)
    return True


def _check_readable(name: str, path: str) -> None:
    try:
        Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"serving.{name} = {path!r} cannot be read ({error.strerror}); name a file that this user "
            "may read"
        ) from None


def _check_dates(server: ssl.SSLContext, certificate: str) -> None:
    """Shakes hands with itself in memory, trusting this one certificate: only its dates can be in the way."""
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server)
    serving = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (asking, serving, asking):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
        except ssl.SSLCertVerificationError as error:
            if error.verify_code in (_EXPIRED, _NOT_YET_VALID):
                raise ConfigError(
                    f"serving.tls_certificate {certificate}: {error.verify_message}; renew it"
                ) from None
            return
