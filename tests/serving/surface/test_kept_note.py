"""Passages come from what the model was given of a note, wherever sentences were left out."""

import random
from pathlib import Path

import pytest
from scripted_engine import ScriptedEngine, saying
from surfaces import BATCH, CLINICAL, model_on, open_surface
from transformers import AutoTokenizer

from asclepius_ray.serving.passage import find_passages
from asclepius_ray.serving.surface.kept_note import kept_ranges
from asclepius_ray.tokens.shortening import OMISSION, shorten_text

DROPPED = "Warfarin was stopped because of a bleeding ulcer."
KEPT = "She takes apixaban twice daily."
NOTE = "\n".join(
    [
        *(f"Day {day}: the temperature was 38.{day % 10} °C." for day in range(100)),
        DROPPED,
        *(f"Day {day}: the temperature was 37.{day % 10} °C." for day in range(100, 150)),
        KEPT,
    ]
)
ANSWER = f"{DROPPED} {KEPT}"


@pytest.mark.parametrize("path", [CLINICAL, BATCH])
def test_passages_of_a_shortened_note_are_what_the_model_saw_at_their_place_in_the_whole(
    path: str, folder: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    said = tokenizer(ANSWER, add_special_tokens=False)["input_ids"]
    item = {"note": NOTE, "question": "Which anticoagulant?"}
    engine = ScriptedEngine(saying([*said, 1]))
    with open_surface({"one": model_on("one", engine, tokenizer)}) as surface:
        body = {**item, "max_tokens": 200} if path == CLINICAL else {"items": [item], "max_tokens": 200}
        found = surface.post(path, body).json()
    answer = found if path == CLINICAL else found["items"][0]["answer"]
    assert DROPPED not in tokenizer.decode(engine.requests[0].prompt_ids)
    assert (answer["answer"], answer["note_was_shortened"]) == (ANSWER, True)
    assert [NOTE[one["start"] : one["end"]] for one in answer["passages"]] == [KEPT]
    assert DROPPED in [NOTE[one.start : one.end] for one in find_passages(NOTE, ANSWER)]


def test_the_kept_ranges_are_the_kept_text_for_any_note_and_limit() -> None:
    chance = random.Random(3)
    pieces = ["One two. ", "\n", "  ", f"{OMISSION} ", f"\n{OMISSION}\n", "a" * 900, "b. ", "Was it? Yes."]
    num_shortened = 0
    for _ in range(2_000):
        note = "".join(chance.choices(pieces, k=chance.randrange(1, 30)))
        kept = shorten_text(note, chance.randrange(len(OMISSION), len(note) + 8), len)
        parts = [note[start:end] for start, end in kept_ranges(note, kept)]
        if kept == note:
            assert parts == [note]
            continue
        num_shortened += 1
        head, tail = parts
        assert kept == "\n".join(part for part in (head, OMISSION, tail) if part)
    assert num_shortened > 500
