"""Intervals and paired comparisons are what scipy and plain counting give."""

import itertools

import numpy as np
import pytest
from scipy import stats

from squeeze_core.evaluation.results import Metric, PictureScore, Result
from squeeze_core.evaluation.statistics import bootstrap, compare


def test_with_one_value_a_subject_it_is_scipys_percentile_bootstrap():
    values = np.random.default_rng(0).normal(0.7, 0.1, 30)
    mine = bootstrap(list(values), [str(i) for i in range(30)], resamples=20000)
    theirs = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20000, rng=np.random.default_rng(1)
    ).confidence_interval
    assert mine.mean == pytest.approx(values.mean())
    assert (mine.low, mine.high) == pytest.approx((theirs.low, theirs.high), abs=2e-3)
    assert (mine.groups, mine.unit) == (30, "subject")


def test_pictures_of_one_subject_are_drawn_together():
    rng = np.random.default_rng(0)
    subjects = [str(i // 25) for i in range(250)]
    means = rng.normal(0, 1, 10)
    values = [means[int(s)] + 0.01 * rng.normal() for s in subjects]
    together = bootstrap(values, subjects)
    apart = bootstrap(values, [str(i) for i in range(250)])
    assert together.high - together.low > 3 * (apart.high - apart.low)


def test_weights_count_as_repeated_values():
    a = bootstrap([1.0, 3.0, 2.0], ["a", "b", "c"], [2, 1, 1])
    b = bootstrap([1.0, 1.0, 3.0, 2.0], ["a", "a", "b", "c"])
    assert a == b and a.mean == 1.75


def test_one_subject_alone_is_resampled_by_picture_and_says_so():
    interval = bootstrap([0.1, 0.5, 0.9], ["cat"] * 3)
    assert interval.unit == "picture" and interval.low < 0.5 < interval.high


def test_nothing_has_no_interval_and_the_same_seed_gives_the_same():
    assert bootstrap([], []) is None
    values, groups = [0.1, 0.2, 0.7], ["a", "b", "c"]
    assert bootstrap(values, groups) == bootstrap(values, groups)


def run(offset, seed, subjects=8):
    rng = np.random.default_rng(seed)
    return {(f"s{i}", p, 0): float(offset + 0.1 * rng.normal()) for i in range(subjects) for p in range(5)}


def test_a_real_difference_is_found_and_none_is_not():
    found = compare(run(0.5, 0), run(0.9, 1))
    assert found.difference == pytest.approx(0.4, abs=0.06) and found.low > 0 and found.p_value < 0.01
    same = compare(run(0.5, 0), run(0.5, 0))
    assert (same.difference, same.ties, same.p_value) == (0, 40, 1.0) and same.low <= 0 <= same.high


def test_only_cases_of_both_runs_are_compared():
    a, b = {("x", 0, 0): 1.0, ("x", 1, 0): 5.0}, {("x", 0, 0): 2.0, ("y", 0, 0): 9.0}
    found = compare(a, b)
    assert (found.difference, found.cases, found.only_a, found.only_b) == (1.0, 1, 1, 1)
    assert (found.wins, found.losses, found.ties) == (1, 0, 0)
    assert compare(a, {("z", 0, 0): 1.0}) is None


def test_p_is_the_share_of_sign_patterns_counted_one_by_one():
    differences = [0.3, -0.1, 0.2, 0.4, 0.25]
    a = {(str(i), 0, 0): 0.0 for i in range(5)}
    b = {(str(i), 0, 0): d for i, d in enumerate(differences)}
    patterns = [abs(np.dot(signs, differences)) for signs in itertools.product((1, -1), repeat=5)]
    share = np.mean([value >= abs(sum(differences)) - 1e-12 for value in patterns])
    assert compare(a, b).p_value == pytest.approx(share)


def test_missing_scores_are_left_out_and_are_never_zero():
    metric = Metric("m", "M", True)
    rows = [PictureScore("a", "s", 0, 0, {"m": 0.5}), PictureScore("b", "s", 1, 0, {"m": None})]
    rows += [PictureScore("c", "s", 2, 0, {}), PictureScore("d", "s", 3, 0, {"m": float("nan")})]
    result = Result("x", (metric,), rows)
    assert result.mean("m") == 0.5 and result.counted("m") == 1
    assert Result("x", (metric,), rows[1:]).mean("m") is None
