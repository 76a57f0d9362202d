"""Comparing methods: the spread over seeds, and the paired bootstrap of a difference over the same samples.

Shapes: Q samples (videos, questions).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Draws times distinct values held at once: 1 M int64 are 8 MB, whatever the number of samples.
MAX_DRAWN = 1_000_000


@dataclass(frozen=True, slots=True)
class SeedSpread:
    """Mean over the runs of one method and the sample standard deviation (n - 1); NaN where there are too few."""

    mean: float
    std: float
    num_runs: int


@dataclass(frozen=True, slots=True)
class Difference:
    """Mean of A - B over the samples with its 95 % bootstrap interval; NaN without samples."""

    mean: float
    low: float
    high: float
    num_samples: int


def seed_spread(values: Sequence[float]) -> SeedSpread:
    """Return mean and standard deviation over runs that differ only in their seed.

    One run has no standard deviation: it is NaN, not 0.
    """
    count = len(values)
    mean = float(np.mean(values)) if count else math.nan
    return SeedSpread(mean, float(np.std(values, ddof=1)) if count > 1 else math.nan, count)


def paired_bootstrap(value_a_Q: Floats, value_b_Q: Floats, *, seed: int, num_resamples: int = 10_000) -> Difference:
    """Return the mean of A - B and its 95 % percentile interval over resamples of the samples.

    Samples with an equal difference are interchangeable, so a resample is one multinomial draw of how often each
    distinct difference occurs: the same distribution as drawing Q indices, at a cost that does not grow with Q.

    Args:
        value_a_Q: credit (or another per-sample value) of A.
        value_b_Q: of B, on the same samples in the same order.
        seed: of the resampling.
        num_resamples: draws behind the interval.

    Raises:
        ValueError: shapes differ, a value is NaN, or there is no resample.
    """
    if value_a_Q.shape != value_b_Q.shape or value_a_Q.ndim != 1 or num_resamples < 1:
        raise ValueError(f"A {value_a_Q.shape} and B {value_b_Q.shape} must be (Q,), with 1 or more resamples")
    difference_Q = np.asarray(value_a_Q, dtype=np.float64) - value_b_Q
    if np.isnan(difference_Q).any():
        raise ValueError("a value is NaN; leave that sample out on both sides")
    count = len(difference_Q)
    if count == 0:
        return Difference(math.nan, math.nan, math.nan, 0)
    values, counts = np.unique(difference_Q, return_counts=True)
    random = np.random.default_rng(seed)
    at_once = max(1, MAX_DRAWN // len(values))
    means = [
        random.multinomial(count, counts / count, size=min(at_once, num_resamples - done)) @ values / count
        for done in range(0, num_resamples, at_once)
    ]
    low, high = np.quantile(np.concatenate(means), (0.025, 0.975))
    return Difference(float(difference_Q.mean()), float(low), float(high), count)
