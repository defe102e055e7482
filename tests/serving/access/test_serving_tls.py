"""Certificates and keys that will serve, and those that will not."""

import datetime
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from asclepius_ray.errors import ConfigError
from asclepius_ray.serving.access.tls import check_tls

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


@dataclass(frozen=True)
class Pair:
    certificate: str
    key: str


def make_pair(
    folder: Path, begins: datetime.datetime, ends: datetime.datetime, password: bytes = b""
) -> Pair:
    """A certificate of a server by an authority of its own, which nobody trusts, and its key."""
    authority, server = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer, subject = (
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("ca", "server")
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(server.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(ends)
        .sign(authority, hashes.SHA256())
    )
    folder.mkdir(exist_ok=True)
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password:
        encryption = serialization.BestAvailableEncryption(password)
    (folder / "key.pem").write_bytes(
        server.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )
    return Pair(str(folder / "certificate.pem"), str(folder / "key.pem"))


def test_a_good_pair_serves_and_none_at_all_is_plain_http(tmp_path: Path) -> None:
    pair = make_pair(tmp_path, NOW - DAY, NOW + DAY)
    assert check_tls(pair.certificate, pair.key) is True
    assert check_tls("", "") is False


def test_what_will_not_serve_is_refused_by_its_reason(tmp_path: Path) -> None:
    good = make_pair(tmp_path / "good", NOW - DAY, NOW + DAY)
    other = make_pair(tmp_path / "other", NOW - DAY, NOW + DAY)
    locked = make_pair(tmp_path / "locked", NOW - DAY, NOW + DAY, b"secret")
    expired = make_pair(tmp_path / "expired", NOW - 3 * DAY, NOW - DAY)
    early = make_pair(tmp_path / "early", NOW + DAY, NOW + 3 * DAY)
    for certificate, key, reason in (
        (good.certificate, "", "tls_key is not"),
        ("", good.key, "tls_certificate is not"),
        (str(tmp_path / "none.pem"), good.key, "tls_certificate.*cannot be read"),
        (good.certificate, str(tmp_path), "tls_key.*cannot be read"),
        (good.certificate, other.key, "cannot be used together"),
        (good.key, good.certificate, "cannot be used together"),
        (locked.certificate, locked.key, "without a password"),
        (expired.certificate, expired.key, "certificate has expired"),
        (early.certificate, early.key, "not yet valid"),
    ):
        with pytest.raises(ConfigError, match=reason):
            check_tls(certificate, key)
