"""`asclepius ask` as somebody types it, at a really served model."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from reciting_model import save_reciting_model
from served_models import API_KEY, CANARY
from surfaces import CLINICAL, Surface, open_surface, serve_model

ASCLEPIUS = Path(sys.executable).parent / "asclepius"
NOTE = f"{CANARY}: a 63-year-old man was admitted with chest pain. Troponin was 2.4 ng/mL at 12:pill:."
WRONG_KEY = "another-key-nothing-secret-0815"
TASK = "summarization"


def ask(url: str, *arguments: str, key: str = API_KEY) -> subprocess.CompletedProcess[str]:
    """The command with the note on its standard input."""
    return subprocess.run(
        [ASCLEPIUS, "ask", "--note", "-", "--url", url, *arguments],
        input=NOTE,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "ASCLEPIUS_API_KEY": key},
    )


def test_a_note_from_standard_input_is_answered_as_the_route_answers_it(surface: Surface) -> None:
    asked = {"note": NOTE, "task": TASK, "model": "untrained"}
    expected = surface.post(CLINICAL, asked).json()
    ended = ask(f"{surface.address}/v1", "--task", TASK, "--model", "untrained")
    assert (ended.returncode, ended.stdout) == (0, expected["answer"] + "\n")
    usage = expected["usage"]
    assert ended.stderr.startswith(f"{usage['prompt_tokens']} + {usage['completion_tokens']} tokens, ")
    assert ended.stderr.endswith("For research, not for clinical decisions.\n")


def test_an_answer_is_printed_letter_by_letter_as_the_model_wrote_it(tmp_path: Path) -> None:
    pieces = ["[bold]", ":pill:", " 5", " mg", "[/bold]", " daily"]
    model = serve_model("recites", save_reciting_model(tmp_path, pieces, context_tokens=1024))
    try:
        with open_surface({"recites": model}) as opened:
            assert ask(f"{opened.address}/v1", "--task", TASK).stdout == "".join(pieces) + "\n"
    finally:
        model.engine.stop()


@pytest.mark.parametrize(
    ("arguments", "key", "exit_code", "words"),
    [
        (["--task", TASK], WRONG_KEY, 5, "refuses the key"),
        (["--task", "no_such_task"], API_KEY, 5, "answered with HTTP status 400 (invalid_value)"),
        (["--task", TASK, "--model", "third"], API_KEY, 5, "HTTP status 404 (model_not_found)"),
        ([], API_KEY, 2, "there is nothing to ask"),
        (["--task", TASK], "", 2, "ASCLEPIUS_API_KEY is not set"),
    ],
    ids=["a wrong key", "an unknown task", "an unknown model", "no question", "no key"],
)
def test_what_is_refused_is_one_line_with_its_reason_and_nothing_of_the_note(
    surface: Surface, arguments: list[str], key: str, exit_code: int, words: str
) -> None:
    check_refusal(ask(f"{surface.address}/v1", *arguments, key=key), exit_code, words)


def test_an_address_that_nobody_listens_at_is_told_as_such() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        check_refusal(ask(address, "--task", TASK), 5, f"{address}/clinical/answers cannot be reached")


def check_refusal(ended: subprocess.CompletedProcess[str], exit_code: int, words: str) -> None:
    assert (ended.returncode, ended.stdout) == (exit_code, "")
    assert words in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1
    for secret in (CANARY, API_KEY, WRONG_KEY):
        assert secret not in ended.stderr
