"""The evaluation report: one HTML file that needs nothing else, for a phone as for a desk, on dark as on light."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from pipelines.evaluation.classification_group import activity_of
from pipelines.evaluation.inputs import EvaluationInputs
from pipelines.evaluation.measure import SplitResult
from pipelines.evaluation.metric_table import MetricRow, beats_raw, group_of, plain_rows
from pipelines.evaluation.page import page_template
from pipelines.evaluation.plots import Curves, bars_svg, curves_svg, map_svg, recall_svg, timeline_svg
from pipelines.evaluation.records import OURS, RAW

_TITLES = {
    "consistency": "Temporal consistency",
    "classification": "Video classification",
    "localisation": "Temporal localisation",
    "retrieval": "Retrieval",
}


@dataclass(slots=True)
class _Group:
    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, svg: str | None, caption: str) -> None:
        if svg is not None:
            # Our own figure: matplotlib has escaped the labels in it.
            self.figures.append({"svg": Markup(svg), "caption": caption})  # noqa: S704


def render_report(
    inputs: EvaluationInputs, results: Sequence[SplitResult], curves: Mapping[str, Curves], num_timelines: int
) -> str:
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
        sections=[_section(result, num_timelines) for result in results],
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


def _section(result: SplitResult, num_timelines: int) -> dict[str, Any]:
    groups = {name: _Group(title) for name, title in _TITLES.items()}
    for row in result.rows:
        groups[group_of(row.name)].rows += plain_rows([row])
    for group in groups.values():
        group.notes = sorted({row["note"] for row in group.rows if row["note"]})
    _draw_classification(groups["classification"], result)
    _draw_localisation(groups["localisation"], result, num_timelines)
    _draw_retrieval(groups["retrieval"], result)
    shown = [group for group in groups.values() if group.rows or group.figures]
    return {"split": result.split, "count": len(result.records), "groups": shown, "absent": result.absent}


def _draw_classification(group: _Group, result: SplitResult) -> None:
    for name, task in result.details["classification"].items():
        columns = {kind: task["ap"][kind] for kind in (OURS, RAW)}
        group.add(
            bars_svg(task["classes"], columns, f"AP per class, {name}"),
            f"Linear probe on frozen video embeddings, {name}.",
        )
    drawn = map_svg(result.records, [activity_of(record) or "no label" for record in result.records])
    group.add(drawn, "First two principal components of the video embeddings, coloured by activity or label.")


def _draw_localisation(group: _Group, result: SplitResult, num_timelines: int) -> None:
    details = result.details["localisation"]
    if not details:
        return
    columns = {column: details["ap"][column] for column in (OURS, RAW, "floor")}
    caption = "Mean AP over tIoU 0.5 to 0.95 per class."
    group.add(bars_svg(details["classes"], columns, "localisation AP per class"), caption)
    annotated = sorted((record for record in result.records if record.annotations), key=lambda record: record.video_id)
    for record in annotated[:num_timelines]:
        svg = timeline_svg(record, details["found"][record.key], details["classes"])
        group.add(svg, f"{record.video_id}: truth and the best predictions, fainter = lower score.")


def _draw_retrieval(group: _Group, result: SplitResult) -> None:
    ranks = result.details["retrieval"].get("ranks", {})
    for place in dict.fromkeys(name.rsplit("/", 1)[0] for name in ranks):
        of_kind = {kind: ranks[f"{place}/{kind}"] for kind in (OURS, RAW) if f"{place}/{kind}" in ranks}
        num_candidates = result.details["retrieval"]["num_candidates"][place]
        group.add(recall_svg(of_kind, num_candidates, place), f"Recall at k, {place}.")
