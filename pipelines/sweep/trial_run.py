"""One trial: train, evaluate, and write down what came out, so that it is done once."""

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from hvlm.errors import JobError
from infra import storage
from infra.config_io import dump_config
from pipelines.evaluation.metric_table import MetricRow, plain_rows
from pipelines.evaluation.run import REPORT, evaluate
from pipelines.sweep.trials import Trial
from pipelines.training.checkpoints import find_checkpoint
from pipelines.training.trainer import run_training

logger = logging.getLogger(__name__)

TRIAL_FILE = "trial.json"
FORMAT_VERSION = 1
_MEANS_NOTHING = ("tracking", "cluster", "resources")  # where it ran; the addresses may also hold credentials
_DEV_LOSS = "dev/loss/"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What a trial gave.

    Args:
        run_id: MLflow run of the training. checkpoint_uri: what was evaluated, or the best one without evaluation.
        report_uri: of the evaluation. duration_s: of the start that finished it.
        metrics: headline rows as `plain_rows` makes them (name, ours, raw, better, ...).
    """

    run_id: str
    checkpoint_uri: str
    report_uri: str | None
    duration_s: float
    metrics: list[dict[str, Any]] = field(default_factory=list)


def run_trial(trial: Trial) -> TrialResult:
    """Train to the end, evaluate unless this checkpoint was evaluated so before, and return the recorded result.

    Raises:
        UserError: the configuration does not fit the store, the output or the cluster.
        JobError: the workers failed, or an alarm stopped the training.
    """
    started = time.monotonic()
    report = run_training(trial.training)
    outcome = report.outcome
    if outcome.stopped:
        raise JobError(f"an alarm stopped the training: {outcome.stopped}")
    if trial.evaluation is None:
        checkpoint_uri, report_uri, metrics = str(outcome.best_uri), None, dev_metrics(outcome.metrics)
    else:
        checkpoint_uri = find_checkpoint(trial.output_uri, trial.evaluation.which).uri
        known = read_record(trial)
        if known and known["checkpoint_uri"] == checkpoint_uri and known["evaluation"] == _plain(trial.evaluation):
            report_uri, metrics = known["report_uri"], known["metrics"]
        else:
            measured = evaluate(trial.evaluation)
            report_uri = storage.join(measured.output_uri, REPORT)
            metrics = plain_rows(row for row in measured.rows if row.headline)
    result = TrialResult(
        run_id=report.job.run_id,
        checkpoint_uri=checkpoint_uri,
        report_uri=report_uri,
        duration_s=time.monotonic() - started,
        metrics=metrics,
    )
    _write_record(trial, result)
    return result


def finished_result(trial: Trial) -> TrialResult | None:
    """Return what the trial gave if it was finished with this very configuration, else None."""
    known = read_record(trial)
    if known is None or (known["training"], known["evaluation"]) != (_plain(trial.training), _plain(trial.evaluation)):
        return None
    return TrialResult(**{item.name: known[item.name] for item in fields(TrialResult)})


def read_record(trial: Trial) -> dict[str, Any] | None:
    """Return the content of the trial's record, None where there is none."""
    uri = storage.join(trial.output_uri, TRIAL_FILE)
    with storage.reachable("output_uri", uri):
        if not storage.exists(uri):
            return None
        known: dict[str, Any] = json.loads(storage.read_bytes(uri))
    return known if known.get("format_version") == FORMAT_VERSION else None


def dev_metrics(metrics: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the dev metrics of a training as rows; only a loss is better when it is lower."""
    rows = [
        MetricRow(name=name, ours=value, better="lower" if name.startswith(_DEV_LOSS) else "higher", headline=True)
        for name, value in sorted(metrics.items())
        if name.startswith(_DEV_LOSS) or name.endswith(("recall_at_1", "hit_at_1", "contrast_gap", "effective_rank"))
        if name.startswith("dev/")
    ]
    return plain_rows(rows)


def _write_record(trial: Trial, result: TrialResult) -> None:
    content = {
        "format_version": FORMAT_VERSION,
        "training": _plain(trial.training),
        "evaluation": _plain(trial.evaluation),
    }
    data = json.dumps(content | asdict(result), indent=1).encode() + b"\n"
    storage.atomic_write(storage.join(trial.output_uri, TRIAL_FILE), data)


def _plain(config: object | None) -> dict[str, Any] | None:
    """Return what a configuration means, as JSON reads it back."""
    if config is None:
        return None
    values = {key: value for key, value in dump_config(config).items() if key not in _MEANS_NOTHING}
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain
