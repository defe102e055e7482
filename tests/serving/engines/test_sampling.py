"""A draw is the inverse of the distribution that temperature and top_p leave."""

import pytest
import torch

from asclepius_ray.serving.engines.sampling import MOST_NUCLEI, Draw, choose_tokens, uniform_number

VOCABULARY = 4 * MOST_NUCLEI


@pytest.mark.parametrize(
    ("scale", "top_p", "num_kept"),
    [(4.0, 0.9, (2, MOST_NUCLEI)), (0.1, 0.9, (MOST_NUCLEI + 1, VOCABULARY)), (1.0, 1e-9, (1, 1))],
    ids=["of few", "of more than are looked at first", "of one"],
)
def test_a_draw_takes_the_token_at_its_place_among_the_likeliest(
    scale: float, top_p: float, num_kept: tuple[int, int]
) -> None:
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(1)) * scale
    probabilities, order = (logits / 0.7).double().softmax(-1).sort(descending=True)
    kept = probabilities[probabilities.cumsum(-1) - probabilities < top_p]
    assert num_kept[0] <= len(kept) <= num_kept[1]
    cumulative = kept.cumsum(-1) / kept.sum()
    for uniform in (0.0, 0.21, 0.5, 0.83, 1 - 2**-48):
        [chosen] = choose_tokens(logits.unsqueeze(0), [Draw(0.7, top_p, uniform)]).tolist()
        place = int((cumulative <= uniform).sum())
        # Where the border of two tokens is met to the last bit, either is right.
        assert chosen in order[max(0, place - 1) : place + 2].tolist()
        assert chosen in order[: len(kept)].tolist()


def test_each_row_is_chosen_as_if_it_were_alone() -> None:
    logits = torch.randn(6, VOCABULARY, generator=torch.Generator().manual_seed(2))
    logits[::2] *= 0.1
    draws = [None, Draw(1.0, 0.9, 0.3), Draw(0.5, 1.0, 0.7), Draw(2.0, 0.2, 0.9), Draw(1.0, 0.95, 0.1), None]
    together = choose_tokens(logits, draws).tolist()
    assert together == [
        int(choose_tokens(row.unsqueeze(0), [draw])) for row, draw in zip(logits, draws, strict=True)
    ]
    assert [together[0], together[5]] == logits.argmax(-1)[[0, 5]].tolist()


def test_what_has_no_probability_is_never_drawn() -> None:
    logits = torch.tensor([[float("-inf"), 0.0, float("-inf"), 0.0, float("-inf")]])
    found = {
        int(choose_tokens(logits, [Draw(1.0, top_p, uniform_number(3, place))]))
        for place in range(60)
        for top_p in (0.9, 1.0)
    }
    assert found == {1, 3}


def test_a_number_is_of_its_seed_and_place_alone_and_they_are_even() -> None:
    # The same on every machine and in every version: a seed that was noted down stays worth something.
    assert uniform_number(7, 0) == 0.07760666145339457
    numbers = torch.tensor([uniform_number(seed, place) for seed in range(50) for place in range(100)])
    assert len(numbers.unique()) == len(numbers)
    assert torch.histc(numbers, 10, 0.0, 1.0).tolist() == pytest.approx([500] * 10, abs=90)
