"""What ends a run as a whole, as the user is told of it."""

import errno

import pytest
import typer

from asclepius_ray.chat.desk_link import RunTrouble
from asclepius_ray.chat.desk_messages import Trouble
from asclepius_ray.chat.run_trouble import trouble_as_error
from asclepius_ray.cli import guarded


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (
            OSError("When writing key: AWS Error ACCESS_DENIED during PutObject"),
            "ACCESS_DENIED during PutObject",
        ),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (IsADirectoryError(errno.EISDIR, "Is a directory"), "Is a directory"),
    ],
    ids=["bucket", "disk", "full disk", "folder"],
)
def test_trouble_with_the_journal_is_one_message_with_its_reason(
    error: OSError, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    @guarded
    def command() -> None:
        with trouble_as_error():
            raise RunTrouble(Trouble.of_storage(error))

    with pytest.raises(typer.Exit) as end:
        command()
    assert end.value.exit_code == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the journal cannot be read or written (")
    assert word in said
    assert "what is finished is kept" in said
