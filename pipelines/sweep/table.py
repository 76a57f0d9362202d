"""The table of a sweep: per metric and method the mean over seeds, its standard deviation and n."""

import csv
import io
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipelines.evaluation.metric_table import format_value, known
from pipelines.sweep.trial_run import TrialResult
from pipelines.sweep.trials import Trial


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One metric of one method.

    Args:
        n: trials that have a value. mean: over them. std: sample standard deviation (n - 1), None for n = 1.
        raw: mean over the same trials of the metric on the raw features; None where it does not exist.
        seeds, values: of the trials, in the order of the seeds.
        better: which direction is better.
    """

    metric: str
    method: str
    n: int
    mean: float
    std: float | None
    raw: float | None
    better: str
    seeds: tuple[int, ...]
    values: tuple[float, ...]


def make_table(results: Iterable[tuple[Trial, TrialResult]]) -> list[TableRow]:
    """Return a row for each metric and method that has a value, in the order in which they first appear."""
    cells: dict[tuple[str, str], list[tuple[int, Mapping[str, Any]]]] = {}
    for trial, result in results:
        for row in result.metrics:
            if known(row["ours"]):
                cells.setdefault((row["name"], trial.method), []).append((trial.seed, row))
    metrics = list(dict.fromkeys(metric for metric, _ in cells))
    methods = list(dict.fromkeys(method for _, method in cells))
    return [
        _row(metric, method, sorted(cells[metric, method], key=lambda cell: cell[0]))
        for metric in metrics
        for method in methods
        if (metric, method) in cells
    ]


def text_table(rows: Sequence[TableRow]) -> str:
    """Return the table as text: a block per metric with the raw features' value, a line per method."""
    if not rows:
        return "no trial gave a metric"
    width = max(len(row.method) for row in rows)
    lines = []
    metric = ""
    for row in rows:
        if row.metric != metric:
            metric = row.metric
            direction = "" if row.better == "neither" else f"  ({row.better} is better)"
            lines.append(f"{metric}{direction}")
        spread = f"± {format_value(row.std)}"
        raw = "" if row.raw is None else f"  raw {format_value(row.raw)}"
        lines.append(f"  {row.method:<{width}} {format_value(row.mean):>8} {spread:<9} n {row.n}{raw}")
    return "\n".join(lines)


def csv_table(rows: Sequence[TableRow]) -> bytes:
    """Return the table as CSV, without the single values."""
    names = ["metric", "method", "n", "mean", "std", "raw", "better"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue().encode()


def _row(metric: str, method: str, cells: Sequence[tuple[int, Mapping[str, Any]]]) -> TableRow:
    values = tuple(float(row["ours"]) for _, row in cells)
    raws = [float(row["raw"]) for _, row in cells if known(row["raw"])]
    return TableRow(
        metric=metric,
        method=method,
        n=len(values),
        mean=statistics.fmean(values),
        std=statistics.stdev(values) if len(values) > 1 else None,
        raw=statistics.fmean(raws) if raws else None,
        better=str(cells[0][1]["better"]),
        seeds=tuple(seed for seed, _ in cells),
        values=values,
    )
