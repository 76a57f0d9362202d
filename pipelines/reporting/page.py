"""The comparison page: one HTML file that needs nothing else, for a phone, a desk and paper."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvlm.metrics.comparison import SeedSpread
from infra.tracking import git_tags, redact, resolve_tracking_uri
from pipelines.evaluation.metric_table import format_value
from pipelines.evaluation.page import page_template
from pipelines.reporting.checks import Mismatch
from pipelines.reporting.claims import CheckedClaim, check_publications
from pipelines.reporting.comparison import REFERENCES, Cell, MetricComparison
from pipelines.reporting.config import BASELINE_RAW, ReportConfig
from pipelines.reporting.methods import Method, differing_settings
from pipelines.reporting.runs import EvaluatedRun, UnevaluatedRun
from pipelines.reporting.sections import curve_section, metric_figures, per_class_section, recall_section


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that the page says."""

    methods: Sequence[Method]
    metrics: Sequence[MetricComparison]
    mismatches: Sequence[Mismatch]
    without: Sequence[UnevaluatedRun]


def render_comparison(found: Comparison, config: ReportConfig, command: str) -> str:
    """Return the page; texts from runs are escaped, and equal runs give equal bytes."""
    flagged = {mismatch.method for mismatch in found.mismatches}
    references = [name for name in REFERENCES if any(name in metric.references for metric in found.metrics)]
    return page_template("comparison.html.j2", Path(__file__).parent).render(
        title=config.title,
        summary=_summary(found),
        mismatches=found.mismatches,
        methods=[_method(method, config, flagged) for method in found.methods],
        metrics=[_metric(metric, found.methods, flagged) for metric in found.metrics],
        reference_columns=references,
        baseline="the raw features" if _baseline_is_raw(found, config) else config.baseline,
        bootstrap=_bootstrap(found, config),
        sections=[
            curve_section(found.methods),
            recall_section(found.methods),
            per_class_section(found.methods, config.baseline),
        ],
        publications=[
            (publication, [_claim(checked) for checked in claims])
            for publication, claims in check_publications(found.methods, config.data_tag)
        ],
        without=found.without,
        facts=_facts(found, config, command),
        runs=[_run(run, method) for method in found.methods for run in method.runs],
        notes=[note for method in found.methods for note in _notes(method)],
        settings=list(differing_settings(found.methods).items()),
        not_method=", ".join(config.not_method),
    )


def mean_and_std(cell: Cell) -> str:
    """Return `mean ± std`, `mean ± -` for one run, which has no deviation, and `-` for none."""
    return _plus_minus(cell.spread) if cell.by_run else "-"


def _plus_minus(spread: SeedSpread) -> str:
    return f"{format_value(spread.mean)} ± {format_value(spread.std)}"


def _summary(found: Comparison) -> str:
    num_runs = sum(len(method.runs) for method in found.methods)
    splits = found.methods[0].runs[0].document["splits"]
    samples = ", ".join(f"{count} samples of {split}" for split, count in splits.items())
    return (
        f"{len(found.methods)} methods, {num_runs} runs, {samples}; runs without an evaluation: {len(found.without)}."
    )


def _baseline_is_raw(found: Comparison, config: ReportConfig) -> bool:
    return config.baseline == BASELINE_RAW and all(method.name != BASELINE_RAW for method in found.methods)


def _bootstrap(found: Comparison, config: ReportConfig) -> str:
    return (
        f"Difference: the method minus {config.baseline}, each averaged over its seeds per sample, then over samples. "
        f"95 % percentile interval of {config.num_resamples} paired bootstrap resamples of the samples (seed "
        f"{config.bootstrap_seed}): it says what other samples could give, not what other seeds could. Bold: 0 is "
        f"outside; nothing is corrected for looking at {len(found.metrics)} metrics. relative: difference of the means "
        "as a share of the baseline's."
    )


def _method(method: Method, config: ReportConfig, flagged: set[str]) -> dict[str, Any]:
    return {
        "name": method.name,
        "n": len(method.runs),
        "is_baseline": method.name == config.baseline,
        "flagged": method.name in flagged,
    }


def _metric(metric: MetricComparison, methods: Sequence[Method], flagged: set[str]) -> dict[str, Any]:
    rows = {method.name: _row(metric.cells[method.name]) for method in methods}
    paired = any(row["difference"] for row in rows.values())
    direction = (
        "explains others, no direction is better" if metric.better == "neither" else f"{metric.better} is better"
    )
    return {
        "name": metric.name,
        "about": f"{metric.count}; {direction}",
        "notes": metric.notes,
        "references": {column: _range(*bounds) for column, bounds in metric.references.items()},
        "rows": rows,
        "unpaired": [] if paired else list(dict.fromkeys(row["why"] for row in rows.values() if row["why"])),
        "figures": metric_figures(metric, flagged),
    }


def _row(cell: Cell) -> dict[str, Any]:
    found = cell.difference
    row: dict[str, Any] = {
        "value": mean_and_std(cell),
        "n": cell.spread.num_runs,
        "why": cell.why_none,
        "difference": "",
        "relative": "-" if math.isnan(cell.relative) else f"{100 * cell.relative:+.1f} %",
    }
    if found is None:
        return row
    interval = f"{_signed(found.low)} to {_signed(found.high)}"
    beyond_zero = found.low > 0 or found.high < 0
    return row | {"difference": _signed(found.mean), "interval": interval, "beyond_zero": beyond_zero}


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"


def _range(low: float, high: float) -> str:
    """One value where all runs agree, as they do on the same features; else from where to where."""
    shown = format_value(low), format_value(high)
    return shown[0] if shown[0] == shown[1] else f"{shown[0]} to {shown[1]}"


def _claim(checked: CheckedClaim) -> dict[str, Any]:
    lines: dict[str, list[str]] = {}
    for item in checked.measured:
        said = f"{item.method}: {_plus_minus(item.spread)}, n={item.spread.num_runs}"
        lines.setdefault(item.metric, []).append(said)
    claim = checked.claim
    return {
        "figure": claim.figure,
        "published": claim.published,
        "on": claim.on,
        "known": claim.known,
        "measured": list(lines.items()),
        "why_not": checked.why_not,
    }


def _facts(found: Comparison, config: ReportConfig, command: str) -> list[tuple[str, str]]:
    runs = [run for method in found.methods for run in method.runs]
    code = git_tags()
    dirty = ", with changes that are not committed" if code.get("git.dirty") == "true" else ""
    experiment = [("experiment", config.experiment)] if config.experiment else []
    return [
        ("MLflow", redact(resolve_tracking_uri(config.tracking))),
        *experiment,
        *([("filter", config.filter)] if config.filter else []),
        *(("evaluated store", store) for store in dict.fromkeys(_store(run) for run in runs)),
        *(("code of runs", commit) for commit in dict.fromkeys(run.commit for run in runs)),
        ("code of this page", code["git.commit"] + dirty),
        ("made with", redact(command)),
    ]


def _run(run: EvaluatedRun, method: Method) -> dict[str, Any]:
    steps = [step for curves in run.curves.values() for values, _ in curves.values() for step in values]
    store = run.document["store"]
    dirty = " (dirty)" if run.tags.get("git.dirty") == "true" else ""
    return {
        "method": method.name,
        "run_id": run.run_id,
        "seed": "-" if run.seed is None else run.seed,
        "step": run.step,
        "last_step": max(steps, default="-"),
        "status": run.status,
        "commit": run.commit[:12] + dirty,
        "store": f"version {store['version']}, {run.manifest_hash[:12]}",
    }


def _store(run: EvaluatedRun) -> str:
    store = run.document["store"]
    return f"{redact(store['uri'])}, version {store['version']}, manifest {store['manifest_hash']}"


def _notes(method: Method) -> list[str]:
    """What a reader must know of a method's runs: commits that differ, alarms of collapse that went off."""
    commits = sorted({run.commit[:12] for run in method.runs})
    notes = [f"{method.name}: its runs are of different commits, {', '.join(commits)}."] if len(commits) > 1 else []
    for run in method.runs:
        alarms = sorted(name.removeprefix("alarm/") for name in run.metrics if name.startswith("alarm/"))
        notes += [f"{method.name}, run {run.short_id}: alarms went off, {', '.join(alarms)}."] if alarms else []
    return notes
