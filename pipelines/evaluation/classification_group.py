"""Video classification by linear probe and k-NN: the labels a video carries, and its activity where annotations name
one.

Probes are fitted on train, their penalty is chosen on dev, the figures are of the reported split.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hvlm.metrics.classification import ClassificationResult, class_separation, evaluate_classification, knn_scores
from hvlm.metrics.linear_probe import Kind, LinearProbe, ProbeConfig, choose_probe, fit_linear_probe
from pipelines.evaluation.metric_table import KINDS, Absent, GroupResult, MetricRow, rows_of
from pipelines.evaluation.parts import AnnotatedVideo, LabelledVideo, Parts
from pipelines.evaluation.plots import bars_svg
from pipelines.evaluation.results import Figure

CHANCE_DRAWS = 20


@dataclass(frozen=True, slots=True)
class Task:
    """One labelling of the videos; `kind` one_vs_rest for several labels per video, multinomial for exactly one."""

    name: str
    classes: list[str]
    kind: Kind
    truth: dict[str, NDArray[np.bool_]]  # by part name

    def targets(self, part: str) -> NDArray[Any]:
        """Return what `fit_linear_probe` wants for a part."""
        return self.truth[part] if self.kind == "one_vs_rest" else self.truth[part].argmax(axis=1)


def classification_group(parts: Parts[LabelledVideo], config: ProbeConfig, *, knn_k: int, seed: int) -> GroupResult:
    """Return the classification metrics of one split; `details` holds class names, per-class AP and the label probe's
    scores.
    """
    rows: list[MetricRow] = []
    absent: list[Absent] = []
    details: dict[str, Any] = {}
    for name in ("labels", "activity"):
        task = _labels_task(parts) if name == "labels" else _activity_task(parts)
        if isinstance(task, str):
            absent.append(Absent(f"{parts.split}/video/linear_probe/{name}/*, {parts.split}/video/knn/{name}/*", task))
            continue
        found = _evaluate_task(task, parts, config, knn_k)
        chance = chance_figures(task.truth["report"], seed)
        rows += _rows(task, parts, found, chance)
        details[name] = {"classes": task.classes, "dev_note": parts.dev_note} | found["details"]
    return GroupResult(rows, absent, details)


def _labels_task(parts: Parts[LabelledVideo]) -> Task | str:
    named = {"train": parts.train, "dev": parts.dev, "report": parts.report}
    for part, records in named.items():
        if not any(record.annotations for record in records):
            return f"no video of the {part} part carries annotations"
    classes = vocabulary([*parts.train, *parts.dev, *parts.report])
    return Task(
        "labels", classes, "one_vs_rest", {part: label_matrix(records, classes) for part, records in named.items()}
    )


def _activity_task(parts: Parts[LabelledVideo]) -> Task | str:
    """The activity that annotations name, else the order of the labels, where that is a label worth learning.

    Videos without an activity would be left out of one part and not of another, so all must have one.
    """
    named = {"train": parts.train, "dev": parts.dev, "report": parts.report}
    of = {part: [activity_of(record) for record in records] for part, records in named.items()}
    unnamed = {part: sum(name is None for name in names) for part, names in of.items()}
    if any(unnamed.values()) or not all(of.values()):
        return f"videos without an activity or annotated segments, by part: {unnamed}"
    unseen = len(set(of["report"]) - set(of["train"]))
    if unseen:
        return f"{unseen} activities of {parts.split} do not occur in train"
    named_by_source = any(record.activity for record in parts.report)
    if not named_by_source and not any(len(order_of(record)) > 1 for record in parts.report):
        return "one label per video: the same as the labels"
    classes = sorted({str(name) for names in of.values() for name in names})
    one_hot = np.eye(len(classes), dtype=bool)
    truth = {part: one_hot[[classes.index(str(name)) for name in names]] for part, names in of.items()}
    return Task("activity", classes, "multinomial", truth)


def ap_figures(details: Mapping[str, Any]) -> list[Figure]:
    """Return a figure of the AP per class of every task."""
    figures = []
    for name, task in details.items():
        svg = bars_svg(task["classes"], {kind: task["ap"][kind] for kind in KINDS}, f"AP per class, {name}")
        if svg is not None:
            figures.append(Figure(svg, f"Linear probe on frozen video embeddings, {name}."))
    return figures


def prediction_columns(details: Mapping[str, Any], count: int) -> list[dict[str, str]]:
    """Return `{kind}.top_{task}` of each of the `count` reported videos: the class that the probe finds likeliest."""
    columns: list[dict[str, str]] = [{} for _ in range(count)]
    for name, task in details.items():
        for kind, scores in task["probability"].items():
            for row, best in zip(columns, scores.argmax(axis=1), strict=True):
                row[f"{kind}.top_{name}"] = task["classes"][int(best)]
    return columns


def named_ap(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return `{task: {column: {class: AP}}}`, None for a class that no reported video has."""
    return {
        name: {
            column: {c: value if math.isfinite(value) else None for c, value in zip(task["classes"], ap, strict=True)}
            for column, ap in task["ap"].items()
        }
        for name, task in details.items()
    }


def chance_figures(truth_NC: NDArray[np.bool_], seed: int) -> dict[str, float]:
    """Return mAP and hits of random scores, the mean over some draws."""
    random = np.random.default_rng(seed)
    draws = [evaluate_classification(random.random(truth_NC.shape), truth_NC) for _ in range(CHANCE_DRAWS)]
    return {
        name: float(np.mean([getattr(draw, name) for draw in draws])) for name in ("mean_ap", "hit_at_1", "hit_at_3")
    }


def vocabulary(records: Sequence[LabelledVideo]) -> list[str]:
    """Return the annotated labels, sorted: position = class number."""
    return sorted({str(item["label"]) for record in records for item in record.annotations})


def label_matrix(records: Sequence[LabelledVideo], names: Sequence[str]) -> NDArray[np.bool_]:
    """Return (N, C) bool: which labels each video carries."""
    number = {name: i for i, name in enumerate(names)}
    matrix = np.zeros((len(records), len(names)), dtype=bool)
    for row, record in enumerate(records):
        matrix[row, [number[str(item["label"])] for item in record.annotations]] = True
    return matrix


def activity_of(record: AnnotatedVideo) -> str | None:
    """Return the activity that the source list names for a video, else its labels in their order of time."""
    return record.activity or ", then ".join(order_of(record)) or None


def order_of(record: AnnotatedVideo) -> list[str]:
    """Return the labels by start time, repetitions of the one before left out."""
    ordered = sorted(record.annotations, key=lambda item: (item["segment"][0], item["segment"][1], item["label"]))
    labels = [str(item["label"]) for item in ordered]
    return [label for i, label in enumerate(labels) if i == 0 or label != labels[i - 1]]


def _evaluate_task(task: Task, parts: Parts[LabelledVideo], config: ProbeConfig, knn_k: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "probe": {},
        "knn": {},
        "separation": {},
        "details": {"l2": {}, "ap": {}, "probability": {}},
    }
    for kind in KINDS:
        train, dev, report = (_videos(records, kind) for records in (parts.train, parts.dev, parts.report))
        probe, tried = _choose(task, config, train, dev)
        found["probe"][kind] = evaluate_classification(probe.logits(report), task.truth["report"])
        found["knn"][kind] = evaluate_classification(
            knn_scores(train, task.truth["train"], report, k=knn_k), task.truth["report"]
        )
        if task.kind == "multinomial":
            found["separation"][kind] = class_separation(report, task.truth["report"].argmax(axis=1))
        found["details"]["l2"][kind] = {"chosen": probe.l2, "dev": {str(key): value for key, value in tried.items()}}
        found["details"]["ap"][kind] = found["probe"][kind].ap_per_class
        found["details"]["probability"][kind] = probe.probabilities(report)
    return found


def _choose(
    task: Task, config: ProbeConfig, train: NDArray[Any], dev: NDArray[Any]
) -> tuple[LinearProbe, dict[float, float]]:
    def fit(l2: float) -> LinearProbe:
        return fit_linear_probe(
            train,
            task.targets("train"),
            num_classes=len(task.classes),
            l2=l2,
            kind=task.kind,
            max_iterations=config.max_iterations,
        )

    def dev_score(probe: LinearProbe) -> float:
        result = evaluate_classification(probe.logits(dev), task.truth["dev"])
        return result.mean_ap if task.kind == "one_vs_rest" else result.hit_at_1

    return choose_probe(fit, dev_score, config.l2_grid)


def _rows(task: Task, parts: Parts[LabelledVideo], found: dict[str, Any], chance: dict[str, float]) -> list[MetricRow]:
    note = f"fitted on {len(parts.train)} train videos, penalty chosen on {parts.dev_note}"
    rows = []
    for method in ("probe", "knn"):
        level = f"{parts.split}/video/{'linear_probe' if method == 'probe' else 'knn'}/{task.name}"
        values = {kind: _values(result, task) for kind, result in found[method].items()} | {"chance": chance}
        count = next(iter(found[method].values())).num_videos
        wanted = "mean_ap" if task.kind == "one_vs_rest" else "hit_at_1"
        for row in rows_of(values, level, count=count, note=note):
            rows.append(replace(row, headline=method == "probe" and row.name.endswith(f"/{wanted}")))
    for name, better in (("intra", "lower"), ("inter", "higher"), ("separation", "higher")):
        if found["separation"]:
            values = {kind: separation[name] for kind, separation in found["separation"].items()}
            full = f"{parts.split}/video/class_distance/{task.name}/{name}"
            rows.append(MetricRow(name=full, count=len(parts.report), better=better, **values))  # type: ignore[arg-type]
    return rows


def _values(result: ClassificationResult, task: Task) -> dict[str, float]:
    values = {"mean_ap": result.mean_ap, "hit_at_1": result.hit_at_1, "hit_at_3": result.hit_at_3}
    # With one label per video top-1 is Hit@1, and without single-label videos it does not exist.
    mixed = task.kind == "one_vs_rest" and 0 < result.num_single_label < result.num_videos
    return values | ({"top_1_single_label": result.top_1_single_label} if mixed else {})


def _videos(records: Sequence[LabelledVideo], kind: str) -> NDArray[np.float64]:
    return np.stack([record.kinds[kind].video_D for record in records]).astype(np.float64)
