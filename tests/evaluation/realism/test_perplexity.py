"""The windows against their definition, the sums against a loop that asks for one token after the other."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from realism_models import CONTEXT_TOKENS, NOTES, POEMS, make_reader

from asclepius_ray.errors import ConfigError
from asclepius_ray.evaluation.perplexity import Reader, choose_window, score_texts, windows_of

TEXTS = [NOTES[0], " ".join(POEMS[:2]), "Fever.", " ".join(NOTES[:3]), "a"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """For models this small a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _token_by_token(reader: Reader, text: str) -> tuple[float, int]:
    """The nats of each token, asked for alone with the ids before it, from the start of its window on."""
    ids = reader.tokenizer(text, add_special_tokens=False)["input_ids"]
    if reader.tokenizer.bos_token_id is not None:
        ids = [reader.tokenizer.bos_token_id, *ids]
    context, stride = reader.context_tokens, reader.stride_tokens
    nats = 0.0
    for place in range(1, len(ids)):
        # The first window that reaches so far.
        num_windows_before = max(0, -(-(place - context) // stride))
        before = ids[num_windows_before * stride : place]
        assert min(place, context - stride) <= len(before) <= context
        with torch.no_grad():
            logits = reader.model(torch.tensor([before])).logits[0, -1].double()
        nats -= torch.log_softmax(logits, dim=-1)[ids[place]].item()
    return nats, max(len(ids) - 1, 0)


@pytest.mark.parametrize("with_begin", [True, False], ids=["with a begin", "without"])
@pytest.mark.parametrize(
    ("context", "stride"),
    [(CONTEXT_TOKENS, 24), (CONTEXT_TOKENS, CONTEXT_TOKENS), (16, 1), (16, 5), (7, 7), (1, 1)],
)
def test_the_sum_is_that_of_token_after_token(context: int, stride: int, with_begin: bool) -> None:
    reader = make_reader(context, stride, with_begin=with_begin)
    scores = score_texts(reader, TEXTS)
    assert len(scores) == len(TEXTS)
    for text, score in zip(TEXTS, scores, strict=True):
        nats, tokens = _token_by_token(reader, text)
        assert score.tokens == tokens
        assert score.nats == pytest.approx(nats, abs=1e-4 * max(tokens, 1))
        assert score.nats == pytest.approx(nats, rel=1e-4)
    # The texts are longer than what is read at once, or windows would not be seen.
    assert max(score.tokens for score in scores) > 2 * CONTEXT_TOKENS


def test_the_first_token_counts_only_behind_a_begin() -> None:
    texts = [NOTES[0], "a"]
    with_begin, without = (make_reader(16, 8, with_begin=begin) for begin in (True, False))
    ids = without.tokenizer(texts, add_special_tokens=False)["input_ids"]
    assert with_begin.scores_first_token
    assert not without.scores_first_token
    assert [score.tokens for score in score_texts(with_begin, texts)] == [len(ids[0]), 1]
    assert [score.tokens for score in score_texts(without, texts)] == [len(ids[0]) - 1, 0]


def test_a_text_scores_the_same_beside_any_others() -> None:
    reader = make_reader(CONTEXT_TOKENS, 24)
    alone = [score_texts(reader, [text])[0] for text in TEXTS]
    together = score_texts(reader, TEXTS)
    for one, other in zip(alone, together, strict=True):
        assert one.tokens == other.tokens
        assert one.nats == pytest.approx(other.nats, rel=1e-5)


@given(st.integers(0, 300), st.integers(1, 60), st.integers(1, 60))
def test_each_id_but_the_first_is_scored_once_with_enough_before_it(
    num_ids: int, context: int, stride: int
) -> None:
    stride = min(stride, context)
    scored = []
    for window in windows_of(num_ids, context, stride):
        assert 1 <= window.num_read <= context
        assert window.begin >= 0
        for place in range(window.first_scored, window.end):
            assert place - window.begin >= min(place, context - stride + 1)
            scored.append(place)
    assert scored == list(range(1, num_ids))


def test_words_are_what_blanks_divide() -> None:
    reader = make_reader(16, 8)
    texts = ["BP 120/80 mmHg, stable.", "  two\n\nwords ", "one"]
    assert [score.words for score in score_texts(reader, texts)] == [4, 2, 1]


def test_nought_is_the_models_own_context_and_half_of_it() -> None:
    assert choose_window(0, 0, 2048) == (2048, 1024)
    assert choose_window(512, 0, 2048) == (512, 256)
    assert choose_window(512, 100, None) == (512, 100)
    assert choose_window(1, 0, 2048) == (1, 1)


@pytest.mark.parametrize(
    ("context", "stride", "longest", "said"),
    [
        (4096, 0, 2048, "longer than the 2048 positions"),
        (0, 0, None, "set how many tokens"),
        (0, 3000, 2048, "more than the 2048 tokens"),
    ],
)
def test_a_window_that_does_not_fit_the_model_is_refused(
    context: int, stride: int, longest: int | None, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        choose_window(context, stride, longest)
