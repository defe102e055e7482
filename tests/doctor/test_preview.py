"""The preview of a row: what is learnt from is marked, and no real note is shown without being asked for."""

import io

import pytest
from rich.console import Console
from transformers import PreTrainedTokenizerBase

from asclepius_ray.doctor.findings import Level
from asclepius_ray.doctor.preview import Preview, preview_rows, show_preview
from asclepius_ray.doctor.rows import Row, Sample
from asclepius_ray.tokens.chat_template import ensure_chat_template
from asclepius_ray.tokens.config import TokensConfig
from asclepius_ray.tokens.tokenizer import END, train_tokenizer

ROW = Row("The patient had a fever.\nIt settled on day 3.", "What did the patient have?", "A short fever.")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    tokenizer = train_tokenizer([ROW.note], 400)
    ensure_chat_template(tokenizer)
    return tokenizer


def sample_of(*rows: Row, is_private: bool = False) -> Sample:
    return Sample(list(rows), len(rows), is_invented=False, is_private=is_private)


def preview_of(tokenizer: PreTrainedTokenizerBase, is_private: bool = False) -> Preview:
    _, preview = preview_rows(
        sample_of(ROW, is_private=is_private), tokenizer, TokensConfig(sequence_length=1024)
    )
    assert preview is not None
    return preview


def shown(preview: Preview, with_text: bool = False, in_colour: bool = False) -> str:
    stream = io.StringIO()
    colours = "standard" if in_colour else None
    show_preview(Console(file=stream, force_terminal=in_colour, color_system=colours), preview, with_text)
    return stream.getvalue()


def test_the_answer_and_its_end_are_marked_and_nothing_else(tokenizer: PreTrainedTokenizerBase) -> None:
    preview = preview_of(tokenizer)
    assert [part for part, is_learnt in preview.spans if is_learnt] == [f"{ROW.answer}{END}"]
    text = shown(preview)
    assert f"[[{ROW.answer}{END}]]" in text
    assert text.partition("\n")[2].count("[[") == 1
    assert ROW.note in text
    assert f"{preview.num_loss_tokens} of them learnt from" in text


def test_in_a_terminal_the_mark_is_a_colour(tokenizer: PreTrainedTokenizerBase) -> None:
    text = shown(preview_of(tokenizer), in_colour=True)
    assert f"\x1b[1;32m{ROW.answer}{END}\x1b[0m" in text
    assert "[[" not in text


def test_of_a_real_note_only_lengths_are_shown_unless_its_text_is_asked_for(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    preview = preview_of(tokenizer, is_private=True)
    text = shown(preview)
    assert f"{preview.num_tokens} tokens" in text
    for part in (ROW.note, ROW.question, ROW.answer, "fever"):
        assert part not in text
    assert ROW.note in shown(preview, with_text=True)


def test_rows_without_a_token_to_learn_from_are_a_problem(tokenizer: PreTrainedTokenizerBase) -> None:
    found, preview = preview_rows(sample_of(ROW), tokenizer, TokensConfig(sequence_length=64))
    assert found.level is Level.PROBLEM
    assert "no token to learn from" in found.said
    assert "tokens.sequence_length" in found.advice
    assert preview is None


def test_a_share_of_lost_rows_is_a_warning_with_their_number(tokenizer: PreTrainedTokenizerBase) -> None:
    long = Row(ROW.note, ROW.question, "A fever. " * 400)
    found, preview = preview_rows(sample_of(ROW, long, ROW), tokenizer, TokensConfig(sequence_length=512))
    assert found.level is Level.WARNING
    assert "1 rows are lost" in found.said
    assert preview is not None


def test_a_note_that_would_be_shortened_is_lost_where_the_run_rejects_such_rows(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    long = Row(f"{ROW.note}\n" * 60, ROW.question, ROW.answer)
    tokens = TokensConfig(sequence_length=512)
    found, _ = preview_rows(sample_of(ROW, long), tokenizer, tokens)
    assert found.level is Level.OK
    assert "1 notes are shortened" in found.said
    rejecting = tokens.model_copy(update={"overlong": "reject"})
    found, _ = preview_rows(sample_of(ROW, long), tokenizer, rejecting)
    assert found.level is Level.WARNING
    assert "1 rows are lost" in found.said
    allowing = rejecting.model_copy(update={"max_dropped_share": 0.5})
    assert preview_rows(sample_of(ROW, long), tokenizer, allowing)[0].level is Level.OK


def test_a_template_that_cannot_carry_an_answer_is_a_problem() -> None:
    tokenizer = train_tokenizer([ROW.note], 400)
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message['content'] }}{% endfor %}"
        "{% if add_generation_prompt %}Answer:{% endif %}"
    )
    found, preview = preview_rows(sample_of(ROW), tokenizer, TokensConfig(sequence_length=512))
    assert found.level is Level.PROBLEM
    assert "chat template" in found.said
    assert preview is None
