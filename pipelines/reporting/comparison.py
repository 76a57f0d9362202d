"""The figures of the page: mean and spread of every method, and its difference to the baseline on the same samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from hvlm.metrics.comparison import Difference, SeedSpread, paired_bootstrap, seed_spread
from pipelines.evaluation.metric_table import OURS, RAW, Better
from pipelines.reporting.config import ReportConfig
from pipelines.reporting.methods import Method
from pipelines.reporting.runs import EvaluatedRun
from pipelines.reporting.samples import SampleValues, sample_values

REFERENCES = (RAW, "floor", "chance")
_SAME = 1e-9
_OTHER_SAMPLES = "not the same samples"


@dataclass(frozen=True, slots=True)
class Cell:
    """One method on one metric.

    Args:
        spread: over its runs.
        by_run: (short run id, seed, value) of each run.
        difference: to the baseline, paired over samples; None where it cannot be made.
        why_none: why not.
        relative: the difference of the means as a share of the baseline's; NaN where that is 0 or unknown.
    """

    spread: SeedSpread
    by_run: tuple[tuple[str, str | None, float], ...]
    difference: Difference | None
    why_none: str
    relative: float


@dataclass(frozen=True, slots=True)
class MetricComparison:
    """One metric over all methods; `references`: the values of raw, floor and chance that the runs have, as (low, high)
    over the runs."""

    name: str
    better: Better
    count: str
    notes: tuple[str, ...]
    cells: Mapping[str, Cell]
    references: Mapping[str, tuple[float, float]]


def compare(methods: Sequence[Method], config: ReportConfig) -> list[MetricComparison]:
    """Return every metric that a run has, in the order of the evaluation's tables."""
    per_sample = {run.run_id: _values_of(run.samples) for method in methods for run in method.runs}
    names = list(dict.fromkeys(name for method in methods for run in method.runs for name in run.rows))
    return [_compare_metric(name, methods, per_sample, config) for name in names]


def _values_of(samples: Mapping[str, pl.DataFrame]) -> SampleValues:
    return {name: values for split, frame in samples.items() for name, values in sample_values(frame, split).items()}


def _compare_metric(
    name: str, methods: Sequence[Method], per_sample: Mapping[str, SampleValues], config: ReportConfig
) -> MetricComparison:
    rows = [run.rows[name] for method in methods for run in method.runs if name in run.rows]
    baseline = next((method for method in methods if method.name == config.baseline), None)
    cells = {}
    for method in methods:
        by_run = tuple(
            (run.short_id, run.seed, value) for run in method.runs if (value := _value(run, name, OURS)) is not None
        )
        spread = seed_spread([value for _, _, value in by_run])
        if method is baseline or not by_run:
            cells[method.name] = Cell(spread, by_run, None, "" if by_run else "no value", math.nan)
            continue
        rival = (method, RAW) if baseline is None else (baseline, OURS)
        difference, why = _difference(name, method, rival, per_sample, config)
        cells[method.name] = Cell(spread, by_run, difference, why, _relative(name, spread.mean, rival))
    return MetricComparison(
        name=name,
        better=rows[0]["better"],
        count=", ".join(dict.fromkeys(f"{row['count']} {row['unit']}" for row in rows)),
        notes=tuple(dict.fromkeys(row["note"] for row in rows if row["note"])),
        cells=cells,
        references=_references(rows),
    )


def _difference(
    name: str,
    method: Method,
    rival: tuple[Method, str],
    per_sample: Mapping[str, SampleValues],
    config: ReportConfig,
) -> tuple[Difference | None, str]:
    """Pair the method's mean over its seeds with the rival's, sample by sample."""
    ours, why = _mean_over_runs(name, method, OURS, per_sample)
    theirs, why_theirs = _mean_over_runs(name, rival[0], rival[1], per_sample)
    if ours is None or theirs is None:
        return None, why or why_theirs
    if ours.keys() != theirs.keys():
        return None, _OTHER_SAMPLES
    keys = sorted(ours)
    a_Q, b_Q = (np.array([values[key] for key in keys]) for values in (ours, theirs))
    return paired_bootstrap(a_Q, b_Q, seed=config.bootstrap_seed, num_resamples=config.num_resamples), ""


def _mean_over_runs(
    name: str, method: Method, kind: str, per_sample: Mapping[str, SampleValues]
) -> tuple[dict[str, float] | None, str]:
    """Return `{sample: mean over the method's runs}`, or None and why.

    The values must be those that the run's own figure is the mean of.
    """
    found: list[dict[str, float]] = []
    for run in method.runs:
        values = per_sample[run.run_id].get(name, {}).get(kind)
        figure = _value(run, name, kind)
        if figure is None:
            return None, f"run {run.short_id} has no value of {kind}"
        if not values:
            return None, "no mean over samples, or no values per sample"
        if not math.isclose(float(np.mean(list(values.values()))), figure, rel_tol=_SAME, abs_tol=_SAME):
            return None, f"the samples of run {run.short_id} do not give its figure (ties?)"
        if found and values.keys() != found[0].keys():
            return None, _OTHER_SAMPLES
        found.append(values)
    means: NDArray[np.float64] = np.mean([[values[key] for key in found[0]] for values in found], axis=0)
    return dict(zip(found[0], means.tolist(), strict=True)), ""


def _relative(name: str, mean: float, rival: tuple[Method, str]) -> float:
    of_rival = [value for run in rival[0].runs if (value := _value(run, name, rival[1])) is not None]
    other = float(np.mean(of_rival)) if of_rival else math.nan
    return (mean - other) / abs(other) if other else math.nan


def _references(rows: Sequence[Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    values = {column: [float(row[column]) for row in rows if row[column] is not None] for column in REFERENCES}
    return {column: (min(found), max(found)) for column, found in values.items() if found}


def _value(run: EvaluatedRun, name: str, column: str) -> float | None:
    row = run.rows.get(name)
    return None if row is None or row[column] is None else float(row[column])
