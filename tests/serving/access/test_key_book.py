"""Keys as values and as a file: what is kept, who may hold them, what two writers leave."""

import stat
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from local_buckets import local_bucket
from typer.testing import CliRunner

from asclepius_ray.cli import app
from asclepius_ray.serving.access.key_file import KeyFile
from asclepius_ray.serving.access.keys import KeyLimits, dump_book, hash_key, make_key, parse_book

NOW = datetime(2026, 11, 28, tzinfo=UTC)


def run_keys(*arguments: str) -> str:
    ended = CliRunner().invoke(app, ["keys", *arguments])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_a_key_is_256_random_bits_and_its_hash_alone_is_kept(tmp_path: Path) -> None:
    secrets = [run_keys("create", str(tmp_path), "--name", "ward").strip() for _ in range(2)]
    assert all(secret.startswith("ask_") and len(secret) == 4 + 43 for secret in secrets)
    assert secrets[0] != secrets[1]
    content = (tmp_path / "keys.json").read_text()
    assert all(secret not in content and secret[4:20] not in content for secret in secrets)
    assert [record.sha256 for record in parse_book(content.encode()).keys] == [hash_key(s) for s in secrets]


def test_the_file_of_keys_is_its_owners_alone(tmp_path: Path) -> None:
    run_keys("create", str(tmp_path / "run"), "--name", "ward")
    assert stat.S_IMODE((tmp_path / "run" / "keys.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700


def test_a_revoked_key_stays_revoked_and_an_expired_one_expired() -> None:
    _, record = make_key("ward", ["generate"], KeyLimits(), 1, NOW)
    assert [record.state(NOW + timedelta(hours=hours)) for hours in (0, 23, 24)] == [
        "usable",
        "usable",
        "expired",
    ]
    book = parse_book(b'{"keys": []}').with_key(record).with_revoked(record.id, NOW)
    assert book.with_revoked(record.id, NOW + timedelta(days=9)).keys[0].revoked == NOW
    assert book.keys[0].state(NOW) == "revoked"


def test_the_list_shows_whole_ids_and_states_and_no_key(tmp_path: Path) -> None:
    place = str(tmp_path / "team.json")
    secret = run_keys("create", place, "--name", "Ward 7", "--scope", "metrics", "--in-flight", "2").strip()
    [record] = KeyFile(place).load().keys
    run_keys("revoke", place, record.id)
    shown = run_keys("list", place)
    assert record.id in shown
    assert "Ward 7" in shown
    assert "revoked" in shown
    assert secret[4:20] not in shown


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("create", "PLACE", "--name", "x", "--scope", "admin"), "no scope 'admin'"),
        (("create", "PLACE", "--name", "a\nb"), "printable"),
        (("create", "PLACE", "--name", "x", "--days", "-1"), "0 to 36500 days"),
        (("create", "PLACE", "--name", "x", "--days", "nan"), "0 to 36500 days"),
        (("create", "PLACE", "--name", "x", "--days", "inf"), "0 to 36500 days"),
        (("create", "PLACE", "--name", "x", "--days", "1e9"), "0 to 36500 days"),
        (("revoke", "PLACE", "key_none"), "no key 'key_none'"),
    ],
)
def test_a_wrong_key_command_is_refused_and_changes_nothing(
    tmp_path: Path, arguments: tuple[str, ...], reason: str
) -> None:
    place = tmp_path / "keys.json"
    ended = CliRunner().invoke(app, ["keys", *(str(place) if a == "PLACE" else a for a in arguments)])
    assert ended.exit_code == 2
    assert reason in " ".join(ended.stderr.split())
    assert not place.exists()


def test_a_damaged_file_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(b'{"keys": [')
    ended = CliRunner().invoke(app, ["keys", "create", str(tmp_path), "--name", "x"])
    assert ended.exit_code == 2
    assert "damaged" in ended.stderr
    assert (tmp_path / "keys.json").read_bytes() == b'{"keys": ['


def test_two_writers_of_a_local_file_lose_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom asclepius_ray.cli import app\nfor number in range(8):\n"
        "    name = f'{sys.argv[2]}{number}'\n"
        "    app(['keys', 'create', sys.argv[1], '--name', name], standalone_mode=False)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), name], stdout=subprocess.DEVNULL)
        for name in "ab"
    ]
    assert [writer.wait(120) for writer in writers] == [0, 0]
    names = sorted(record.name for record in KeyFile(str(tmp_path)).load().keys)
    assert names == sorted(f"{name}{number}" for name in "ab" for number in range(8))


def test_two_writers_of_a_bucket_lose_nothing() -> None:
    with local_bucket("keys") as uri:
        place = uri.format("run/keys.json")

        def write(name: str) -> None:
            for number in range(4):
                _, record = make_key(f"{name}{number}", ["generate"], KeyLimits(), 0, NOW)
                KeyFile(place).change(lambda book, added=record: book.with_key(added))

        writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(120)
        names = sorted(record.name for record in KeyFile(place).load().keys)
        assert names == sorted(f"{name}{number}" for name in "ab" for number in range(4))
        assert KeyFile(uri.format("run")).load().keys, "the run's root stands for its keys.json"


def test_the_commands_start_without_ray_torch_or_a_web_framework(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom asclepius_ray.cli import app\n"
        "app(['keys', 'create', sys.argv[1], '--name', 'x'], standalone_mode=False)\n"
        "app(['keys', 'list', sys.argv[1]], standalone_mode=False)\n"
        "assert not {'ray', 'torch', 'fastapi', 'transformers'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, capture_output=True, timeout=60)


def test_a_book_of_another_version_or_with_unknown_fields_is_refused() -> None:
    _, record = make_key("ward", ["generate"], KeyLimits(), 0, NOW)
    good = dump_book(parse_book(b'{"keys": []}').with_key(record))
    assert parse_book(good).keys == (record,)
    for bad in (
        good.replace(b'"format_version": 1', b'"format_version": 2'),
        good.replace(b'"name"', b'"nick"'),
    ):
        with pytest.raises(ValueError, match="damaged in"):
            parse_book(bad)
