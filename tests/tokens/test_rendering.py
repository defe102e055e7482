"""Examples → ids and loss mask; notes that are too long."""

import itertools
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from asclepius_ray.errors import InputError
from asclepius_ray.prompts.rendering import render_instruction
from asclepius_ray.tokens.chat_template import PLAIN_CHAT_TEMPLATE, ensure_chat_template, writes_the_date
from asclepius_ray.tokens.rendering import (
    end_token_id,
    prompt_ids,
    render_example,
    render_note,
    shorten_note,
)
from asclepius_ray.tokens.shortening import OMISSION, split_sentences, without_middle
from asclepius_ray.tokens.tokenizer import train_tokenizer

NOTE = "\n".join(
    f"Day {day}: the patient took {drug} at {day} o'clock. Blood pressure {100 + day}/{60 + day} mmHg."
    for day, drug in enumerate(["aspirin", "iron", "heparin", "metoprolol", "ibuprofen"] * 6)
)
QUESTION, ANSWER = "Which drug was given on day 3?", "Metoprolol, for the rate."
CHATML = (
    "{% for message in messages %}{{ '<|user|>' if message['role'] == 'user' else '<|reply|>' }}"
    "{{ message['content'] + '<|stop|>\n' }}{% endfor %}{% if add_generation_prompt %}<|reply|>{% endif %}"
)
FORGETFUL = (
    "{% for message in messages %}[{{ message['content'] }}]{% endfor %}"
    "{% if add_generation_prompt %} Answer:{% endif %}"
)


def make_tokenizer(template: str = PLAIN_CHAT_TEMPLATE) -> PreTrainedTokenizerBase:
    tokenizer = train_tokenizer([NOTE, QUESTION, ANSWER], 400)
    if template == CHATML:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|reply|>", "<|stop|>"]})
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="module", params=[PLAIN_CHAT_TEMPLATE, CHATML], ids=["plain", "own template"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerBase:
    return make_tokenizer(request.param)


def test_loss_is_paid_on_the_answer_and_its_end_token_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    example = render_example(tokenizer, NOTE, QUESTION, ANSWER, 4096)
    assert example is not None
    paid = [token for token, target in zip(example.input_ids, example.loss_mask, strict=True) if target]
    end = end_token_id(tokenizer)
    assert paid[-1] == end
    assert end not in paid[:-1]
    assert tokenizer.decode(paid[:-1]) == ANSWER
    prompt = prompt_ids(tokenizer, NOTE, QUESTION)
    assert example.input_ids[: len(prompt)] == prompt
    assert example.loss_mask[: len(prompt)] == [False] * len(prompt)


def test_the_prompt_holds_the_instruction_byte_for_byte(tokenizer: PreTrainedTokenizerBase) -> None:
    assert render_instruction(NOTE, QUESTION) in tokenizer.decode(prompt_ids(tokenizer, NOTE, QUESTION))


def test_the_end_token_is_that_of_the_template() -> None:
    own = make_tokenizer(CHATML)
    assert own.convert_ids_to_tokens(end_token_id(own)) == "<|stop|>"
    plain = make_tokenizer()
    assert end_token_id(plain) == plain.eos_token_id


def test_a_template_that_does_not_end_at_the_answer_is_refused() -> None:
    with pytest.raises(InputError, match="chat template"):
        render_example(make_tokenizer(FORGETFUL), NOTE, QUESTION, ANSWER, 4096)


def test_only_a_model_without_a_template_gets_ours() -> None:
    own, bare = make_tokenizer(CHATML), make_tokenizer("")
    assert not ensure_chat_template(own)
    assert own.chat_template == CHATML
    assert ensure_chat_template(bare)
    assert bare.chat_template == PLAIN_CHAT_TEMPLATE


@pytest.mark.parametrize(
    ("date", "is_written"),
    [
        ("{{ strftime_now('%d %b %Y') }}", True),
        ("{{ strftime_now('%-d') }}", True),
        ("{{ 'new' if strftime_now('%Y') | int > 2024 else 'old' }}", True),
        ("{% set date_string = date_string | default(strftime_now('%A')) %}{{ date_string }}", True),
        ("{% macro day() %}{{ strftime_now('%Y-%m-%d') }}{% endmacro %}{{ day() }}", True),
        ("{% set date_string = date_string | default('26 Jul 2024') %}{{ date_string }}", False),
        ("{% if strftime_now is defined %}Today{% endif %}", False),
        ("{% set unused = strftime_now('%Y') %}", False),
    ],
)
def test_a_template_that_writes_the_date_is_known(date: str, is_written: bool) -> None:
    assert writes_the_date(make_tokenizer(date + CHATML)) is is_written
    assert not writes_the_date(make_tokenizer())


def test_a_saved_tokenizer_renders_the_same_ids(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    assert prompt_ids(opened, NOTE, QUESTION) == prompt_ids(tokenizer, NOTE, QUESTION)


def test_every_byte_of_a_text_survives_the_tokenizer() -> None:
    tokenizer = make_tokenizer()
    text = "Tränen µg \u2265 5 \U0001f600\ttab  two spaces \n end "
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize("length", [200, 300, 400, 600])
def test_a_note_that_is_too_long_loses_whole_sentences_and_the_answer_none(
    tokenizer: PreTrainedTokenizerBase, length: int
) -> None:
    example = render_example(tokenizer, NOTE, QUESTION, ANSWER, length)
    assert example is not None
    assert example.shortened
    assert length - 60 < len(example.input_ids) <= length
    paid = [token for token, target in zip(example.input_ids, example.loss_mask, strict=True) if target]
    assert tokenizer.decode(paid[:-1]) == ANSWER
    room = length - len(paid)
    kept = shorten_note(tokenizer, NOTE, QUESTION, room)
    assert example.input_ids[: -len(paid)] == prompt_ids(tokenizer, kept, QUESTION)
    sentences = {sentence.strip() for sentence in split_sentences(NOTE)}
    assert all(sentence.strip() in {*sentences, OMISSION} for sentence in split_sentences(kept))
    assert kept == shorten_note(tokenizer, NOTE, QUESTION, room)


def test_a_note_that_fits_is_not_touched(tokenizer: PreTrainedTokenizerBase) -> None:
    exact = len(prompt_ids(tokenizer, NOTE, QUESTION))
    assert shorten_note(tokenizer, NOTE, QUESTION, exact) == NOTE
    assert shorten_note(tokenizer, NOTE, QUESTION, exact - 1) != NOTE


def test_an_answer_without_room_for_its_question_is_no_example(tokenizer: PreTrainedTokenizerBase) -> None:
    assert render_example(tokenizer, NOTE, QUESTION, ANSWER * 40, 128) is None
    with pytest.raises(InputError, match="30 tokens"):
        shorten_note(tokenizer, NOTE, QUESTION, 30)


def test_more_left_out_is_always_a_part_of_less() -> None:
    pieces = split_sentences(NOTE)
    assert "".join(pieces) == NOTE
    texts = [without_middle(pieces, dropped) for dropped in range(len(pieces) + 1)]
    assert texts[0] == NOTE
    assert texts[-1] == OMISSION
    for longer, shorter in itertools.pairwise(texts[1:]):
        less, more = ({piece.strip() for piece in split_sentences(text)} for text in (shorter, longer))
        assert less <= more
        assert len(shorter) < len(longer)


def test_a_text_without_sentences_is_cut_too() -> None:
    for text in ("word " * 500, "x" * 2000):
        pieces = split_sentences(text)
        assert len(pieces) > 3
        assert "".join(pieces) == text


@pytest.mark.parametrize("length", [64, 100, 4096])
def test_every_token_of_a_note_but_the_first_is_a_target_once(
    tokenizer: PreTrainedTokenizerBase, length: int
) -> None:
    pieces = render_note(tokenizer, NOTE, length)
    assert all(len(piece.input_ids) <= length for piece in pieces)
    targets = [
        token
        for piece in pieces
        for token, target in zip(piece.input_ids, piece.loss_mask, strict=True)
        if target
    ]
    whole = [*tokenizer(NOTE)["input_ids"], tokenizer.eos_token_id]
    assert targets == whole[1:]
    assert whole[0] == tokenizer.bos_token_id
    assert all(not piece.loss_mask[0] for piece in pieces)
