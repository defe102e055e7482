"""Articles → those held out for validation. Two patients of one article never fall on both sides."""

import hashlib
import math
from collections.abc import Set as AbstractSet

from asclepius_ray.errors import InputError


def choose_validation_articles(articles: AbstractSet[str], share: float, seed: int) -> frozenset[str]:
    """The articles with the smallest hash under `seed`: a function of the set, not of its order.

    At least one article is held out and at least one is left to train on.
    """
    if len(articles) < 2:
        raise InputError(
            f"the readable rows are of {len(articles)} article(s) or patient(s); the split into training and "
            "validation needs at least 2: use more rows, or check the column that names the patient"
        )
    # 0.07 * 100 is a little more than 7 in binary floating point; it must not become 8.
    wanted = math.ceil(round(share * len(articles), 9))
    count = min(max(wanted, 1), len(articles) - 1)
    return frozenset(sorted(articles, key=lambda article: _rank(article, seed))[:count])


def _rank(article: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{article}".encode()).hexdigest()
