"""Published examples to the last printed digit; own and library's figures the same; limits said, not NaN."""

import krippendorff
import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from asclepius_ray.evaluation import agreement
from asclepius_ray.evaluation.agreement import Agreement, Floats, alpha_of, mean_of, weighted_kappa_of

NAN = float("nan")
KRIPPENDORFF_2011 = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)
ANXIETY = (
    (3, 3, 3, 4, 5, 5, 2, 3, 5, 2, 2, 6, 1, 5, 2, 2, 1, 2, 4, 3),
    (3, 6, 4, 6, 2, 4, 2, 4, 3, 3, 2, 3, 3, 3, 2, 2, 1, 3, 3, 4),
)
UNITS = [str(unit) for unit in range(20)]


def test_krippendorffs_own_example_has_his_ordinal_alpha() -> None:
    """Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011, section D: four observers, twelve
    units, missing values; the ordinal alpha is printed as .815. Unit 12 has one value and does not count."""
    found = alpha_of(KRIPPENDORFF_2011, UNITS[:12], 7)
    assert found.value is not None
    assert f"{found.value:.3f}" == "0.815"
    assert found.n == 11


@pytest.mark.parametrize(
    ("level", "printed"),
    [("nominal", "0.743"), ("ordinal", "0.815"), ("interval", "0.849"), ("ratio", "0.797")],
)
def test_the_library_has_the_other_alphas_of_the_example(level: str, printed: str) -> None:
    """The same paper's alphas of the other scales: the data are his, and so is what the library computes."""
    assert (
        f"{krippendorff.alpha(reliability_data=KRIPPENDORFF_2011, level_of_measurement=level):.3f}" == printed
    )


def test_the_anxiety_ratings_have_the_weighted_kappa_of_the_r_package_irr() -> None:
    """The example of kappa2(anxiety[, 1:2], "squared") in the R package irr (Gamer, Lemon, Fellows, Singh):
    two raters, 20 subjects, squared weights; kappa is printed as 0.297."""
    found = weighted_kappa_of(*ANXIETY, UNITS, 7)
    assert found.value is not None
    assert f"{found.value:.3f}" == "0.297"
    assert found.n == 20


def simulated(seed: int, scale: tuple[float, ...]) -> tuple[Floats, list[str]]:
    generator = np.random.default_rng(seed)
    quality = generator.normal(size=60)
    latent = quality + generator.normal(size=(3, 60))
    ratings = np.asarray(scale)[
        np.clip(np.round(latent * 1.5 + len(scale) / 2), 0, len(scale) - 1).astype(int)
    ]
    ratings[generator.random(ratings.shape) < 0.2] = np.nan
    return ratings, [str(unit // 3) for unit in range(60)]


SCALES = [(1.0, 2.0, 3.0, 4.0), (1.0, 1.5, 2.0, 2.5, 10 / 3, 4.0)]


@pytest.mark.parametrize("scale", SCALES, ids=["grades", "means"])
@pytest.mark.parametrize("seed", range(5))
def test_the_alpha_that_is_resampled_is_the_librarys(seed: int, scale: tuple[float, ...]) -> None:
    ratings, _ = simulated(seed, scale)
    ratings = ratings[:, np.sum(~np.isnan(ratings), axis=0) >= 2]
    values = np.unique(ratings[~np.isnan(ratings)])
    assert len(values) == len(scale)
    own = agreement._alphas(agreement._coincidences(ratings, values).sum(axis=0)[None])[0]
    assert abs(own - krippendorff.alpha(reliability_data=ratings, level_of_measurement="ordinal")) < 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_the_kappa_that_is_resampled_is_the_librarys_over_the_four_grades(seed: int) -> None:
    ratings, _ = simulated(seed, SCALES[0])
    first, second = ratings[:2, ~np.isnan(ratings[:2]).any(axis=0)]
    table = np.zeros((4, 4))
    np.add.at(table, (first.astype(int) - 1, second.astype(int) - 1), 1)
    expected = cohens_kappa(table, weights=np.arange(4), wt="quadratic", return_results=False)
    moments = agreement._moments(first, second).sum(axis=0)[None]
    assert abs(agreement._kappas(moments)[0] - expected) < 1e-12
    value = weighted_kappa_of(first, second, [str(unit) for unit in range(len(first))], 7).value
    assert value is not None
    assert abs(value - expected) < 1e-12


def test_the_interval_holds_the_value_and_is_the_same_for_the_same_seed() -> None:
    ratings, notes = simulated(1, SCALES[0])
    for found in (
        alpha_of(ratings, notes, 7),
        weighted_kappa_of(ratings[0], ratings[1], notes, 7),
        mean_of(ratings[0], notes, 7),
    ):
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.value < found.high
    assert alpha_of(ratings, notes, 7) == alpha_of(ratings, notes, 7)
    assert alpha_of(ratings, notes, 7) != alpha_of(ratings, notes, 8)


def test_the_interval_is_wider_where_answers_share_their_notes() -> None:
    ratings = np.repeat(simulated(1, SCALES[0])[0][:, :30], 4, axis=1)
    alone = alpha_of(ratings, [str(unit) for unit in range(120)], 7)
    together = alpha_of(ratings, [str(unit // 4) for unit in range(120)], 7)
    assert alone.value == together.value
    assert alone.high is not None
    assert alone.low is not None
    assert together.high is not None
    assert together.low is not None
    assert together.high - together.low > 1.5 * (alone.high - alone.low)


ONE = np.array([[1.0, 2.0, 3.0], [NAN, NAN, NAN]])
SAME = np.full((2, 3), 4.0)
PERFECT = np.array([[1.0, 2.0, 3.0, 4.0, 1.0], [1.0, 2.0, 3.0, 4.0, 1.0]])
TABLE = np.array([[1.0, 2.0, 3.0], [1.0, 3.0, 3.0]])


@pytest.mark.parametrize(
    ("ratings", "notes", "n", "why_not"),
    [
        (ONE, "abc", 0, agreement.NO_PAIRS),
        (SAME, "abc", 3, agreement.NO_VARIATION),
        (TABLE, "aaa", 3, agreement.ONE_NOTE),
        (PERFECT, "abcde", 5, agreement.NO_SPREAD),
    ],
    ids=["one rater", "no variation", "one note", "perfect"],
)
def test_what_cannot_be_computed_is_none_and_said(ratings: Floats, notes: str, n: int, why_not: str) -> None:
    for found in (alpha_of(ratings, notes, 7), weighted_kappa_of(*ratings, notes, 7)):
        assert (found.n, found.why_not, found.low, found.high) == (n, why_not, None, None)
        assert (found.value is None) is (why_not in (agreement.NO_PAIRS, agreement.NO_VARIATION))


def test_degenerate_resamples_are_left_out_and_counted() -> None:
    """Of four notes one alone has another grade: a resample without it has no variation."""
    ratings = np.array([[4.0, 4.0, 4.0, 1.0], [4.0, 4.0, 4.0, 2.0]])
    for found in (alpha_of(ratings, "abcd", 7), weighted_kappa_of(*ratings, "abcd", 7)):
        # (3/4)^4 of the resamples.
        assert abs(found.left_out / agreement.NUM_RESAMPLES - 0.316) < 0.05
        assert found.low is not None


def test_a_mean_of_nothing_is_none() -> None:
    assert mean_of([NAN], "a", 7) == Agreement(None, None, None, 0, why_not=agreement.NO_GRADES)
