"""Pieces of text are the whole text, wherever the tokens end."""

import random

import pytest
from served_models import TEXTS

from asclepius_ray.serving.surface.text_stream import StopFilter, TokenDecoder
from asclepius_ray.tokens.tokenizer import train_tokenizer


def test_decoded_pieces_are_the_decoded_whole_for_any_bytes() -> None:
    tokenizer = train_tokenizer(TEXTS, vocabulary_size=300)
    generator = random.Random(5)
    for _ in range(200):
        ids = [generator.randrange(len(tokenizer)) for _ in range(30)]
        decoder = TokenDecoder(tokenizer)
        pieces = [decoder.add(token) for token in ids]
        assert "".join(pieces) + decoder.finish() == tokenizer.decode(ids, skip_special_tokens=True)


def test_no_piece_holds_half_a_character() -> None:
    tokenizer = train_tokenizer(["x"], vocabulary_size=262)
    text = "38.5 °C, naïve 日本 🫀 end"
    decoder = TokenDecoder(tokenizer)
    pieces = [decoder.add(token) for token in tokenizer(text)["input_ids"]]
    assert "".join(pieces) == text
    assert len([piece for piece in pieces if piece]) == len(text)


@pytest.mark.parametrize("size", [1, 2, 3, 50])
def test_a_stop_string_is_found_in_pieces_of_any_size(size: int) -> None:
    text = "the patient## was #well##END and more"
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    stop_filter = StopFilter(["##END", "never"])
    given = "".join(stop_filter.add(piece) for piece in pieces) + stop_filter.finish()
    assert (given, stop_filter.stopped) == ("the patient## was #well", True)


def test_what_only_begins_like_a_stop_string_is_given_in_the_end() -> None:
    stop_filter = StopFilter(["##END"])
    assert stop_filter.add("a ##E") == "a "
    assert stop_filter.add("N") == ""
    assert stop_filter.finish() == "##EN"
    assert not stop_filter.stopped


def test_without_stop_strings_nothing_is_held_back() -> None:
    assert StopFilter([]).add("text") == "text"
