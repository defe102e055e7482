"""The split is a function of the set of articles, the share and the seed."""

import random

import pytest

from asclepius_ray.errors import InputError
from asclepius_ray.tables.split import choose_validation_articles

ARTICLES = [str(number) for number in range(140)]


def test_the_split_does_not_depend_on_the_order_of_the_articles() -> None:
    shuffled = random.Random(1).sample(ARTICLES, len(ARTICLES))
    assert choose_validation_articles(set(shuffled), 0.2, 7) == choose_validation_articles(
        set(ARTICLES), 0.2, 7
    )


def test_another_seed_holds_out_other_articles() -> None:
    assert choose_validation_articles(set(ARTICLES), 0.2, 7) != choose_validation_articles(
        set(ARTICLES), 0.2, 8
    )


@pytest.mark.parametrize(
    ("num_articles", "share", "held_out"),
    [(100, 0.07, 7), (101, 0.07, 8), (2, 0.01, 1), (2, 0.99, 1), (10, 0.999, 9), (100, 0.5, 50)],
)
def test_the_share_is_rounded_up_and_leaves_one_on_either_side(
    num_articles: int, share: float, held_out: int
) -> None:
    articles = {str(number) for number in range(num_articles)}
    assert len(choose_validation_articles(articles, share, 7)) == held_out


@pytest.mark.parametrize("articles", [set(), {"1"}])
def test_fewer_than_two_articles_cannot_be_split(articles: set[str]) -> None:
    with pytest.raises(InputError, match=f"{len(articles)} article"):
        choose_validation_articles(articles, 0.5, 7)
