"""A note or an example → token ids and the loss mask. Training, serving and evaluation use these ids.

`loss_mask[i]` is True where token i is a target: the answer and the end of the turn, never the prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from asclepius_ray.errors import InputError
from asclepius_ray.prompts.rendering import render_instruction
from asclepius_ray.tokens.shortening import shorten_text

if TYPE_CHECKING:
    # What answers no question itself, as the front, imports the routes without this library's weight.
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenizedExample:
    """One document of the token store."""

    input_ids: list[int]
    loss_mask: list[bool]
    shortened: bool = False
    """True if sentences of the note were left out to make the example fit."""


def prompt_ids(tokenizer: PreTrainedTokenizerBase, note: str, question: str) -> list[int]:
    """The ids that the model is given before its answer: the instruction as the only user turn."""
    return _encode(tokenizer, _prompt_text(tokenizer, note, question))


def shorten_note(tokenizer: PreTrainedTokenizerBase, note: str, question: str, max_prompt_tokens: int) -> str:
    """The note itself if its prompt fits into `max_prompt_tokens`, else the note with sentences left out.

    The same note, question and limit give the same text. An InputError if the question alone is too long.
    """

    def prompt_tokens(text: str) -> int:
        return len(prompt_ids(tokenizer, text, question))

    return shorten_text(note, max_prompt_tokens, prompt_tokens)


def render_example(
    tokenizer: PreTrainedTokenizerBase, note: str, question: str, answer: str, sequence_length: int
) -> TokenizedExample | None:
    """The example in at most `sequence_length` tokens; None if the answer leaves no room for the question.

    The prompt's ids are exactly `prompt_ids` of the (possibly shortened) note.
    """
    answer_ids = _answer_ids(tokenizer, note, question, answer)
    try:
        kept = shorten_note(tokenizer, note, question, sequence_length - len(answer_ids))
    except InputError:
        return None
    prompt = prompt_ids(tokenizer, kept, question)
    mask = [False] * len(prompt) + [True] * len(answer_ids)
    return TokenizedExample(prompt + answer_ids, mask, shortened=kept != note)


def render_note(
    tokenizer: PreTrainedTokenizerBase, note: str, sequence_length: int
) -> list[TokenizedExample]:
    """A note for language modelling, in pieces of at most `sequence_length` tokens.

    A piece begins with the last token of the one before, so that every token but the very first is
    a target exactly once.
    """
    ids: list[int] = list(tokenizer(note, verbose=False)["input_ids"])
    if ids[-1:] != [tokenizer.eos_token_id]:
        ids.append(tokenizer.eos_token_id)
    pieces = [ids[start : start + sequence_length] for start in range(0, len(ids) - 1, sequence_length - 1)]
    return [TokenizedExample(piece, [False] + [True] * (len(piece) - 1)) for piece in pieces]


def end_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends an answer under the tokenizer's chat template; generation stops at it."""
    return _answer_ids(tokenizer, "note", "question", "answer")[-1]


def _prompt_text(tokenizer: PreTrainedTokenizerBase, note: str, question: str) -> str:
    turns = [{"role": "user", "content": render_instruction(note, question)}]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return text


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # The template's text holds the special tokens already. verbose=False: a long text is no warning.
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return list(ids)


def _answer_ids(tokenizer: PreTrainedTokenizerBase, note: str, question: str, answer: str) -> list[int]:
    """What follows the prompt: the answer and one end token."""
    prompt = _prompt_text(tokenizer, note, question)
    turns = [
        {"role": "user", "content": render_instruction(note, question)},
        {"role": "assistant", "content": answer},
    ]
    whole: str = tokenizer.apply_chat_template(turns, tokenize=False)
    if not whole.startswith(prompt):
        raise InputError(
            "the base model's chat template does not put an answer right behind its generation prompt; "
            "use a base model with another template, or remove the template so that the plain one is used"
        )
    head, joint = _encode(tokenizer, prompt), _encode(tokenizer, whole)
    # Two texts tokenised apart may differ from their sum at the seam; the prompt must stay as it is served.
    rest = joint[len(head) :] if joint[: len(head)] == head else _encode(tokenizer, whole[len(prompt) :])
    return _cut_behind_end(tokenizer, rest)


def _cut_behind_end(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """The ids up to and with the last special token: some templates write a line end behind it."""
    special = set(tokenizer.all_special_ids)
    ends = [position for position, token in enumerate(ids) if token in special]
    return ids[: ends[-1] + 1] if ends else [*ids, tokenizer.eos_token_id]
