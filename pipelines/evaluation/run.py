"""One evaluation from config to logged report: open → measure → write → log to MLflow."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hvlm.errors import UserError
from infra import storage
from infra.cluster import connect, reject_relative_paths_in_job, require_resources
from infra.tracking import resolve_tracking_uri, tracking_errors
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.inputs import EvaluationInputs, open_inputs
from pipelines.evaluation.metric_table import MetricRow, flat_metrics
from pipelines.evaluation.outputs import metrics_json, split_files, to_json
from pipelines.evaluation.registry import open_evaluated
from pipelines.evaluation.report import render_report
from pipelines.evaluation.results import SplitResult
from pipelines.evaluation.run_layout import METRICS_FILE
from pipelines.evaluation.run_log import log_evaluation, training_curves
from pipelines.evaluation.spread import embedders

logger = logging.getLogger(__name__)

REPORT = "report.html"


@dataclass(frozen=True, slots=True)
class EvaluationOutcome:
    """What an evaluation gave: the table's rows, where the files stand, the MLflow run that has them."""

    rows: list[MetricRow]
    output_uri: str
    run_id: str
    tracking_uri: str
    duration_s: float


def evaluate(config: EvaluateConfig) -> EvaluationOutcome:
    """Evaluate a checkpoint, write the report and log it.

    Raises:
        UserError: wrong input (see `open_inputs`, `open_evaluated`), a cluster without the resources, or MLflow fails;
            then the files are written, and the message says where.
        ConservationError: a sample was lost or embedded twice; nothing is written.
    """
    started = time.monotonic()
    reject_relative_paths_in_job({"output_uri": config.output_uri})
    inputs = open_inputs(config)
    system = open_evaluated(config, inputs)
    with connect(config.cluster):
        require_resources([embedders(config.resources)], what="resources.num_actors")
        results = system.measure()
    output_uri = config.output_uri or inputs.output_uri
    files = make_files(config, inputs, system.facts, results)
    for name, content in files.items():
        storage.atomic_write(storage.join(output_uri, name), content)
    rows = [row for result in results for row in result.rows]
    try:
        with tracking_errors(resolve_tracking_uri(inputs.tracking)):
            if curves := training_curves(inputs.tracking, inputs.run_id):
                files[REPORT] = render_report(inputs, results, curves).encode()
                storage.atomic_write(storage.join(output_uri, REPORT), files[REPORT])
            tracker = log_evaluation(inputs, flat_metrics(rows), files, output_uri)
    except UserError as error:
        kept = f"the evaluation is whole, only MLflow lacks it: {storage.join(output_uri, REPORT)}"
        raise UserError(what=error.what, got=error.got, expected=error.expected, do=f"{error.do}; {kept}") from error
    return EvaluationOutcome(rows, output_uri, tracker.run_id, tracker.uri, time.monotonic() - started)


def make_files(
    config: EvaluateConfig, inputs: EvaluationInputs, facts: Mapping[str, Any], results: list[SplitResult]
) -> dict[str, bytes]:
    """Return every file of the evaluation by name, the report without the training's curves: MLflow is not asked."""
    files = {
        REPORT: render_report(inputs, results, {}).encode(),
        METRICS_FILE: to_json(metrics_json(config, inputs, facts, results)),
    }
    for result in results:
        files |= split_files(result)
    return files
