"""Paired statistics: bootstrap intervals for one task and for the mean over tasks, and McNemar's exact test.

A plain percentile interval is too narrow for few samples: resampled means vary too little by (n - 1)/n, and their tails
are the normal's where Student's belong. Both are put right (the expanded percentile interval: Hesterberg 2015, "What
teachers should know about the bootstrap", The American Statistician 69(4), section 5.3). That widens it by 2 % at 80
samples, by 44 % at 6.

numpy is imported when it is needed: this module loads at start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

from ..types import Results, Row, content_id
from .rows import experts_of, find_row, reference_row, relative_to, resolve

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 10_000
# From here on the resampled mean is drawn from its normal limit: 10,000 resamples of 25,834 summaries would take
# seconds per cell, and the skew that the limit leaves out is far smaller than what 10,000 draws can show.
NORMAL_FROM_SAMPLES = 5_000

# How often each value was drawn is all that a mean needs: pass or fail differs by -1, 0 or 1, and drawing three counts
# rather than hundreds of samples gives the same distribution 20 times as fast.
FEW_VALUES = 10


@dataclass(frozen=True)
class Comparison:
    """`a` against `b` on one metric, paired over samples; positive means that `a` is better.

    task        "" for a mean over several tasks (`compare_average`); metric is then "relative change"
    n           samples, each scored for both models
    difference  in the metric's own unit (percent points of relative change for a mean over tasks), low to high its
                interval at `level`
    p           two-sided, from the same resamples: below 1 - level exactly where the interval leaves out zero
    exact_p     McNemar's, where every sample is 0 or 1
    paired      False for an interval from the standard errors of both, where no scores per sample are known
    unknown     tasks whose noise is not known and is left out of the interval, which is too narrow by it
    """

    a: str
    b: str
    task: str
    metric: str
    n: int
    difference: float
    low: float
    high: float
    p: float
    level: float = 0.95
    exact_p: float | None = None
    paired: bool = True
    unknown: tuple[str, ...] = ()

    @property
    def decisive_p(self) -> float:
        """McNemar's where it applies, else the bootstrap's."""
        return self.p if self.exact_p is None else self.exact_p

    @property
    def decided(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def compare(
    results: Results,
    a: str,
    b: str,
    task: str,
    *,
    metric: str | None = None,
    resamples: int = RESAMPLES,
    level: float = 0.95,
) -> Comparison | None:
    """Paired bootstrap over the samples of one task: `a` minus `b`, its sign turned where lower is better.

    `metric` None means the primary one. The interval is the expanded percentile interval of the resampled mean
    difference, with n - 1 degrees of freedom. The draws follow from `results.seed` and the names, so a report gives the
    same numbers every time, and `compare(b, a)` is `compare(a, b)` with its sign turned. None when either model has
    fewer than two samples there or their numbers differ.
    """
    rows = _pair(results, a, b, task, metric)
    if rows is None:
        return None
    difference = _differences(*rows)
    draws = _draws(results, a, b, rows[0], difference, resamples)
    only_01 = all(sample in (0, 1) for row in rows for sample in row.samples)
    exact = mcnemar(rows[0].samples, rows[1].samples) if only_01 else None
    n, observed = len(difference), float(difference.mean())
    return Comparison(a, b, task, rows[0].metric, n, observed, *_interval(draws, level, n - 1), level, exact)


def compare_average(
    results: Results, a: str, b: str, tasks: Sequence[str], *, resamples: int = RESAMPLES, level: float = 0.95
) -> Comparison | None:
    """As `compare`, for the mean over `tasks` of the relative change of the primary metric, in percent points.

    Samples are resampled within each task (stratified), the same ones for both models; the degrees of freedom are
    Welch's and Satterthwaite's. The reference scores are held
    fixed, so they only weigh the tasks. `n` counts the samples of all tasks. None when one task cannot be paired.
    """
    draws: Any = 0.0
    observed, n, spread, per_freedom = 0.0, 0, 0.0, 0.0
    names = experts_of(results.models)
    for task in tasks:
        rows = _pair(results, a, b, task, None)
        if rows is None:
            return None
        reference = reference_row(results.rows, task, rows[0].metric, names)
        weight = 100 / relative_to(reference) / len(tasks)
        difference = _differences(*rows) * weight
        draws = draws + _draws(results, a, b, rows[0], difference, resamples)
        observed, n = observed + float(difference.mean()), n + len(difference)
        variance = float(difference.var(ddof=1)) / len(difference)
        spread, per_freedom = spread + variance, per_freedom + variance**2 / (len(difference) - 1)
    if not tasks:
        return None
    freedom = spread**2 / per_freedom if per_freedom else n - 1
    return Comparison(a, b, "", "relative change", n, observed, *_interval(draws, level, freedom), level)


def compare_unpaired(
    results: Results, a: str, b: str, tasks: Sequence[str], *, level: float = 0.95
) -> Comparison | None:
    """`compare_average` where there are no scores per sample: a normal interval from both standard errors.

    The two models are taken as independent on a task, although they saw the same samples: where they fail alike, the
    interval is too wide. Tasks of equal n are taken to hold the same samples (HumanEval and HumanEval+) and their noise
    adds up as if it were one; that of other tasks adds up in squares. Tasks without standard errors have no part in it
    and are named in `unknown`. None when a score is missing, or no task has standard errors.
    """
    names = experts_of(results.models)
    difference, noise, total, unknown = 0.0, dict[int, float](), 0, []
    for task in tasks:
        rows = [find_row(results.rows, name, task) for one in (a, b) if (name := resolve(results, one, task))]
        found = [row for row in rows if row and math.isfinite(row.value)]
        if len(found) < 2:
            return None
        first, second = found
        reference = reference_row(results.rows, task, first.metric, names)
        weight = 100 / relative_to(reference) / len(tasks)
        difference += weight * (1 if first.higher_is_better else -1) * (first.value - second.value)
        total += first.n
        if first.stderr is None or second.stderr is None:
            unknown.append(task)
        else:
            noise[first.n] = noise.get(first.n, 0.0) + weight * math.hypot(first.stderr, second.stderr)
    if not noise:
        return None
    error = math.hypot(*noise.values())
    low, high, p = _normal_interval(difference, error, level)
    return Comparison(
        a, b, "", "relative change", total, difference, low, high, p, level, paired=False, unknown=tuple(unknown)
    )


def compare_rows(a: Row, b: Row, *, level: float = 0.95) -> Comparison | None:
    """Two scores on one task, wherever they come from: a normal interval from both standard errors, the scores taken as
    independent. In the metric's own unit, positive where `a` is better; None without standard errors."""
    if a.stderr is None or b.stderr is None or not math.isfinite(a.value - b.value):
        return None
    difference = (1 if a.higher_is_better else -1) * (a.value - b.value)
    low, high, p = _normal_interval(difference, math.hypot(a.stderr, b.stderr), level)
    return Comparison(a.model, b.model, a.task, a.metric, min(a.n, b.n), difference, low, high, p, level, paired=False)


def _normal_interval(difference: float, error: float, level: float) -> tuple[float, float, float]:
    """(low, high, two-sided p) of a difference with that standard error."""
    normal = NormalDist()
    reach = normal.inv_cdf((1 + level) / 2) * error
    p = 2 * normal.cdf(-abs(difference) / error) if error else float(difference == 0)
    return difference - reach, difference + reach, p


def mcnemar(a_samples: Sequence[float], b_samples: Sequence[float]) -> float:
    """Exact two-sided McNemar test of two models that passed (1) or failed (0) the same samples, in the same order.

    Given the pairs on which exactly one passed, either is as likely to be `a` under the null: a binomial test at 1/2.
    Raises ValueError when the numbers of samples differ.
    """
    only_a = sum(1 for a, b in zip(a_samples, b_samples, strict=True) if a > b)
    only_b = sum(1 for a, b in zip(a_samples, b_samples, strict=True) if b > a)
    discordant = only_a + only_b
    ways, tail = 1, 1  # discordant choose 0, 1, …, and their sum, in whole numbers: exact for any test set
    for i in range(min(only_a, only_b)):
        ways = ways * (discordant - i) // (i + 1)
        tail += ways
    return min(1.0, float(2 * tail / 2**discordant))


def _pair(results: Results, a: str, b: str, task: str, metric: str | None) -> tuple[Row, Row] | None:
    names = [resolve(results, name, task) for name in (a, b)]
    rows = [find_row(results.rows, name, task, metric) for name in names if name]
    found = [row for row in rows if row and row.samples]
    if len(found) < 2 or len(found[0].samples) != len(found[1].samples) or len(found[0].samples) < 2:
        return None
    return found[0], found[1]


def _differences(a: Row, b: Row) -> Floats:
    import numpy as np

    sign = 1.0 if a.higher_is_better else -1.0
    return sign * (np.asarray(a.samples, np.float64) - np.asarray(b.samples, np.float64))


def _draws(results: Results, a: str, b: str, row: Row, difference: Floats, resamples: int) -> Floats:
    """Resampled means of `difference`, with the variance that means of n samples have. Always drawn as first name minus
    second: (b, a) gives minus those of (a, b)."""
    import numpy as np

    turn = 1 if a <= b else -1
    seed = int(content_id([results.seed, sorted([a, b]), row.task, row.metric]), 16)
    means = turn * _resampled_means(turn * difference, resamples, seed)
    middle, n = difference.mean(), len(difference)
    return np.asarray(middle + math.sqrt(n / (n - 1)) * (means - middle), np.float64)


def _resampled_means(samples: Floats, resamples: int, seed: int) -> Floats:
    """float64 (resamples): means of `samples` drawn with replacement."""
    import numpy as np

    generator, n = np.random.default_rng(seed), len(samples)
    if n >= NORMAL_FROM_SAMPLES:
        means: Floats = generator.normal(samples.mean(), samples.std() / math.sqrt(n), resamples)
        return means
    values, counts = np.unique(samples, return_counts=True)
    if len(values) <= FEW_VALUES:
        return np.asarray(generator.multinomial(n, counts / n, resamples) @ values / n, np.float64)
    rows_at_once = max(1, 4_000_000 // n)  # 32 MB of indices at a time
    parts = [
        samples[generator.integers(0, n, (min(rows_at_once, resamples - start), n))].mean(1)
        for start in range(0, resamples, rows_at_once)
    ]
    return np.concatenate(parts)


def _interval(draws: Floats, level: float, freedom: float) -> tuple[float, float, float]:
    """(low, high, p): the interval at `level` and the two-sided p value that agrees with it, with Student's tails."""
    import numpy as np
    from scipy.special import stdtr, stdtrit

    normal = NormalDist()
    tail = normal.cdf(float(stdtrit(freedom, (1 - level) / 2)))
    low, high = np.quantile(draws, [tail, 1 - tail])
    far = (1 + min(int((draws <= 0).sum()), int((draws >= 0).sum()))) / (1 + len(draws))
    p = 2 * float(stdtr(freedom, normal.inv_cdf(far))) if far < 0.5 else 1.0
    return float(low), float(high), p
