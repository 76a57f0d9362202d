"""The evaluation report: one HTML file that needs nothing else, for a phone as for a desk, on dark as on light."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pipelines.evaluation.inputs import EvaluationInputs
from pipelines.evaluation.metric_table import MetricRow, beats_raw, plain_rows
from pipelines.evaluation.page import page_template
from pipelines.evaluation.plots import Curves, curves_svg
from pipelines.evaluation.results import SplitResult


def render_report(inputs: EvaluationInputs, results: Sequence[SplitResult], curves: Mapping[str, Curves]) -> str:
    """Return the report as HTML; all texts from data are escaped."""
    rows = [row for result in results for row in result.rows]
    drawn = curves_svg(curves)
    return page_template("report.html.j2").render(
        step=inputs.checkpoint.step,
        verdict=verdict(rows),
        facts=_facts(inputs),
        headlines=plain_rows(row for row in rows if row.headline),
        curves=None if drawn is None else Markup(drawn),  # noqa: S704 (our own figure)
        run_id=inputs.run_id,
        sections=[_section(result) for result in results],
    )


def verdict(rows: Sequence[MetricRow]) -> str:
    """Return one sentence: on how many headline metrics the model is better than the raw features."""
    decided = [(row.name, beats) for row in rows if row.headline and (beats := beats_raw(row)) is not None]
    if not decided:
        return "No headline metric has both a value of the model and one of the raw features."
    worse = [name for name, beats in decided if not beats]
    tail = f" Not better: {', '.join(worse)}." if worse else ""
    score = f"{len(decided) - len(worse)} of {len(decided)}"
    return f"The model is better than the raw features on {score} headline metrics.{tail}"


def _facts(inputs: EvaluationInputs) -> list[tuple[str, str]]:
    encoders = ", ".join(f"{name} ({print_[:8]})" for name, print_ in inputs.manifest.encoders.items())
    other = [] if not inputs.mark else [("another store", f"{inputs.num_excluded} videos left out: training read them")]
    return [
        ("checkpoint", inputs.checkpoint.uri),
        ("MLflow run", inputs.run_id or "-"),
        ("store", f"{inputs.manifest.store_uri}, version {inputs.manifest.version}"),
        *other,
        ("manifest", inputs.manifest.manifest_hash),
        ("encoders", encoders),
        ("code", inputs.info.git_commit or "unknown"),
    ]


def _section(result: SplitResult) -> dict[str, Any]:
    groups = [
        {
            "title": section.title,
            "rows": plain_rows(section.rows),
            "notes": sorted({row.note for row in section.rows if row.note}),
            # Our own figures: matplotlib has escaped the labels in them.
            "figures": [{"svg": Markup(svg), "caption": caption} for svg, caption in section.figures],  # noqa: S704
        }
        for section in result.sections.values()
        if section.rows or section.figures
    ]
    return {"split": result.split, "count": result.samples.height, "groups": groups, "absent": result.absent}
