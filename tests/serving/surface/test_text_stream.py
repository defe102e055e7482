"""Pieces of text are the whole text, wherever the tokens end."""

import json
import random
from typing import Any

import pytest
from served_models import TEXTS
from tokenizers import Tokenizer, decoders, models, normalizers, trainers
from transformers import PreTrainedTokenizerFast

from asclepius_ray.serving.engines.engine import GenerationRequest, TokenChunk
from asclepius_ray.serving.surface.choice import Choice
from asclepius_ray.serving.surface.text_stream import (
    MOST_TOKENS_HELD_BACK,
    UNFINISHED_CHARACTER,
    StopFilter,
    TokenDecoder,
    text_decoding,
)
from asclepius_ray.serving.surface.token_bytes import TokenBytes, shown_token
from asclepius_ray.tokens.tokenizer import train_tokenizer


def sentence_piece_tokenizer() -> PreTrainedTokenizerFast:
    """As Llama 2's: spaces are U+2581, the first one is not written, an unknown character is its bytes."""
    prepend = [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
    learned = Tokenizer(models.BPE())
    learned.normalizer = normalizers.Sequence(prepend)
    learned.train_from_iterator(TEXTS * 4, trainers.BpeTrainer(vocab_size=150, show_progress=False))
    model = json.loads(learned.to_str())["model"]
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    vocabulary = {word: place for place, word in enumerate(words)}
    merges = [(first, second) for first, second in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = learned.normalizer
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def said_by(tokenizer: Any, ids: list[int]) -> str:
    """The text of an answer of these tokens and an end token."""
    end_id = len(tokenizer)
    request = GenerationRequest(request_id="one", prompt_ids=[1], max_new_tokens=100)
    choice = Choice(0, request, frozenset({end_id}), text_decoding(tokenizer), [])
    pieces = [choice.take(TokenChunk([token])) for token in [*ids, end_id]]
    return "".join(piece.text for piece in [*pieces, choice.finish()])


def pieces_of(tokenizer: Any, ids: list[int]) -> list[str]:
    decoder = TokenDecoder(text_decoding(tokenizer))
    return [*(decoder.add(token) for token in ids), decoder.finish()]


TOKENIZERS = {"bytes": train_tokenizer(TEXTS, vocabulary_size=300), "pieces": sentence_piece_tokenizer()}


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
def test_an_answer_is_the_decoded_whole_for_any_bytes(tokenizer: Any) -> None:
    generator = random.Random(5)
    for _ in range(300):
        ids = [generator.randrange(len(tokenizer)) for _ in range(30)]
        assert said_by(tokenizer, ids) == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
def test_an_answer_that_ends_inside_a_character_is_the_decoded_whole(tokenizer: Any) -> None:
    ids = tokenizer("38.5 °C, naïve 日本 🫀 end", add_special_tokens=False)["input_ids"]
    texts = [said_by(tokenizer, ids[:end]) for end in range(1, len(ids))]
    assert texts == [tokenizer.decode(ids[:end], skip_special_tokens=True) for end in range(1, len(ids))]
    assert any(text.endswith(UNFINISHED_CHARACTER) for text in texts)


def test_no_piece_holds_half_a_character() -> None:
    tokenizer = train_tokenizer(["x"], vocabulary_size=262)
    text = "38.5 °C, naïve 日本 🫀 end"
    pieces = pieces_of(tokenizer, tokenizer(text)["input_ids"])
    assert "".join(pieces) == text
    assert len([piece for piece in pieces if piece]) == len(text)


def test_pieces_keep_the_spaces_of_a_sentence_piece_tokenizer() -> None:
    tokenizer = sentence_piece_tokenizer()
    text = " ".join(TEXTS) + " 日本 and  two spaces"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = pieces_of(tokenizer, [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id])
    assert "".join(pieces) == tokenizer.decode(ids) == text
    assert len([piece for piece in pieces if piece]) > 50


def test_bytes_that_never_become_a_character_are_not_held_back_for_ever() -> None:
    tokenizer = train_tokenizer(["x"], vocabulary_size=262)
    half = tokenizer("°")["input_ids"][-2]
    decoder = TokenDecoder(text_decoding(tokenizer))
    pieces = [decoder.add(half) for _ in range(3 * MOST_TOKENS_HELD_BACK)]
    assert max(len(piece) for piece in pieces) == MOST_TOKENS_HELD_BACK
    assert len("".join(pieces)) == 3 * MOST_TOKENS_HELD_BACK


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
def test_the_bytes_of_the_tokens_are_the_bytes_of_the_text(tokenizer: Any) -> None:
    text = "The patient's temperature was 38.5 °C, müde; 日本 🫀"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    token_bytes = TokenBytes(tokenizer)
    found = [token_bytes.of(token) for token in ids]
    assert b"".join(found).removeprefix(b" ") == text.encode()
    heart = [shown_token(part) for part in found if part[0] >= 0x80][-4:]
    assert heart == ["bytes:\\xf0", "bytes:\\x9f", "bytes:\\xab", "bytes:\\x80"]
    assert token_bytes.of(tokenizer.eos_token_id) == tokenizer.eos_token.encode()


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
