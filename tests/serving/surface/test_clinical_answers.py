"""The clinical routes: the prompt of the training, notes that are too long, and many notes in one request."""

import asyncio
import json
import time
from typing import Any, get_args

import httpx
import pytest
from served_models import CONTEXT_TOKENS, MAX_NEW_TOKENS, generate_greedily
from surfaces import BATCH, CHAT, CLINICAL, Surface
from transformers import AutoTokenizer

from asclepius_ray.prompts.rendering import render_instruction
from asclepius_ray.records import Task
from asclepius_ray.serving.surface.clinical_batch import ITEMS_AT_A_TIME
from asclepius_ray.serving.surface.clinical_schemas import MOST_BATCH_ITEMS, TaskId
from asclepius_ray.serving.surface.response_schemas import AnswerDone, BatchAnswer, ClinicalAnswer
from asclepius_ray.serving.surface.size_checks import CHARACTERS_A_TOKEN
from asclepius_ray.tokens.rendering import prompt_ids, shorten_note

CANARY = "zebrafinch-canary"
QUESTION = f"What is the diagnosis of {CANARY}?"
NOTE = f"A 63-year-old man named {CANARY} came with chest pain. Troponin was 2.4 ng/mL. Aspirin was given."
LONG_NOTE = "\n".join(f"Day {day}: {CANARY} had a temperature of 38.{day % 10} °C." for day in range(300))
ASKED = {"note": NOTE, "question": QUESTION}


def test_the_answer_is_the_models_to_the_exact_prompt_of_the_training(surface: Surface, folder: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = prompt_ids(tokenizer, NOTE, QUESTION)
    generated = generate_greedily(folder, ids, MAX_NEW_TOKENS)
    found = surface.post(CLINICAL, ASKED).json()
    assert found["answer"] == tokenizer.decode(generated, skip_special_tokens=True)
    assert found["usage"]["prompt_tokens"] == len(ids)
    assert (found["model"], found["note_was_shortened"]) == ("trained", False)
    turn = [{"role": "user", "content": render_instruction(NOTE, QUESTION)}]
    body = {"model": "trained", "messages": turn, "max_tokens": MAX_NEW_TOKENS, "temperature": 0}
    chat = surface.post(CHAT, body).json()
    assert chat["choices"][0]["message"]["content"] == found["answer"]
    assert chat["usage"]["prompt_tokens"] == len(ids)


def test_the_answer_has_all_its_fields(surface: Surface) -> None:
    found = ClinicalAnswer.model_validate(surface.post(CLINICAL, ASKED | {"max_tokens": 5}).json())
    assert found.usage.completion_tokens == 5
    assert 0 < (found.seconds.first_token or 0) <= found.seconds.total
    assert all(0 <= passage.start < passage.end <= len(NOTE) for passage in found.passages)


def test_a_stream_ends_with_the_whole_answer_and_done(surface: Surface) -> None:
    whole = surface.post(CLINICAL, ASKED).json()
    text = surface.post(CLINICAL, ASKED | {"stream": True}).text
    events = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
    assert events[-1] == "[DONE]"
    done = AnswerDone.model_validate_json(events[-2])
    deltas = [json.loads(event) for event in events[:-2]]
    assert {delta["type"] for delta in deltas} == {"answer.delta"}
    assert "".join(delta["delta"] for delta in deltas) == done.answer == whole["answer"]
    assert done.usage.model_dump() == whole["usage"]
    assert [passage.model_dump() for passage in done.passages] == whole["passages"]


def test_each_task_asks_its_default_question(surface: Surface) -> None:
    tasks = surface.get("/v1/clinical/tasks").json()["data"]
    assert [(task["id"], task["name"]) for task in tasks] == [(task.slug, task.value) for task in Task]
    assert [task["id"] for task in tasks] == list(get_args(TaskId))
    assert len({task["question"] for task in tasks}) == 8
    for task in tasks:
        asked = {"note": NOTE, "max_tokens": 4}
        expected = surface.post(CLINICAL, asked | {"question": task["question"]}).json()
        for name in (task["id"], task["name"]):
            found = surface.post(CLINICAL, asked | {"task": name}).json()
            assert (found["answer"], found["usage"]) == (expected["answer"], expected["usage"])


def test_a_question_comes_before_the_tasks_own(surface: Surface) -> None:
    with_task = surface.post(CLINICAL, ASKED | {"task": "summarization", "max_tokens": 4}).json()
    assert with_task["usage"] == surface.post(CLINICAL, ASKED | {"max_tokens": 4}).json()["usage"]


def test_the_model_of_the_body_answers(surface: Surface) -> None:
    answers = [
        surface.post(CLINICAL, ASKED | {"model": name}).json() for name in ("trained", "untrained", None)
    ]
    assert [answer["model"] for answer in answers] == ["trained", "untrained", "trained"]
    assert answers[0]["answer"] != answers[1]["answer"]
    assert answers[0]["answer"] == answers[2]["answer"]


def test_a_note_that_is_too_long_is_shortened_as_in_the_training(surface: Surface, folder: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    limit = CONTEXT_TOKENS - MAX_NEW_TOKENS
    kept = shorten_note(tokenizer, LONG_NOTE, QUESTION, limit)
    found = surface.post(CLINICAL, {"note": LONG_NOTE, "question": QUESTION}).json()
    assert found["note_was_shortened"] is True
    assert found["usage"]["prompt_tokens"] == len(prompt_ids(tokenizer, kept, QUESTION)) <= limit


def test_a_note_that_is_too_long_is_refused_where_that_was_asked_for(surface: Surface) -> None:
    body = {"note": LONG_NOTE, "question": QUESTION, "long_note": "refuse"}
    refused = surface.post(CLINICAL, body)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", "note")
    assert CANARY not in refused.text
    assert surface.post(CLINICAL, ASKED | {"long_note": "refuse"}).status_code == 200


def asked(**changes: object) -> dict[str, object]:
    return {**ASKED, **changes}


REFUSED = {
    "no note": ({"question": CANARY}, "missing_required_parameter", "note"),
    "empty note": (asked(note=""), "invalid_value", "note"),
    "no question": ({"note": NOTE}, "missing_required_parameter", "question"),
    "empty question": (asked(question=""), "invalid_value", "question"),
    "unknown task": (asked(task=CANARY), "invalid_value", "task"),
    "unknown parameter": (asked(top_k=1), "unknown_parameter", "top_k"),
    "temperature": (asked(temperature=0.5), "unknown_parameter", "temperature"),
    "long_note": (asked(long_note=CANARY), "invalid_value", "long_note"),
    "max_tokens": (asked(max_tokens=0), "invalid_value", "max_tokens"),
    "endless note": (asked(note="no " * 11 * CONTEXT_TOKENS), "context_length_exceeded", "note"),
    "endless question": (asked(question="no " * 11 * CONTEXT_TOKENS), "context_length_exceeded", "question"),
    "long question": (asked(question=f"{CANARY} " * CONTEXT_TOKENS), "context_length_exceeded", "question"),
    "long answer": (asked(max_tokens=CONTEXT_TOKENS), "context_length_exceeded", "max_tokens"),
}


@pytest.mark.parametrize(("body", "code", "param"), REFUSED.values(), ids=REFUSED.keys())
def test_a_wrong_question_is_refused_by_name_alone_and_in_a_batch(
    surface: Surface, body: dict[str, object], code: str, param: str
) -> None:
    alone = surface.post(CLINICAL, body)
    error = alone.json()["error"]
    assert (alone.status_code, error["code"], error["param"]) == (400, code, param)
    settings = {name: body[name] for name in ("long_note", "max_tokens") if name in body}
    if param not in settings:
        item = {name: value for name, value in body.items() if name not in settings}
        batch = surface.post(BATCH, {"items": [item], **settings}).json()
        assert batch["items"][0]["error"] == error
    assert CANARY not in alone.text


def test_an_unknown_model_of_a_clinical_route_is_404(surface: Surface) -> None:
    for path, body in ((CLINICAL, ASKED), (BATCH, {"items": [ASKED]})):
        refused = surface.post(path, {**body, "model": CANARY})
        assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")
        assert CANARY not in refused.text


def test_a_batch_answers_each_item_on_its_own_and_in_order(surface: Surface) -> None:
    items = [
        {"id": "first", **ASKED},
        {"id": "second", "note": CANARY},
        {"note": NOTE, "task": "summarization"},
        5,
        {"id": "last", "note": LONG_NOTE, "question": QUESTION},
    ]
    answer = surface.post(BATCH, {"items": items, "max_tokens": 6, "long_note": "refuse"})
    found = BatchAnswer.model_validate(answer.json())
    assert [item.index for item in found.items] == [0, 1, 2, 3, 4]
    assert [item.id for item in found.items] == ["first", "second", None, None, "last"]
    codes = [item.error and item.error.code for item in found.items]
    assert codes == [None, "missing_required_parameter", None, "invalid_type", "context_length_exceeded"]
    answers = [item.answer for item in found.items]
    alone = surface.post(CLINICAL, ASKED | {"max_tokens": 6}).json()
    assert answers[0] is not None
    assert answers[0].answer == alone["answer"]
    assert answers[2] is not None
    assert found.usage.completion_tokens == 12
    assert found.usage.prompt_tokens == answers[0].usage.prompt_tokens + answers[2].usage.prompt_tokens
    assert CANARY not in json.dumps([item.error and item.error.model_dump() for item in found.items])


def test_a_batch_beyond_the_stated_number_of_items_is_refused(surface: Surface) -> None:
    refused = surface.post(BATCH, {"items": [ASKED] * (MOST_BATCH_ITEMS + 1)})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (400, "invalid_value", "items")
    assert str(MOST_BATCH_ITEMS) in error["message"]
    assert surface.post(BATCH, {"items": []}).status_code == 400


def test_a_batch_waits_for_room_and_never_fails_for_want_of_it(surface: Surface) -> None:
    model = surface.models["trained"]
    held, model.admission.budget_tokens = model.admission.budget_tokens, 700
    most_running = 0

    async def ask_and_watch() -> httpx.Response:
        nonlocal most_running
        async with httpx.AsyncClient(headers=dict(surface.headers), timeout=120) as client:
            body = {"items": [ASKED] * (ITEMS_AT_A_TIME + 4), "max_tokens": 8}
            asked = asyncio.create_task(client.post(surface.address + BATCH, json=body))
            while not asked.done():
                most_running = max(most_running, model.engine.stats().running_requests)
                await asyncio.sleep(0.005)
            return await asked

    try:
        found = BatchAnswer.model_validate(asyncio.run(ask_and_watch()).json())
    finally:
        model.admission.budget_tokens = held
    assert [item.error for item in found.items] == [None] * (ITEMS_AT_A_TIME + 4)
    assert len({item.answer.answer for item in found.items if item.answer}) == 1
    assert 1 <= most_running <= 3
    assert surface.is_idle()


def test_the_items_of_a_batch_that_are_late_say_so(surface: Surface) -> None:
    items = [{"note": f"{index} {NOTE}", "question": QUESTION} for index in range(60)]
    headers = {**surface.headers, "x-request-timeout-seconds": "1"}
    answer = surface.post(BATCH, {"items": items, "max_tokens": 400}, headers)
    assert answer.status_code == 200
    settled = answer.json()["items"]
    codes = {item["error"]["code"] for item in settled if item["error"]}
    assert codes == {"deadline_exceeded"}
    assert all((item["answer"] is None) != (item["error"] is None) for item in settled)
    assert surface.is_idle()


def test_a_long_note_does_not_hold_up_the_others(surface: Surface) -> None:
    note = f"{NOTE}\n" * (CHARACTERS_A_TOKEN * CONTEXT_TOKENS // (len(NOTE) + 1))

    async def ask_both() -> tuple[httpx.Response, list[float]]:
        async with httpx.AsyncClient(headers=dict(surface.headers), timeout=120) as client:
            body = {"note": note, "question": QUESTION}
            asked = asyncio.create_task(client.post(surface.address + CLINICAL, json=body))
            waits = []
            while not asked.done():
                started = time.monotonic()
                assert (await client.get(f"{surface.address}/health/ready")).status_code == 200
                waits.append(time.monotonic() - started)
                await asyncio.sleep(0.05)
            return await asked, waits

    started = time.monotonic()
    answer, waits = asyncio.run(ask_both())
    total_seconds = time.monotonic() - started
    assert answer.json()["note_was_shortened"]
    assert max(waits) < total_seconds / 3, f"{max(waits):.1f} of {total_seconds:.1f} s"
