"""How sure a mean is, and whether two runs differ: both by resampling subjects.

Pictures of one subject are alike, so that resampling pictures would promise too much: what is drawn again is
the subject, with all of its pictures (a cluster bootstrap).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 10_000


@dataclass(frozen=True)
class Interval:
    """mean, and the bounds of its percentile interval. unit: what was resampled, "subject" or "picture"."""

    mean: float
    low: float
    high: float
    level: float
    groups: int
    unit: str


@dataclass(frozen=True)
class Comparison:
    """Run B minus run A over the cases that both have.

    low, high: interval of the mean difference. p_value: two-sided, by flipping the sign of whole subjects.
    wins, losses, ties: cases in which B is above, below, equal to A. only_a, only_b: cases left out.
    """

    difference: float
    low: float
    high: float
    level: float
    p_value: float
    cases: int
    groups: int
    wins: int
    losses: int
    ties: int
    only_a: int
    only_b: int
    unit: str


def bootstrap(
    values: Sequence[float],
    groups: Sequence[str],
    weights: Sequence[float] | None = None,
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval | None:
    """The weighted mean of values with its interval; None without values.

    groups: the subject of each value; with one subject alone, single values are resampled instead, and `unit`
    says so. The same seed gives the same interval.
    """
    if not len(values):
        return None
    sums, totals, unit = _by_group(values, groups, weights)
    mean = float(sums.sum() / totals.sum())
    if len(sums) == 1:
        return Interval(mean, mean, mean, level, 1, unit)
    counts = _draws(len(sums), resamples, seed)
    means = (counts @ sums) / (counts @ totals)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), level, len(sums), unit)


def compare(
    a: Mapping[tuple, float],
    b: Mapping[tuple, float],
    *,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison | None:
    """Paired comparison of two runs; None when they have no case in common.

    a, b: score by case; a case is a tuple that begins with the subject, such as `PictureScore.key`.
    """
    cases = sorted(set(a) & set(b))
    if not cases:
        return None
    differences = np.array([b[case] - a[case] for case in cases], dtype=np.float64)
    interval = bootstrap(
        list(differences), [str(case[0]) for case in cases], level=level, resamples=resamples, seed=seed
    )
    assert interval is not None  # there are cases
    sums, _, unit = _by_group(list(differences), [str(case[0]) for case in cases], None)
    return Comparison(
        interval.mean,
        interval.low,
        interval.high,
        level,
        _sign_flip(sums, resamples, seed),
        len(cases),
        len(sums),
        int((differences > 0).sum()),
        int((differences < 0).sum()),
        int((differences == 0).sum()),
        len(a) - len(cases),
        len(b) - len(cases),
        unit,
    )


def _by_group(
    values: Sequence[float], groups: Sequence[str], weights: Sequence[float] | None
) -> tuple[np.ndarray, np.ndarray, str]:
    """Weighted sum and total weight of each group."""
    names, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    unit = "subject" if len(names) > 1 else "picture"
    if unit == "picture":
        index = np.arange(len(values))
    weight = np.ones(len(values)) if weights is None else np.asarray(weights, dtype=np.float64)
    totals = np.bincount(index, weight)
    sums = np.bincount(index, weight * np.asarray(values, dtype=np.float64))
    return sums[totals > 0], totals[totals > 0], unit


def _draws(groups: int, resamples: int, seed: int) -> np.ndarray:
    """[resamples, groups]: how often each group is drawn."""
    return np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=resamples)


def _sign_flip(sums: np.ndarray, resamples: int, seed: int) -> float:
    """Share of sign patterns that give a total at least as far from 0; all patterns where they are few."""
    n, observed = len(sums), abs(float(sums.sum()))
    if observed == 0:
        return 1.0
    tolerance = 1e-12 * max(1.0, observed)
    if n <= 12:
        patterns = 1 - 2 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
        return float((np.abs(patterns @ sums) >= observed - tolerance).mean())
    patterns = np.random.default_rng(seed).choice((-1, 1), size=(resamples, n))
    extreme = int((np.abs(patterns @ sums) >= observed - tolerance).sum())
    return (extreme + 1) / (resamples + 1)  # the observed pattern is one of them
