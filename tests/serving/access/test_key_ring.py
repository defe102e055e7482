"""What a replica knows of its keys while their file changes, is damaged or away."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from local_buckets import local_bucket

from asclepius_ray.errors import ConfigError
from asclepius_ray.serving.access.access import check_somebody_may_ask
from asclepius_ray.serving.access.key_file import KeyFile
from asclepius_ray.serving.access.key_ring import KeyRing, KeysUnreadable
from asclepius_ray.serving.access.keys import KeyLimits, hash_key, make_key
from asclepius_ray.serving.config import ServingConfig


def add_key(file: KeyFile, name: str = "ward", days: float = 0) -> tuple[str, str]:
    """The key and its id."""
    secret, record = make_key(name, ["generate"], KeyLimits(), days, datetime.now(UTC))
    file.change(lambda book: book.with_key(record))
    return secret, record.id


def revoke(file: KeyFile, key_id: str) -> None:
    file.change(lambda book: book.with_revoked(key_id, datetime.now(UTC)))


def seconds_until(reached: Callable[[], bool]) -> float:
    started = time.monotonic()
    while not reached():
        assert time.monotonic() - started < 30
        time.sleep(0.01)
    return time.monotonic() - started


def test_a_key_holds_and_is_revoked_within_two_seconds_without_a_restart(tmp_path: Path) -> None:
    file = KeyFile(str(tmp_path))
    ring = KeyRing(file=file)
    ring.watch()
    try:
        secret, key_id = add_key(file)
        assert seconds_until(lambda: ring.find(secret) is not None) < 2
        revoke(file, key_id)
        assert seconds_until(lambda: ring.find(secret) is None) < 2
    finally:
        ring.close()


def test_a_change_in_a_bucket_is_seen_though_time_and_size_are_the_same() -> None:
    with local_bucket("ring") as uri:
        file = KeyFile(uri.format("keys.json"))
        first, _ = add_key(file)
        ring = KeyRing(file=file)
        second, record = make_key("ward", ["generate"], KeyLimits(), 0, datetime.now(UTC))
        file.change(lambda book: book.model_copy(update={"keys": (record,)}))
        ring.refresh()
        assert ring.find(first) is None
        assert ring.find(second) is not None


@pytest.mark.parametrize("harm", ["removed", "cut", "emptied", "unreadable"])
def test_a_damaged_file_locks_nobody_out_and_lets_nobody_back_in(tmp_path: Path, harm: str) -> None:
    file = KeyFile(str(tmp_path))
    good, _ = add_key(file)
    revoked, revoked_id = add_key(file)
    revoke(file, revoked_id)
    ring = KeyRing(hash_key("operator"), file)
    path, content = tmp_path / "keys.json", (tmp_path / "keys.json").read_bytes()
    match harm:
        case "removed":
            path.unlink()
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "emptied":
            path.write_bytes(b"")
        case "unreadable":
            path.unlink()
            path.mkdir()
    ring.refresh()
    assert ring.trouble
    assert ring.find(good) is not None
    assert ring.find(revoked) is None
    assert ring.find("operator") is not None
    if path.is_dir():
        path.rmdir()
    path.write_bytes(content)
    ring.refresh()
    assert not ring.trouble


def test_trouble_with_the_file_is_told_once_and_names_no_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = KeyFile(str(tmp_path))
    secret, _ = add_key(file)
    ring = KeyRing(file=file)
    (tmp_path / "keys.json").write_bytes(secret.encode())
    for _ in range(3):
        ring.refresh()
    assert len(caplog.records) == 1
    assert "damaged" in caplog.text
    assert secret not in caplog.text


def test_a_replica_that_never_read_the_file_says_so_instead_of_refusing_keys(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(b"{")
    ring = KeyRing(hash_key("operator"), KeyFile(str(tmp_path)))
    assert ring.find("operator") is not None
    with pytest.raises(KeysUnreadable):
        ring.find("any other")


def test_wrong_revoked_and_expired_keys_are_one_to_their_senders(tmp_path: Path) -> None:
    file = KeyFile(str(tmp_path))
    expiring, _ = add_key(file, days=1)
    now = datetime.now(UTC)
    ring = KeyRing(hash_key("operator"), file, clock=lambda: now)
    assert ring.find(expiring) is not None
    now += timedelta(days=1, seconds=5)
    assert [ring.find(key) for key in (expiring, "wrong", "", expiring[:-1], "OPERATOR")] == [None] * 5


def test_without_any_key_nothing_is_served(tmp_path: Path) -> None:
    config = ServingConfig(keys=str(tmp_path))
    with pytest.raises(ConfigError, match="asclepius keys create"):
        check_somebody_may_ask(config, " ")
    _, key_id = add_key(KeyFile(str(tmp_path)))
    check_somebody_may_ask(config, "")
    revoke(KeyFile(str(tmp_path)), key_id)
    with pytest.raises(ConfigError):
        check_somebody_may_ask(config, "")
    check_somebody_may_ask(config, "the operator's")
