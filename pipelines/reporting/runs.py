"""Reads runs from MLflow: parameters, tags, curves and the files of the last evaluation. Nothing else is a source."""

import io
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import polars as pl
from mlflow.entities import Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from hvlm.errors import UserError
from infra import scratch
from infra.tracking import redact, resolve_tracking_uri, tracking_errors
from pipelines.evaluation.plots import Curves
from pipelines.evaluation.run_layout import (
    FORMAT_VERSION,
    METRICS_FILE,
    PANELS,
    evaluation_folder,
    evaluation_tag,
    metric_name,
    read_curves,
    samples_file,
)
from pipelines.reporting.config import ReportConfig

REPORT_TAG = "report.runs"
"""Tag of a comparison page's own run, which is none of the methods."""
MONITORS = ("unit_std", "effective_rank", "random_pair_cosine", "contrast_gap", "temporal_consistency")
CURVES = dict(PANELS) | {f"collapse: {name}": (f"dev/hidden/{name}", f"dev/clip/{name}") for name in MONITORS}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluatedRun:
    """One run with its last evaluation.

    Args:
        params, tags: of the run. metrics: the last value of each.
        step: of the checkpoint that was evaluated.
        document: metrics.json.
        rows: its rows of the compared metrics by name.
        samples: `samples_….parquet` by split; a split without the file is missing.
        logged: what MLflow itself has of them at this step, by the name in the run.
        curves: `{panel: {metric: (steps, values)}}`.
    """

    run_id: str
    status: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    step: int
    document: Mapping[str, Any]
    rows: Mapping[str, Mapping[str, Any]]
    samples: Mapping[str, pl.DataFrame]
    logged: Mapping[str, float]
    curves: Mapping[str, Curves]

    @property
    def short_id(self) -> str:
        """The first 8 digits of the id, as the page names runs."""
        return self.run_id[:8]

    @property
    def seed(self) -> str | None:
        """The training's seed; None where the run has no such parameter."""
        return self.params.get("seed")

    @property
    def commit(self) -> str:
        """The git commit of the training."""
        return self.tags.get("git.commit", "unknown")

    @property
    def manifest_hash(self) -> str:
        """Of the evaluated store."""
        return str(self.document["store"]["manifest_hash"])


@dataclass(frozen=True, slots=True)
class UnevaluatedRun:
    """A run that was asked for but has no evaluation to compare, and why."""

    run_id: str
    name: str
    status: str
    why: str


def read_runs(config: ReportConfig) -> tuple[list[EvaluatedRun], list[UnevaluatedRun]]:
    """Return the runs with an evaluation and those without, each in the order in which they were named or begun.

    Raises:
        UserError: a run or the experiment does not exist, the filter is no filter, or MLflow cannot be read.
    """
    uri = resolve_tracking_uri(config.tracking)
    client = MlflowClient(uri)
    evaluated: list[EvaluatedRun] = []
    without: list[UnevaluatedRun] = []
    with tracking_errors(uri):
        wanted = _wanted(client, config)
        parents = {run.data.tags.get("mlflow.parentRunId") for run in wanted}
        for run in wanted:
            read = _read(client, run, config)
            if isinstance(read, str) and run.info.run_id in parents:
                read = f"{read}: it is the parent of other runs here"
            if isinstance(read, EvaluatedRun):
                evaluated.append(read)
            else:
                without.append(UnevaluatedRun(run.info.run_id, run.info.run_name or "", run.info.status, read))
    return evaluated, without


def _wanted(client: MlflowClient, config: ReportConfig) -> list[Run]:
    runs = {run_id: _named(client, run_id) for run_id in config.run_ids}
    if config.experiment is not None:
        found = sorted(_search(client, config), key=lambda run: (run.info.start_time or 0, run.info.run_id))
        runs |= {run.info.run_id: run for run in found if REPORT_TAG not in run.data.tags}
    if not runs:
        raise UserError(
            what="experiment, filter",
            got=f"'{config.experiment}' with the filter {config.filter}: no runs",
            expected="runs to compare",
            do="look at the experiment's runs in the MLflow UI and widen the filter",
        )
    return list(runs.values())


def _named(client: MlflowClient, run_id: str) -> Run:
    try:
        run = client.get_run(run_id)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(
            what="run_ids",
            got=run_id,
            expected=f"a run on {redact(str(client.tracking_uri))}",
            do="copy the run's id from the MLflow UI, or set tracking.uri or MLFLOW_TRACKING_URI",
        ) from error
    if run.info.lifecycle_stage != "active":
        raise UserError(
            what="run_ids", got=f"{run_id}, deleted", expected="an active run", do="restore or leave it out"
        )
    return run


def _search(client: MlflowClient, config: ReportConfig) -> Iterator[Run]:
    experiment = client.get_experiment_by_name(config.experiment)
    if experiment is None:
        raise UserError(
            what="experiment",
            got=config.experiment,
            expected=f"an experiment on {redact(str(client.tracking_uri))}",
            do="look at the MLflow UI, or set tracking.uri or MLFLOW_TRACKING_URI",
        )
    token = None
    while True:
        try:
            page = client.search_runs(
                [experiment.experiment_id], config.filter or "", ViewType.ACTIVE_ONLY, page_token=token
            )
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise UserError(
                what="filter",
                got=f"{config.filter} ({redact(str(error))[:200]})",
                expected="MLflow's search syntax",
                do="write e.g. filter=\"params.epochs = '4'\"",
            ) from error
        yield from page
        token = page.token
        if not token:
            return


def _read(client: MlflowClient, run: Run, config: ReportConfig) -> EvaluatedRun | str:
    """Return the run, or why there is no evaluation of it."""
    mark = config.store_mark or ""
    tags, run_id = run.data.tags, run.info.run_id
    step = tags.get(evaluation_tag("step", mark))
    if step is None:
        return "was never evaluated" + (f" on {mark}" if mark else "")
    folder = evaluation_folder(int(step), mark)
    with scratch.folder() as place:
        names = {Path(file.path).name: file.path for file in client.list_artifacts(run_id, folder)}
        if METRICS_FILE not in names:
            return f"its artifacts have no {folder}/{METRICS_FILE}"
        document = json.loads(_artifact(client, run_id, names[METRICS_FILE], place))
        if document.get("format_version") != FORMAT_VERSION:
            return f"{METRICS_FILE} has format {document.get('format_version')}, this page reads {FORMAT_VERSION}"
        splits = [split for split in document["splits"] if config.splits is None or split in config.splits]
        if not splits:
            return f"was evaluated on {', '.join(document['splits'])} only"
        samples = {
            split: pl.read_parquet(io.BytesIO(_artifact(client, run_id, names[samples_file(split)], place)))
            for split in splits
            if samples_file(split) in names
        }
    rows = {
        row["name"]: row
        for row in document["metrics"]
        if row["name"].partition("/")[0] in splits and _is_compared(row, config)
    }
    return EvaluatedRun(
        run_id=run_id,
        status=run.info.status,
        params=run.data.params,
        tags=tags,
        metrics=run.data.metrics,
        step=int(step),
        document=document | {"splits": {split: document["splits"][split] for split in splits}},
        rows=rows,
        samples=samples,
        logged=_logged(client, run_id, [metric_name(name, mark) for name in rows], int(step)),
        curves=read_curves(client, run_id, CURVES),
    )


def _artifact(client: MlflowClient, run_id: str, path: str, place: Path) -> bytes:
    return Path(client.download_artifacts(run_id, path, str(place))).read_bytes()


def _is_compared(row: Mapping[str, Any], config: ReportConfig) -> bool:
    if config.metrics is None:
        return bool(row["headline"])
    return any(fnmatchcase(row["name"], pattern) for pattern in config.metrics)


def _logged(client: MlflowClient, run_id: str, names: list[str], step: int) -> dict[str, float]:
    """The last value of each metric at the step: evaluating a step again adds a newer value to it."""
    values = {}
    for name in names:
        at_step = [metric for metric in client.get_metric_history(run_id, name) if metric.step == step]
        if at_step:
            values[name] = float(max(at_step, key=lambda metric: metric.timestamp).value)
    return values
