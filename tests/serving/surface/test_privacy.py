"""What a client writes is found in no error, no log record and no header, whatever becomes of its request."""

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from conformance_table import CANARY, REFUSALS, chat, completion
from scripted_engine import ScriptedEngine, saying
from surfaces import BATCH, CHAT, CLINICAL, COMPLETIONS, Surface, model_on, open_surface
from transformers import AutoTokenizer

ASKED = {"note": CANARY, "question": CANARY}
ANSWERED = [
    (CHAT, chat(model="trained")),
    (CHAT, chat(model="trained", stream=True, n=2, stop=[CANARY])),
    (COMPLETIONS, completion(model="trained", logprobs=1)),
    (CLINICAL, ASKED),
    (CLINICAL, {**ASKED, "stream": True}),
    (BATCH, {"items": [ASKED, {"note": CANARY}]}),
]


def test_no_text_of_a_request_is_found_in_a_log_record(
    surface: Surface, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        for path, body in ANSWERED:
            assert surface.post(path, body).status_code == 200
        for refusal in REFUSALS.values():
            surface.post("/v1" + refusal.path, refusal.body)
        httpx.get(f"{surface.address}/v1/models/{CANARY}?{CANARY}", headers=dict(surface.headers))
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert any("answered" in record.getMessage() for record in ours)
    for record in ours:
        assert CANARY not in record.getMessage() + str(record.exc_text) + json.dumps(
            record.__dict__, default=str
        )


def test_a_fault_of_the_server_says_nothing_of_the_request(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def break_down(_: Any) -> Any:
        raise ZeroDivisionError("a fault")

    tokenizer = AutoTokenizer.from_pretrained(folder)
    engine = ScriptedEngine(break_down)
    with open_surface({"trained": model_on("trained", engine, tokenizer)}) as surface:
        with caplog.at_level(logging.DEBUG):
            answers = [surface.post(path, body) for path, body in ANSWERED]
        assert surface.is_idle()
    for answer in answers:
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
        assert CANARY not in answer.text + str(answer.headers)
    text = "".join(
        record.getMessage() + logging.Formatter().format(record)
        for record in caplog.records
        if not record.name.startswith(("httpx", "httpcore"))
    )
    assert "ZeroDivisionError" in text
    assert CANARY not in text


def test_an_error_in_a_stream_says_nothing_of_the_request(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    engine = ScriptedEngine(saying([70], then="fail"))
    with open_surface({"trained": model_on("trained", engine, tokenizer)}) as surface:
        for path, body in ANSWERED:
            assert CANARY not in surface.post(path, body).text
