"""What a replica knows of its keys while their file changes, is damaged or away."""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow
import pytest
from local_buckets import local_bucket

from asclepius_ray.errors import ConfigError
from asclepius_ray.serving.access.access import check_somebody_may_ask
from asclepius_ray.serving.access.key_file import KeyFile
from asclepius_ray.serving.access.key_ring import KeyRing, KeysUnreadable
from asclepius_ray.serving.access.keys import KeyLimits, hash_key, make_key
from asclepius_ray.serving.config import ServingConfig

OPERATOR_KEY = "operator-key-nothing-secret-4711"


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
    check_somebody_may_ask(config, OPERATOR_KEY)


@pytest.mark.parametrize(
    "key", ["x", "k" * 15, "key with spaces in it", "schlüssel-des-betreibers", "a" * 20 + "\x7f"]
)
def test_a_key_that_is_guessed_or_never_matches_serves_nothing(key: str) -> None:
    with pytest.raises(ConfigError, match="at least 16 printable ASCII") as refused:
        check_somebody_may_ask(ServingConfig(), key)
    assert "token_urlsafe" in str(refused.value)
    assert len(key) == 1 or key not in str(refused.value)
    check_somebody_may_ask(ServingConfig(), "k" * 16)


def test_nothing_is_served_with_a_file_of_keys_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(b"{")
    with pytest.raises(ConfigError, match=r"keys\.json is damaged.*put a copy"):
        check_somebody_may_ask(ServingConfig(keys=str(tmp_path)), OPERATOR_KEY)


class FailingFile(KeyFile):
    """A real file, until it fails in a way of its own."""

    error: Exception | None = None

    def read(self) -> bytes | None:
        if self.error is not None:
            raise self.error
        return super().read()


@pytest.mark.parametrize("error", [pyarrow.ArrowNotImplementedError("x"), ConfigError("x"), ValueError("x")])
def test_the_watcher_goes_on_after_any_error_of_a_file_system(tmp_path: Path, error: Exception) -> None:
    file = FailingFile(str(tmp_path))
    ring = KeyRing(file=file)
    ring.watch()
    try:
        file.error = error
        add_key(KeyFile(str(tmp_path)))
        assert seconds_until(lambda: ring.trouble == "unreachable") < 2
        file.error = None
        secret, _ = add_key(KeyFile(str(tmp_path)))
        assert seconds_until(lambda: not ring.is_unreadable and ring.find(secret) is not None) < 2
    finally:
        ring.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_key_of_the_file_is_taken_when_nobody_looks_for_revoked_ones(tmp_path: Path) -> None:
    file = FailingFile(str(tmp_path))
    secret, _ = add_key(file)
    ring = KeyRing(hash_key(OPERATOR_KEY), file)
    ring.watch()
    assert ring.find(secret) is not None
    file.error = RuntimeError("unforeseen")
    add_key(KeyFile(str(tmp_path)))
    assert seconds_until(lambda: ring.is_unreadable) < 2
    with pytest.raises(KeysUnreadable):
        ring.find(secret)
    assert ring.find(OPERATOR_KEY) is not None


def test_a_ring_that_was_closed_is_no_unwatched_one(tmp_path: Path) -> None:
    secret, _ = add_key(KeyFile(str(tmp_path)))
    ring = KeyRing(file=KeyFile(str(tmp_path)))
    ring.watch()
    ring.close()
    time.sleep(1)
    assert ring.find(secret) is not None
